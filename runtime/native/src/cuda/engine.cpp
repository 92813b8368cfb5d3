#include "engine.h"

#include <unistd.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <tuple>
#include <utility>

#include "../error.h"
#include "plan.h"

namespace deepsim::runtime::detail::cuda {

namespace {

constexpr int kMaxChunk = 1024;
constexpr std::size_t kGraphs = 32;  // kept, of the batch sizes used last
constexpr std::size_t kImageBytes = static_cast<std::size_t>(kCropSide) * kCropSide * 3;

Precision precision_of(const std::string& name) {
  if (name.empty() || name == "fp16") return Precision::half;
  if (name == "bf16") return Precision::brain;
  throw Failure(ErrorKind::usage, "precision '" + name + "': unknown on a GPU, expected fp16 or bf16. Choose one of these.");
}

class StreamOwner {
 public:
  explicit StreamOwner(std::shared_ptr<const Gpu> gpu) : gpu_(std::move(gpu)) {
    const Gpu::Current current(*gpu_);
    check(Driver::get().stream_create(&stream_, kNonBlocking), "create a stream");
  }
  ~StreamOwner() {
    gpu_->quietly([&](const Driver& driver) { (void)driver.stream_destroy(stream_); });
  }
  StreamOwner(const StreamOwner&) = delete;
  StreamOwner& operator=(const StreamOwner&) = delete;
  Stream get() const { return stream_; }

 private:
  std::shared_ptr<const Gpu> gpu_;
  Stream stream_ = nullptr;
};

// What a call starts for one batch size, recorded once and replayed with a single launch.
class Graphs {
 public:
  enum class Work { encode, decode_whole, decode_crop, reencode };
  using Key = std::pair<Work, int>;

  explicit Graphs(std::shared_ptr<const Gpu> gpu) : gpu_(std::move(gpu)) {}
  ~Graphs() {
    gpu_->quietly([&](const Driver& driver) {
      for (const auto& [key, graph] : graphs_) (void)driver.graph_executable_destroy(graph.first);
    });
  }
  Graphs(const Graphs&) = delete;
  Graphs& operator=(const Graphs&) = delete;

  // Run `record()`, which starts kernels on the stream, or what it started the last time. The context must be current.
  template <class Record>
  void run(const Key& key, Stream stream, const Record& record) {
    auto found = graphs_.find(key);
    if (found == graphs_.end()) found = graphs_.emplace(key, std::pair{capture(stream, record), 0L}).first;
    found->second.second = ++uses_;
    check(Driver::get().graph_launch(found->second.first, stream), "launch a graph");
    if (graphs_.size() > kGraphs) drop_oldest();
  }

 private:
  template <class Record>
  GraphExecutable capture(Stream stream, const Record& record) {
    const Driver& driver = Driver::get();
    check(driver.capture_begin(stream, kThreadLocalCapture), "record a graph");
    Graph graph = nullptr;
    try {
      record();
    } catch (...) {
      if (driver.capture_end(stream, &graph) == 0 && graph != nullptr) (void)driver.graph_destroy(graph);
      throw;
    }
    check(driver.capture_end(stream, &graph), "record a graph");
    GraphExecutable executable = nullptr;
    const Result made = driver.graph_instantiate(&executable, graph, 0);
    (void)driver.graph_destroy(graph);
    check(made, "prepare a graph");
    return executable;
  }

  void drop_oldest() {
    const auto oldest = std::min_element(graphs_.begin(), graphs_.end(), [](const auto& a, const auto& b) {
      return a.second.second < b.second.second;
    });
    check(Driver::get().graph_executable_destroy(oldest->second.first), "forget a graph");
    graphs_.erase(oldest);
  }

  std::shared_ptr<const Gpu> gpu_;
  std::map<Key, std::pair<GraphExecutable, long>> graphs_;  // with the number of its last use
  long uses_ = 0;
};

class CudaEngine final : public Engine {
 public:
  CudaEngine(const Bundle& bundle, const EngineOptions& options, int ordinal);

  void encode(const std::uint8_t* rgb, std::int64_t n, float* features) override;
  void decode(const float* features, std::int64_t n, bool full, std::uint8_t* rgb) override;
  void reencode(const std::uint8_t* rgb, std::int64_t n, int iterations, const int* keep, int keep_count,
                std::uint8_t* rgb_out) override;
  int threads() const override { return 0; }
  const std::string& isa() const override { return isa_; }

 private:
  // Run `body` on chunks of at most chunk_ images with the context current; one call at a time. What fails leaves no work
  // under way.
  template <class Body>
  void over_chunks(std::int64_t n, const Body& body);
  void to_device(const DeviceMemory& to, const void* from, std::size_t bytes);
  void to_host(void* to, const DeviceMemory& from, std::size_t bytes);

