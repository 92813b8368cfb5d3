// What goes wrong on a GPU becomes a typed error, and gives back what was taken: every call of the driver fails once.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <utility>

#include "cuda/driver.h"
#include "small_bundle.h"
#include "stand_in.h"

using deepsim::Error;
using deepsim::runtime::DeviceMemory;
using deepsim::runtime::Inverter;
using deepsim::runtime::Options;
using namespace deepsim::tests;

namespace {

std::vector<std::string> driver_functions() {
#define NAME(member, name, parameters) #name,
  return {DEEPSIM_CUDA_DRIVER(NAME) DEEPSIM_CUDA_NEWER_DRIVER(NAME)};
#undef NAME
}

// Load, encode, decode and re-encode; the kind of the first error, or "".
std::string kind_of_all(const std::string& bundle, const Options& options, std::string* text = nullptr) {
  const std::vector<std::uint8_t> images(2 * kImage, 100);
  std::vector<float> features(2 * kFeatures, 1.0f);
  std::vector<std::uint8_t> made(2 * kImage);
  try {
    Inverter inverter(bundle, options);
    inverter.encode(images.data(), 1, features.data());  // plain; then recorded, and replayed in another slot
    inverter.encode(images.data(), 2, features.data());
    features.assign(kFeatures, 1.0f);  // what an idle GPU left may be NaN
    inverter.decode(features.data(), 1, made.data());
    std::vector<float> raw(2 * kImage);
    inverter.decode_raw(features.data(), 1, raw.data());
    inverter.reencode(images.data(), 1, 2, {1, 2}, made.data());
  } catch (const Error& error) {
    if (text != nullptr) *text = error.what();
    return error.kind();
  }
  return "";
}

// What may fail without an error: calls that give back what was taken, and that come first in a destructor.
bool may_be_of_no_matter(const std::string& function) {
  for (const char* part : {"Free", "Destroy", "Unload", "Release", "PopCurrent", "PushCurrent", "CaptureMode"})
    if (function.find(part) != std::string::npos) return true;
  return false;
}

std::string text_with(const std::string& variable, const std::string& value, const Options& options,
                      const std::string& bundle) {
  const StandIn setting(variable, value), idle("IDLE", "1");
  std::string text;
  CHECK(kind_of_all(bundle, options, &text) != "");
  return text;
}

std::string kind_when_failing(const std::string& failing, const std::string& bundle) {
  const StandIn fails("FAILS", failing);
  deepsim_stand_in_count_anew();
  return kind_of_all(bundle, on_gpu(1));
}

}  // namespace

TEST_CASE("every call of the driver that fails gives a typed error, or is of no matter, and nothing is leaked") {
  const SmallBundle bundle;
  const StandIn idle("IDLE", "1"), architecture("ARCHITECTURE", "90");
  CHECK(kind_of_all(bundle.path(), on_gpu(1)) == "");  // and cuInit was called, once for all
  CHECK(deepsim_stand_in_objects() == 0);
  CHECK(deepsim_stand_in_memory() == 0);
  deepsim_stand_in_count_anew();
  CHECK(kind_of_all(bundle.path(), on_gpu(1)) == "");
  std::vector<std::pair<std::string, long>> calls;
  for (const std::string& name : driver_functions()) calls.emplace_back(name, deepsim_stand_in_calls(name.c_str()));
  std::map<std::string, long> kinds;
  for (const auto& [name, count] : calls)
    for (long call = 1; call <= count; ++call) {
      const std::string failing = name + " " + std::to_string(call);
      CAPTURE(failing);
      const std::string kind = kind_when_failing(failing, bundle.path());
      const bool takes = name == "cuMemAlloc_v2" || name == "cuMemAllocHost_v2";
      const bool expected = takes ? kind == "OutOfMemory" : kind == "DeviceError";
      const bool last_wait = name == "cuEventSynchronize" && call == count;  // of the destructor
      CHECK((expected || (kind.empty() && (last_wait || may_be_of_no_matter(name)))));
      // Without the context nothing can be given back; after such a failure the driver does it with the process.
      const bool lost = name == "cuCtxPushCurrent_v2";
      CHECK((lost || deepsim_stand_in_objects() == 0));
      CHECK((lost || deepsim_stand_in_memory() == 0));
      deepsim_stand_in_forget();
      ++kinds[kind];
    }
  MESSAGE(kinds["DeviceError"] << " DeviceError, " << kinds["OutOfMemory"] << " OutOfMemory, " << kinds[""] << " of no matter");
  CHECK(kinds["DeviceError"] > 100);
}

