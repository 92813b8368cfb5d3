// The order of streams: calls overlap, and give the same bytes when every stream does its work as late as it may.
#include <doctest/doctest.h>

#include <string>
#include <thread>
#include <utility>

#include "cuda/driver.h"
#include "small_bundle.h"
#include "stand_in.h"

using deepsim::runtime::DeviceMemory;
using deepsim::runtime::Inverter;
using deepsim::runtime::detail::cuda::Address;
using namespace deepsim::tests;

extern "C" {
int cuStreamCreate(void**, unsigned);
int cuStreamDestroy_v2(void*);
int cuStreamSynchronize(void*);
int cuMemcpyHtoDAsync_v2(Address, const void*, std::size_t, void*);
int cuMemcpyDtoHAsync_v2(void*, Address, std::size_t, void*);
}

namespace {

constexpr std::size_t kImages = 3;
const std::vector<std::int32_t> kKeep = {1, 2};

// What every kind of call gives for the same images.
struct Results {
  std::vector<float> features = std::vector<float>(kImages * kFeatures);
  std::vector<std::uint8_t> decoded = std::vector<std::uint8_t>(kImages * kImage),
                            kept = std::vector<std::uint8_t>(kKeep.size() * kImages * kImage);
  std::vector<float> raw = std::vector<float>(kImages * kImage);

  // Which of them differ: "", "features kept".
  std::string differences(const Results& other) const {
    std::string names;
    if (features != other.features) names += "features ";
    if (decoded != other.decoded) names += "decoded ";
    if (kept != other.kept) names += "kept ";
    if (raw != other.raw || rounded(raw) != decoded) names += "raw ";
    return names;
  }
};

Results from_host(Inverter* inverter, const std::vector<std::uint8_t>& images) {
  Results results;
  inverter->encode(images.data(), kImages, results.features.data());
  inverter->decode(results.features.data(), kImages, results.decoded.data());
  inverter->decode_raw(results.features.data(), kImages, results.raw.data());
  inverter->reencode(images.data(), kImages, kKeep.back(), kKeep, results.kept.data());
  return results;
}

// The same on memory of the GPU, queued on a stream of the caller's that is waited for at the end.
class OnDevice {
 public:
  OnDevice() { (void)cuStreamCreate(&stream_, 0); }
  ~OnDevice() {
    (void)cuStreamDestroy_v2(stream_);
    for (const Address address : taken_) (void)cuMemFree_v2(address);
  }

  void start(Inverter* inverter, const std::vector<std::uint8_t>& images) {
    const DeviceMemory in{take(images.size())};
    REQUIRE(cuMemcpyHtoDAsync_v2(in.address, images.data(), images.size(), stream_) == 0);
    inverter->encode(in, kImages, features_, stream_);
    inverter->decode(features_, kImages, decoded_, stream_);
    inverter->decode_raw(features_, kImages, raw_, stream_);
    inverter->reencode(in, kImages, kKeep.back(), kKeep, kept_, stream_);
  }

  Results results() const {
    Results results;
    get(results.features.data(), features_, results.features.size() * sizeof(float));
    get(results.decoded.data(), decoded_, results.decoded.size());
    get(results.kept.data(), kept_, results.kept.size());
    get(results.raw.data(), raw_, results.raw.size() * sizeof(float));
    REQUIRE(cuStreamSynchronize(stream_) == 0);
    return results;
  }

 private:
  Address take(std::size_t bytes) {
    Address address = 0;
    REQUIRE(cuMemAlloc_v2(&address, bytes) == 0);
    taken_.push_back(address);
    return address;
  }
  void get(void* to, DeviceMemory from, std::size_t bytes) const {
    REQUIRE(cuMemcpyDtoHAsync_v2(to, from.address, bytes, stream_) == 0);
  }

  CurrentContext context_;
  void* stream_ = nullptr;
  std::vector<Address> taken_;
  DeviceMemory features_{take(kImages * kFeatures * sizeof(float))}, decoded_{take(kImages * kImage)};
  DeviceMemory kept_{take(kKeep.size() * kImages * kImage)}, raw_{take(kImages * kImage * sizeof(float))};
};

}  // namespace

TEST_CASE("calls from the host and on memory of the GPU give the same bytes whenever streams do their work") {
  const SmallBundle bundle;
  const std::vector<std::uint8_t> images = random_images(kImages, 21);
  Inverter all(bundle.path(), on_gpu(8, true));
  const Results wanted = from_host(&all, images);
  for (const char* late : {"", "0", "1", "2"}) {
    CAPTURE(std::string(late));
    const StandIn setting("LATE", late);
    Inverter inverter(bundle.path(), on_gpu(1, true));  // three chunks, in two slots
    OnDevice device;
    device.start(&inverter, images);
    CHECK(from_host(&inverter, images).differences(wanted) == "");  // in the slots that the GPU may still work in
    CHECK(device.results().differences(wanted) == "");
  }
}

