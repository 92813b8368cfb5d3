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
  if (name == "fp32") return Precision::single;
  throw Failure(ErrorKind::usage,
                "precision '" + name + "': unknown on a GPU, expected fp16, bf16 or fp32. Choose one of these.");
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

// What a call starts for one batch size: the first time as it is, which loads its kernels (a stream that records may not),
// the second time recorded as a graph, and from then on replayed with a single launch.
class Graphs {
 public:
  enum class Work { encode, decode_whole, decode_crop, reencode };
  using Key = std::pair<Work, int>;

  explicit Graphs(std::shared_ptr<const Gpu> gpu) : gpu_(std::move(gpu)) {}
  ~Graphs() {
    gpu_->quietly([&](const Driver& driver) {
      for (const auto& [key, graph] : graphs_)
        if (graph.first != nullptr) (void)driver.graph_executable_destroy(graph.first);
    });
  }
  Graphs(const Graphs&) = delete;
  Graphs& operator=(const Graphs&) = delete;

  // Run `record()`, which starts kernels on the stream, or what it started the last time. The context must be current.
  template <class Record>
  void run(const Key& key, Stream stream, const Record& record) {
    const auto found = graphs_.find(key);
    if (found == graphs_.end()) {
      record();
      graphs_[key] = {nullptr, ++uses_};
      if (graphs_.size() > kGraphs) drop_oldest();
      return;
    }
    GraphExecutable& graph = found->second.first;
    found->second.second = ++uses_;
    if (graph == nullptr) graph = capture(stream, record);
    check(Driver::get().graph_launch(graph, stream), "launch a graph");
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
    const GraphExecutable graph = oldest->second.first;
    graphs_.erase(oldest);
    if (graph != nullptr) check(Driver::get().graph_executable_destroy(graph), "forget a graph");
  }

  std::shared_ptr<const Gpu> gpu_;
  std::map<Key, std::pair<GraphExecutable, long>> graphs_;  // null after one use; with the number of the last use
  long uses_ = 0;
};

class CudaEngine final : public Engine {
 public:
  CudaEngine(const Bundle& bundle, const EngineOptions& options, int ordinal);

  void encode(const std::uint8_t* rgb, std::int64_t n, float* features) override;
  void decode(const float* features, std::int64_t n, bool full, std::uint8_t* rgb) override;
  void reencode(const std::uint8_t* rgb, std::int64_t n, int iterations, const int* keep, int keep_count,
                std::uint8_t* rgb_out) override;
  void encode_on_device(std::uint64_t rgb, std::int64_t n, std::uint64_t features, void* stream) override;
  void decode_on_device(std::uint64_t features, std::int64_t n, bool full, std::uint64_t rgb, void* stream) override;
  void reencode_on_device(std::uint64_t rgb, std::int64_t n, int iterations, const int* keep, int keep_count,
                          std::uint64_t rgb_out, void* stream) override;
  std::uint64_t take_on_device(std::size_t bytes, void* stream) override;
  void free_on_device(std::uint64_t memory, void* stream) override;
  void copy_from_device(std::uint64_t memory, std::size_t bytes, void* to, void* stream) override;
  int threads() const override { return 0; }
  const std::string& isa() const override { return isa_; }

 private:
  // Run `body` on chunks of at most chunk_ images with the context current; one call at a time. What fails leaves no work
  // under way.
  template <class Body>
  void over_chunks(std::int64_t n, const Body& body);
  // The calls, whatever memory their input and output are in: in(device, offset, bytes), out(offset, device, bytes).
  template <class In, class Out>
  void encode_with(std::int64_t n, const In& in, const Out& out);
  template <class In, class Out>
  void decode_with(std::int64_t n, bool full, const In& in, const Out& out);
  template <class In, class Out>
  void reencode_with(std::int64_t n, int iterations, const int* keep, int keep_count, const In& in, const Out& out);
  template <class Body>
  void between(Stream theirs, const Body& body);
  void check_place(Address memory, const char* what) const;
  Gpu::Current enter() const;  // the context, made current for a call; not in a forked child
  void to_host(void* to, Address from, std::size_t bytes);
  void from_host(Address to, const void* from, std::size_t bytes);
  void on_device(Address to, Address from, std::size_t bytes);
  void finish();