TEST_CASE("after a call that failed, the next one gives the right bytes") {
  const SmallBundle bundle;
  const StandIn architecture("ARCHITECTURE", "90");
  const std::vector<std::uint8_t> images = random_images(1, 1);
  std::vector<std::uint8_t> wanted(kImage), found(kImage);
  Inverter(bundle.path(), on_gpu(1)).reconstruct(images.data(), 1, wanted.data());
  for (const char* failing :
       {"cuLaunchKernel 3", "cuGraphLaunch 1", "cuGraphCreate 1", "cuGraphAddKernelNode_v2 2", "cuGraphAddDependencies_v2 2",
        "cuGraphInstantiateWithFlags 1", "cuMemcpyDtoHAsync_v2 1", "cuModuleGetFunction 2"}) {
    Inverter inverter(bundle.path(), on_gpu(1));
    const std::string name(failing);  // kernels are looked up and launched once, from the second call on there is a graph
    const bool first = name.find("Module") != std::string::npos || name.find("LaunchKernel") != std::string::npos;
    if (!first) inverter.reconstruct(images.data(), 1, found.data());
    {
      const StandIn fails("FAILS", failing);
      deepsim_stand_in_count_anew();
      CHECK_THROWS_AS(inverter.reconstruct(images.data(), 1, found.data()), Error);
    }
    found.assign(kImage, 0);
    inverter.reconstruct(images.data(), 1, found.data());
    CHECK(found == wanted);
  }
}

TEST_CASE("a GPU without memory for one more graph works without it, and lets the others go") {
  const SmallBundle bundle;
  const std::vector<std::uint8_t> images = random_images(2, 7);
  std::vector<std::uint8_t> wanted(2 * kImage), found(2 * kImage);
  const auto call = [&](Inverter* inverter, int count) {
    found.assign(2 * kImage, 0);
    inverter->reconstruct(images.data(), count, found.data());
    return std::equal(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(count * kImage), wanted.begin());
  };
  Inverter inverter(bundle.path(), on_gpu(2, true));
  inverter.reconstruct(images.data(), 2, wanted.data());
  for (int use = 0; use < 2; ++use) CHECK(call(&inverter, 1));
  CHECK(deepsim_stand_in_graphs() > 0);  // of one image
  {
    const StandIn fails("FAILS", "cuGraphInstantiateWithFlags 1 2");
    deepsim_stand_in_count_anew();
    CHECK(call(&inverter, 2));
    CHECK(deepsim_stand_in_calls("cuGraphInstantiateWithFlags") == 1);
    CHECK(deepsim_stand_in_calls("cuGraphLaunch") == 0);
    CHECK(deepsim_stand_in_graphs() == 0);
  }
  for (int count : {2, 1}) {
    const std::size_t graphs = deepsim_stand_in_graphs();
    CHECK(call(&inverter, count));
    CHECK(deepsim_stand_in_graphs() > graphs);
  }
}

TEST_CASE("too little memory says what is needed and what is free, and a smaller batch fits") {
  const SmallBundle bundle;
  const std::string text = text_with("MEMORY", "3000000", on_gpu(64), bundle.path());
  CHECK(text.find("cuda: max_batch 64 needs ") == 0);
  CHECK(text.find(" MiB of GPU memory, 2 MiB are free. Use a smaller max_batch, or free memory.") != std::string::npos);
  CHECK(text_with("MEMORY", "30000", on_gpu(1), bundle.path()) ==
        "cuda: the weights need 1 MiB of GPU memory, 0 MiB are free. Use another GPU, or free memory.");
  deepsim_stand_in_count_anew();
  CHECK(text_with("FAILS", "cuMemAllocHost_v2 1", on_gpu(1), bundle.path()).find("cuda: could not pin ") == 0);
  const StandIn memory("MEMORY", "3000000"), idle("IDLE", "1");
  CHECK(kind_of_all(bundle.path(), on_gpu(64)) == "OutOfMemory");
  CHECK(deepsim_stand_in_memory() == 0);
  CHECK(kind_of_all(bundle.path(), on_gpu(1)) == "");
}

TEST_CASE("a GPU that is too old, or is not there, is refused by name") {
  const SmallBundle bundle;
  CHECK(text_with("ARCHITECTURE", "70", on_gpu(1), bundle.path()) ==
        "cuda: Emulated GPU has compute capability 7.0, expected 7.5 or later. Use backend cpu.");
  CHECK(text_with("ARCHITECTURE", "75", on_gpu(1, false, "bf16"), bundle.path()) ==
        "cuda: Emulated GPU has compute capability 7.5, expected 8.0 or later for bf16. Use fp16.");
  CHECK(
      text_with("VERSION", "12080", on_gpu(1), bundle.path()) ==
      "cuda: the driver knows CUDA 12.8, expected 13 or later, since a CUDA 13 toolkit compiled the kernels. Update the driver, "
      "or build deepsim with an older toolkit.");
  const StandIn old("ARCHITECTURE", "75"), idle("IDLE", "1");
  CHECK(kind_of_all(bundle.path(), on_gpu(1)) == "");
  Options options = on_gpu(1);
  options.device = "cuda:1";
  std::string text;
  CHECK(kind_of_all(bundle.path(), options, &text) == "DeviceError");
  CHECK(text == "device cuda:1: not here, the driver sees 1 GPU.");
  options.device = "cuda:0";
  options.precision = "fp8";
  CHECK(kind_of_all(bundle.path(), options) == "UsageError");
}