TEST_CASE("calls of several threads overlap and give equal bytes when streams are late") {
  const SmallBundle bundle;
  const std::vector<std::uint8_t> images = random_images(kImages, 22);
  const StandIn setting("LATE", "0");
  Inverter inverter(bundle.path(), on_gpu(1, true));
  const Results wanted = from_host(&inverter, images);
  std::vector<int> different(2);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < different.size(); ++t)
    threads.emplace_back([&, t] {
      Results found;
      if (t == 0) {
        found = from_host(&inverter, images);
      } else {
        OnDevice device;
        device.start(&inverter, images);
        found = device.results();
      }
      different[t] = !found.differences(wanted).empty();
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(different == std::vector<int>(2));
}

TEST_CASE("calls on memory of the GPU read and write where the caller has it, in one graph wherever that is") {
  const SmallBundle bundle;
  const std::vector<std::uint8_t> images = random_images(kImages, 25);
  const StandIn slow("MEMORY_BITS", "8"), cache("CACHE", "900000");  // several groups, each with its place in what is read
  Inverter inverter(bundle.path(), on_gpu(kImages, true));
  std::vector<std::uint8_t> wanted(kImages * kImage), found(kImages * kImage);
  inverter.reconstruct(images.data(), kImages, wanted.data());
  const CurrentContext context;
  Address memory[2];
  for (Address& each : memory) {
    REQUIRE(cuMemAlloc_v2(&each, images.size()) == 0);
    REQUIRE(cuMemcpyHtoDAsync_v2(each, images.data(), images.size(), nullptr) == 0);
  }
  deepsim_stand_in_count_anew();
  long moved = 0;
  const auto call = [&](Address in, Address out) {
    inverter.reencode(DeviceMemory{in}, kImages, 1, {1}, DeviceMemory{out}, nullptr);
    REQUIRE(cuMemcpyDtoHAsync_v2(found.data(), out, found.size(), nullptr) == 0);
    REQUIRE(cuStreamSynchronize(nullptr) == 0);
    CHECK(found == wanted);
    return deepsim_stand_in_calls("cuGraphExecKernelNodeSetParams_v2") -
           std::exchange(moved, deepsim_stand_in_calls("cuGraphExecKernelNodeSetParams_v2"));
  };
  CHECK(call(memory[0], memory[1]) == 0);  // recorded
  CHECK(call(memory[0], memory[1]) == 0);
  const long in_place = call(memory[0], memory[0]);
  CHECK(in_place == kImages);  // the kernels that write pixels, one for each group of an image
  REQUIRE(cuMemcpyHtoDAsync_v2(memory[1], images.data(), images.size(), nullptr) == 0);
  CHECK(call(memory[1], memory[0]) >= 2);
  REQUIRE(cuMemcpyHtoDAsync_v2(memory[1], images.data(), images.size(), nullptr) == 0);
  CHECK(call(memory[1], memory[1]) == in_place);  // the nodes that write
  CHECK(deepsim_stand_in_calls("cuGraphInstantiateWithFlags") == 1);
  CHECK(deepsim_stand_in_calls("cuGraphLaunch") == 5);
  CHECK(deepsim_stand_in_calls("cuMemcpyDtoDAsync_v2") == 0);
  for (const Address each : memory) (void)cuMemFree_v2(each);
}

TEST_CASE("iterations between kept ones are one graph, at most sixteen of them") {
  const SmallBundle bundle;
  const std::vector<std::uint8_t> images = random_images(1, 23);
  std::vector<std::uint8_t> kept(2 * kImage);
  const StandIn idle("IDLE", "1");
  Inverter inverter(bundle.path(), on_gpu(1));
  for (int use = 0; use < 3; ++use) {
    deepsim_stand_in_count_anew();
    inverter.reencode(images.data(), 1, 40, {20, 40}, kept.data());  // 16 + 4 + 16 + 4
  }
  CHECK(deepsim_stand_in_calls("cuGraphLaunch") == 4);
  CHECK(deepsim_stand_in_calls("cuLaunchKernel") == 0);
  CHECK(deepsim_stand_in_graphs() == 2 * 2);  // each, and what it was made from
}

TEST_CASE("graphs of many kernels hold fewer iterations") {
  const SmallBundle bundle;
  constexpr int kMany = 500;  // in small groups, more than a thousand kernels
  const std::vector<std::uint8_t> images = random_images(1, 24);
  std::vector<std::uint8_t> many, kept(kMany * kImage);
  for (int i = 0; i < kMany; ++i) many.insert(many.end(), images.begin(), images.end());
  const StandIn idle("IDLE", "1"), slow("MEMORY_BITS", "8"), cache("CACHE", "900000");
  Inverter inverter(bundle.path(), on_gpu(kMany));
  for (int use = 0; use < 3; ++use) {
    deepsim_stand_in_count_anew();
    inverter.reencode(many.data(), kMany, 16, {16}, kept.data());
  }
  CHECK(deepsim_stand_in_calls("cuGraphLaunch") > 1);
  CHECK(deepsim_stand_in_calls("cuLaunchKernel") == 0);
}
