// Streams that are being captured into a graph, as torch.cuda.graph does: nothing of ours may get into it, and what another
// thread captures goes on beside our calls.
#include <doctest/doctest.h>

#include <optional>

#include "deepsim/deepsim.h"
#include "small_bundle.h"
#include "stand_in.h"

using namespace deepsim::tests;

namespace {

constexpr int kUnsupported = 900;  // CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
const char* const kRefused =
    "stream: it is being captured into a graph, which cannot hold calls of an Inverter. Call it outside of the capture.";

struct Opened {
  explicit Opened(const SmallBundle& bundle) {
    deepsim_options options = {};
    options.size = sizeof options;
    options.device = "cuda:0";
    options.max_batch = 1;
    REQUIRE(deepsim_open(bundle.path().c_str(), &options, &inverter, nullptr) == 0);
  }
  ~Opened() { deepsim_close(inverter); }

  std::uint64_t take(std::uint64_t bytes) const {
    std::uint64_t memory = 0;
    REQUIRE(deepsim_take_on_device(inverter, bytes, nullptr, &memory, nullptr) == 0);
    return memory;
  }

  deepsim_inverter* inverter = nullptr;
};

}  // namespace

TEST_CASE("what another thread captures is not broken off by loading, calls of every kind, and closing") {
  const SmallBundle bundle;
  const std::vector<std::uint8_t> images = random_images(2, 41);
  std::vector<std::uint8_t> wanted(2 * kImage), found(2 * kImage);
  const auto call = [&](std::vector<std::uint8_t>* kept) {
    deepsim::runtime::Inverter inverter(bundle.path(), on_gpu(1));
    for (int use = 0; use < 3; ++use) inverter.reencode(images.data(), 1, 2, {1, 2}, kept->data());
  };
  call(&wanted);
  const StandIn elsewhere("ELSEWHERE", "1");
  call(&found);
  CHECK(found == wanted);
  CHECK(deepsim_stand_in_objects() == 0);
  CHECK(deepsim_stand_in_memory() == 0);
  const CurrentContext context;
  std::uint64_t memory = 0;
  CHECK(cuMemAlloc_v2(&memory, 1) == kUnsupported);  // the thread is as it was
}

TEST_CASE("streams that are captured are neither ordered nor waited for") {
  const SmallBundle bundle;
  const StandIn idle("IDLE", "1");
  const Opened opened(bundle);
  const std::uint64_t memory = opened.take(16);
  char host[16];
  for (const char* kind : {"1", "implicit"}) {
    const StandIn capturing("CAPTURING", kind);
    deepsim_stand_in_count_anew();
    deepsim_error error = {};
    CHECK(deepsim_order_streams(opened.inverter, nullptr, nullptr, &error) != 0);
    CHECK(std::string(error.message) == kRefused);
    error.message[0] = 0;
    CHECK(deepsim_copy_from_device(opened.inverter, memory, sizeof host, host, nullptr, &error) != 0);
    CHECK(std::string(error.message) == kRefused);
    std::uint64_t more = 0;
    CHECK(deepsim_take_on_device(opened.inverter, 16, nullptr, &more, &error) != 0);
    for (const char* name : {"cuEventRecord", "cuStreamWaitEvent", "cuStreamSynchronize", "cuMemcpyDtoHAsync_v2"})
      CHECK(deepsim_stand_in_calls(name) == 0);
  }
  CHECK(deepsim_free_on_device(opened.inverter, memory, nullptr, nullptr) == 0);
}

TEST_CASE("memory that is freed while its stream is captured goes back afterwards") {
  const SmallBundle bundle;
  const StandIn idle("IDLE", "1");
  std::optional<Opened> opened(bundle);
  const std::size_t before = deepsim_stand_in_memory();
  const std::uint64_t first = opened->take(100), second = opened->take(200), third = opened->take(300);
  for (const char* kind : {"1", "implicit"}) {
    const StandIn capturing("CAPTURING", kind);
    CHECK(deepsim_free_on_device(opened->inverter, kind[0] == '1' ? first : second, nullptr, nullptr) == 0);
    CHECK(deepsim_stand_in_memory() == before + 600);
  }
  CHECK(deepsim_free_on_device(opened->inverter, third, nullptr, nullptr) == 0);
  CHECK(deepsim_stand_in_memory() == before);
  const std::uint64_t last = opened->take(400);
  {
    const StandIn capturing("CAPTURING", "1");
    CHECK(deepsim_free_on_device(opened->inverter, last, nullptr, nullptr) == 0);
  }
  CHECK(deepsim_stand_in_memory() == before + 400);
  opened.reset();
  CHECK(deepsim_stand_in_memory() == 0);
}