  pid_t process_;
  int ordinal_, chunk_;
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
      ordinal_(ordinal),
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
  const Instructions instructions = instructions_of(options.kernels, gpu_->facts(), gpu_->precision());
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
  const Gpu::Current context = enter();
  const std::lock_guard<std::mutex> lock(calls_);
  try {
    for (std::int64_t begin = 0; begin < n; begin += chunk_)
      body(static_cast<std::size_t>(begin), static_cast<int>(std::min<std::int64_t>(chunk_, n - begin)));
  } catch (...) {
    (void)Driver::get().stream_synchronize(stream_.get());
    throw;
  }
}

Gpu::Current CudaEngine::enter() const {
  refuse_after_fork(process_);
  return Gpu::Current(*gpu_);
}

void CudaEngine::to_host(void* to, Address from, std::size_t bytes) {
  check(Driver::get().copy_to_host(to, from, bytes, stream_.get()), "copy from the GPU");
}

void CudaEngine::from_host(Address to, const void* from, std::size_t bytes) {
  check(Driver::get().copy_to_device(to, from, bytes, stream_.get()), "copy to the GPU");
}

void CudaEngine::on_device(Address to, Address from, std::size_t bytes) {
  check(Driver::get().copy_on_device(to, from, bytes, stream_.get()), "copy on the GPU");
}

void CudaEngine::finish() { check(Driver::get().stream_synchronize(stream_.get()), "compute"); }

template <class In, class Out>
void CudaEngine::encode_with(std::int64_t n, const In& in, const Out& out) {
  over_chunks(n, [&](std::size_t at, int images) {
    const auto count = static_cast<std::size_t>(images);
    in(images_.address(), at * kImageBytes, count * kImageBytes);
    graphs_.run({Graphs::Work::encode, images}, stream_.get(), [&] {
      encoder_.run(stream_.get(), images_.address(), features_.address(), images, Area::crop);
    });
    out(at * feature_bytes_, features_.address(), count * feature_bytes_);
  });
}

template <class In, class Out>
void CudaEngine::decode_with(std::int64_t n, bool full, const In& in, const Out& out) {
  const std::size_t bytes = full ? whole_bytes_ : kImageBytes;
  over_chunks(n, [&](std::size_t at, int images) {
    const auto count = static_cast<std::size_t>(images);
    in(features_.address(), at * feature_bytes_, count * feature_bytes_);
    graphs_.run({full ? Graphs::Work::decode_whole : Graphs::Work::decode_crop, images}, stream_.get(), [&] {
      generator_.run(stream_.get(), features_.address(), images_.address(), images, full ? Area::whole : Area::crop);
    });
    out(at * bytes, images_.address(), count * bytes);
  });
}

template <class In, class Out>
void CudaEngine::reencode_with(std::int64_t n, int iterations, const int* keep, int keep_count, const In& in, const Out& out) {
  const auto slots = static_cast<std::size_t>(keep_count);
  over_chunks(n, [&](std::size_t at, int images) {
    const auto count = static_cast<std::size_t>(images);
    in(images_.address(), at * kImageBytes, count * kImageBytes);
    for (int iteration = 1, kept = 0; iteration <= iterations && kept < keep_count; ++iteration) {
      graphs_.run({Graphs::Work::reencode, images}, stream_.get(), [&] {
        encoder_.run(stream_.get(), images_.address(), features_.address(), images, Area::crop);
        generator_.run(stream_.get(), features_.address(), images_.address(), images, Area::crop);
      });
      if (iteration != keep[kept]) continue;
      for (std::size_t image = 0; image < count; ++image)
        out(((at + image) * slots + static_cast<std::size_t>(kept)) * kImageBytes, images_.address() + image * kImageBytes, kImageBytes);
      ++kept;
    }
  });
}

void CudaEngine::encode(const std::uint8_t* rgb, std::int64_t n, float* features) {
  encode_with(n, [&](Address to, std::size_t at, std::size_t bytes) { from_host(to, rgb + at, bytes); },
              [&](std::size_t at, Address from, std::size_t bytes) {
                to_host(reinterpret_cast<char*>(features) + at, from, bytes);
                finish();
              });
}

void CudaEngine::decode(const float* features, std::int64_t n, bool full, std::uint8_t* rgb) {
  const char* bytes_in = reinterpret_cast<const char*>(features);
  decode_with(n, full, [&](Address to, std::size_t at, std::size_t bytes) { from_host(to, bytes_in + at, bytes); },
              [&](std::size_t at, Address from, std::size_t bytes) {
                to_host(rgb + at, from, bytes);
                finish();
              });
}