TEST_CASE("after a fault of the GPU the advice is another than after a call that failed") {
  const SmallBundle bundle;
  deepsim_stand_in_count_anew();
  const std::string fault = text_with("FAILS", "cuEventRecord 1", on_gpu(1), bundle.path());
  CHECK(fault.find("). That is a fault of the GPU, after which it is of use to a new process only;") != std::string::npos);
  deepsim_stand_in_count_anew();
  const std::string other = text_with("FAILS", "cuGraphInstantiateWithFlags 1 801", on_gpu(1), bundle.path());
  CHECK(other.find("). See deepsim doctor.") != std::string::npos);
  deepsim_stand_in_count_anew();
  const std::string forked = text_with("FAILS", "cuDeviceGetCount 1 3", on_gpu(1), bundle.path());
  CHECK(forked.find("). CUDA was used before this process was forked, which it does not survive.") != std::string::npos);
}

TEST_CASE("on memory of the GPU, no images are no work, and a stream that is being captured is refused") {
  const SmallBundle bundle;
  const StandIn idle("IDLE", "1");
  Inverter inverter(bundle.path(), on_gpu(1));
  const DeviceMemory nowhere{nullptr};
  inverter.encode(nowhere, 0, nowhere, nullptr);
  inverter.decode(nowhere, 0, nowhere, nullptr);
  inverter.decode_raw(nowhere, 0, nowhere, nullptr);
  inverter.reencode(nowhere, 0, 2, {1, 2}, nowhere, nullptr);
  CHECK_THROWS_WITH_AS(inverter.encode(nowhere, 1, nowhere, nullptr), "input: a null pointer, expected memory.", Error);
  const CurrentContext context;
  std::uint64_t memory = 0;
  REQUIRE(cuMemAlloc_v2(&memory, kImage) == 0);
  const DeviceMemory image{memory};
  {
    const StandIn foreign("FOREIGN", "1");
    CHECK_THROWS_WITH_AS(inverter.reconstruct(image, 1, image, nullptr),
                         "images: in memory of another context, expected the GPU's primary one. Use that one "
                         "(pycuda.autoprimaryctx instead of pycuda.autoinit).",
                         Error);
  }
  inverter.reconstruct(image, 1, image, nullptr);
  const char* const overlaps = "result: it overlaps with what the call reads, expected memory of its own. Take some.";
  const DeviceMemory behind{memory + (kImage - 1) / 4 * 4}, odd{memory + 1};  // features are of four bytes
  CHECK_THROWS_WITH_AS(inverter.encode(image, 1, behind, nullptr), overlaps, Error);
  CHECK_THROWS_WITH_AS(inverter.decode(behind, 1, image, nullptr), overlaps, Error);
  CHECK_THROWS_WITH_AS(inverter.reconstruct(image, 1, behind, nullptr), overlaps, Error);
  CHECK_THROWS_WITH_AS(inverter.reencode(image, 1, 2, {1, 2}, image, nullptr), overlaps, Error);
  CHECK_THROWS_WITH_AS(inverter.interpolate(image, behind, 2, image, nullptr), overlaps, Error);
  const char* const unaligned =
      ": at an address that is no multiple of 4, expected one for float32. Copy it to memory of its own.";
  CHECK_THROWS_WITH_AS(inverter.encode(image, 1, odd, nullptr), (std::string("features") + unaligned).c_str(), Error);
  CHECK_THROWS_WITH_AS(inverter.decode(odd, 1, image, nullptr), (std::string("features") + unaligned).c_str(), Error);
  CHECK_THROWS_WITH_AS(inverter.decode_raw(odd, 1, image, nullptr), (std::string("features") + unaligned).c_str(), Error);
  CHECK_THROWS_WITH_AS(inverter.decode_raw(image, 1, odd, nullptr), (std::string("images") + unaligned).c_str(), Error);
  CHECK_THROWS_WITH_AS(inverter.interpolate(image, odd, 2, image, nullptr), (std::string("end") + unaligned).c_str(), Error);
  const StandIn capturing("CAPTURING", "1");
  deepsim_stand_in_count_anew();
  CHECK_THROWS_WITH_AS(
      inverter.reconstruct(image, 1, image, nullptr),
      "stream: it is being captured into a graph, which cannot hold calls of an Inverter. Call it outside of the "
      "capture.",
      Error);
  CHECK(deepsim_stand_in_calls("cuEventRecord") == 0);
  CHECK(cuMemFree_v2(memory) == 0);
}