  pid_t process_;
  int chunk_;
  std::mutex calls_;
  std::shared_ptr<const Gpu> gpu_;
  StreamOwner stream_;
  Plan encoder_, generator_;
  std::size_t feature_bytes_, whole_bytes_;
  DeviceMemory images_, features_;  // photographs or what was made of them; between encoder and generator
  Graphs graphs_;
  std::string isa_;
};

CudaEngine::CudaEngine(const Bundle& bundle, const EngineOptions& options, int ordinal)
    : process_(getpid()),
      chunk_(std::clamp(options.max_batch, 1, kMaxChunk)),
      gpu_(std::make_shared<const Gpu>(ordinal, precision_of(options.precision))),
      stream_(gpu_),
      graphs_(gpu_),
      isa_("sm_" + std::to_string(gpu_->facts().architecture)) {
  const Tensors tensors = bundle.weights();
  Process& current = Process::current();
  ThreadPool& pool = current.pool(thread_count(options.threads));
  const std::lock_guard<std::mutex> lock(current.calls);
  WeightLimit limit;
  limit.spare_bytes = options.spare_bytes;
  const Network &encoder = bundle.manifest().encoder, &generator = bundle.manifest().generator;
  encoder_ = Plan::encoder(gpu_, stream_.get(), encoder, tensors, &limit, &pool);
  generator_ = Plan::generator(gpu_, stream_.get(), generator, tensors, &limit, &pool);
  const Instructions instructions = instructions_of(options.kernels, gpu_->facts());
  for (Plan* plan : {&encoder_, &generator_}) plan->prepare(chunk_, options.stable, stream_.get(), instructions);
  const auto side = static_cast<std::size_t>(generator.shapes().back().height);
  feature_bytes_ = static_cast<std::size_t>(generator.input.elements()) * sizeof(float);
  whole_bytes_ = side * side * 3;
  images_ = DeviceMemory(gpu_, static_cast<std::size_t>(chunk_) * std::max(whole_bytes_, kImageBytes), stream_.get());
  features_ = DeviceMemory(gpu_, static_cast<std::size_t>(chunk_) * feature_bytes_, stream_.get());
  const Gpu::Current context(*gpu_);
  check(Driver::get().stream_synchronize(stream_.get()), "prepare the GPU");
}

template <class Body>
void CudaEngine::over_chunks(std::int64_t n, const Body& body) {
  if (getpid() != process_) {
    throw Failure(ErrorKind::device,
                  "inverter: made before this process was forked, which no backend survives. Make it after the fork, "
                  "or start processes with the spawn method.");
  }
  const std::lock_guard<std::mutex> lock(calls_);
  const Gpu::Current context(*gpu_);
  try {
    for (std::int64_t begin = 0; begin < n; begin += chunk_)
      body(static_cast<std::size_t>(begin), static_cast<int>(std::min<std::int64_t>(chunk_, n - begin)));
  } catch (...) {
    (void)Driver::get().stream_synchronize(stream_.get());
    throw;
  }
}

void CudaEngine::to_device(const DeviceMemory& to, const void* from, std::size_t bytes) {
  check(Driver::get().copy_to_device(to.address(), from, bytes, stream_.get()), "copy to the GPU");
}

void CudaEngine::to_host(void* to, const DeviceMemory& from, std::size_t bytes) {
  check(Driver::get().copy_to_host(to, from.address(), bytes, stream_.get()), "copy from the GPU");
  check(Driver::get().stream_synchronize(stream_.get()), "compute");
}

void CudaEngine::encode(const std::uint8_t* rgb, std::int64_t n, float* features) {
  over_chunks(n, [&](std::size_t at, int images) {
    const auto count = static_cast<std::size_t>(images);
    to_device(images_, rgb + at * kImageBytes, count * kImageBytes);
    graphs_.run({Graphs::Work::encode, images}, stream_.get(), [&] {
      encoder_.run(stream_.get(), images_.address(), features_.address(), images, Area::crop);
    });
    to_host(reinterpret_cast<char*>(features) + at * feature_bytes_, features_, count * feature_bytes_);
  });
}

void CudaEngine::decode(const float* features, std::int64_t n, bool full, std::uint8_t* rgb) {
  const std::size_t bytes = full ? whole_bytes_ : kImageBytes;
  over_chunks(n, [&](std::size_t at, int images) {
    const auto count = static_cast<std::size_t>(images);
    to_device(features_, reinterpret_cast<const char*>(features) + at * feature_bytes_, count * feature_bytes_);
    graphs_.run({full ? Graphs::Work::decode_whole : Graphs::Work::decode_crop, images}, stream_.get(), [&] {
      generator_.run(stream_.get(), features_.address(), images_.address(), images, full ? Area::whole : Area::crop);
    });
    to_host(rgb + at * bytes, images_, count * bytes);
  });
}

void CudaEngine::reencode(const std::uint8_t* rgb, std::int64_t n, int iterations, const int* keep, int keep_count,
                          std::uint8_t* rgb_out) {
  const auto slots = static_cast<std::size_t>(keep_count);
  over_chunks(n, [&](std::size_t at, int images) {
    const auto count = static_cast<std::size_t>(images);
    to_device(images_, rgb + at * kImageBytes, count * kImageBytes);
    for (int iteration = 1, kept = 0; iteration <= iterations && kept < keep_count; ++iteration) {
      graphs_.run({Graphs::Work::reencode, images}, stream_.get(), [&] {
        encoder_.run(stream_.get(), images_.address(), features_.address(), images, Area::crop);
        generator_.run(stream_.get(), features_.address(), images_.address(), images, Area::crop);
      });
      if (iteration != keep[kept]) continue;
      for (std::size_t image = 0; image < count; ++image) {
        std::uint8_t* to = rgb_out + ((at + image) * slots + static_cast<std::size_t>(kept)) * kImageBytes;
        check(Driver::get().copy_to_host(to, images_.address() + image * kImageBytes, kImageBytes, stream_.get()),
              "copy from the GPU");
      }
      ++kept;
    }
    check(Driver::get().stream_synchronize(stream_.get()), "compute");
  });
}

}  // namespace

std::unique_ptr<Engine> make_engine(const Bundle& bundle, const EngineOptions& options, int ordinal) {
  return std::make_unique<CudaEngine>(bundle, options, ordinal);
}

}  // namespace deepsim::runtime::detail::cuda