void CudaEngine::reencode(const std::uint8_t* rgb, std::int64_t n, int iterations, const int* keep, int keep_count,
                          std::uint8_t* rgb_out) {
  reencode_with(n, iterations, keep, keep_count,
                [&](Address to, std::size_t at, std::size_t bytes) {
                  finish();  // what the chunk before still copies out
                  from_host(to, rgb + at, bytes);
                },
                [&](std::size_t at, Address from, std::size_t bytes) { to_host(rgb_out + at, from, bytes); });
  if (n > 0) {
    const Gpu::Current context = enter();
    finish();
  }
}

void CudaEngine::check_place(Address memory, const char* what) const {
  int ordinal = -1;
  const bool known = Driver::get().pointer_attribute(&ordinal, kPointerOrdinal, memory) == 0;
  if (known && ordinal == ordinal_) return;
  throw Failure(ErrorKind::usage, std::string(what) + ": in memory of " +
                                      (known ? "GPU " + std::to_string(ordinal) : std::string("no GPU")) +
                                      ", expected GPU " + std::to_string(ordinal_) + ". Copy it there.");
}

// Run `body`, which queues work on our stream, after what the caller's stream holds and before what it is given next.
template <class Body>
void CudaEngine::between(Stream theirs, const Body& body) {
  const Gpu::Current context = enter();
  const Driver& driver = Driver::get();
  Event event = nullptr;
  check(driver.event_create(&event, kNoTiming), "create an event");
  try {
    check(driver.event_record(event, theirs), "wait for the caller's stream");
    check(driver.stream_wait(stream_.get(), event, 0), "wait for the caller's stream");
    body();
    check(driver.event_record(event, stream_.get()), "let the caller's stream wait");
    check(driver.stream_wait(theirs, event, 0), "let the caller's stream wait");
  } catch (...) {
    (void)driver.event_destroy(event);
    throw;
  }
  check(driver.event_destroy(event), "give an event back");
}

void CudaEngine::encode_on_device(std::uint64_t rgb, std::int64_t n, std::uint64_t features, void* stream) {
  between(stream, [&] {
    check_place(rgb, "images");
    check_place(features, "features");
    encode_with(n, [&](Address to, std::size_t at, std::size_t bytes) { on_device(to, rgb + at, bytes); },
                [&](std::size_t at, Address from, std::size_t bytes) { on_device(features + at, from, bytes); });
  });
}

void CudaEngine::decode_on_device(std::uint64_t features, std::int64_t n, bool full, std::uint64_t rgb, void* stream) {
  between(stream, [&] {
    check_place(features, "features");
    check_place(rgb, "images");
    decode_with(n, full, [&](Address to, std::size_t at, std::size_t bytes) { on_device(to, features + at, bytes); },
                [&](std::size_t at, Address from, std::size_t bytes) { on_device(rgb + at, from, bytes); });
  });
}

void CudaEngine::reencode_on_device(std::uint64_t rgb, std::int64_t n, int iterations, const int* keep, int keep_count,
                                    std::uint64_t rgb_out, void* stream) {
  between(stream, [&] {
    check_place(rgb, "images");
    check_place(rgb_out, "result");
    reencode_with(n, iterations, keep, keep_count,
                  [&](Address to, std::size_t at, std::size_t bytes) { on_device(to, rgb + at, bytes); },
                  [&](std::size_t at, Address from, std::size_t bytes) { on_device(rgb_out + at, from, bytes); });
  });
}

std::uint64_t CudaEngine::take_on_device(std::size_t bytes, void* stream) {
  const Gpu::Current context = enter();
  Address memory = 0;
  check(Driver::get().pool_take(&memory, std::max<std::size_t>(bytes, 1), stream), "take " + std::to_string(bytes) + " bytes of GPU memory");
  return memory;
}

void CudaEngine::free_on_device(std::uint64_t memory, void* stream) {
  const Gpu::Current context = enter();
  check(Driver::get().pool_free(memory, stream), "give GPU memory back");
}

void CudaEngine::copy_from_device(std::uint64_t memory, std::size_t bytes, void* to, void* stream) {
  const Gpu::Current context = enter();
  check_place(memory, "array");
  check(Driver::get().copy_to_host(to, memory, bytes, stream), "copy from the GPU");
  check(Driver::get().stream_synchronize(stream), "compute");
}

}  // namespace

void check_device(const EngineOptions& options, int ordinal) {
  require_kernels(device_facts(ordinal), precision_of(options.precision));
}

std::unique_ptr<Engine> make_engine(const Bundle& bundle, const EngineOptions& options, int ordinal) {
  return std::make_unique<CudaEngine>(bundle, options, ordinal);
}

}  // namespace deepsim::runtime::detail::cuda
