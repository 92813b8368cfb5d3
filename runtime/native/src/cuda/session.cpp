#include "session.h"

#include <unistd.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "../../../../kernels/cuda/tile.h"
#include "../error.h"
#include "../process.h"
#include "graphs.h"
#include "places.h"
#include "plan.h"
#include "slots.h"
#include "turns.h"

namespace deepsim::runtime::detail::cuda {

namespace {

constexpr std::size_t kKeptResults = 16;  // whose memory stays at hand once free, of max_batch images each
// What one graph of re-encoding holds, at most: larger ones take long to prepare, and memory of the GPU.
constexpr int kIterations = 16, kKernels = 8192;

std::size_t bytes_of_image(int side) { return static_cast<std::size_t>(side) * static_cast<std::size_t>(side) * 3; }

class CudaSession final : public Session {
 public:
  CudaSession(const Bundle& bundle, const SessionOptions& options, int ordinal);
  ~CudaSession() override;

  void encode(const std::uint8_t* rgb, std::int64_t n, float* features) override;
  void decode(const float* features, std::int64_t n, bool full, std::uint8_t* rgb) override;
  void decode_raw(const float* features, std::int64_t n, bool full, float* rgb) override;
  void reencode(const std::uint8_t* rgb, std::int64_t n, int iterations, const int* keep, int keep_count,
                std::uint8_t* rgb_out) override;
  void encode_on_device(std::uint64_t rgb, std::int64_t n, std::uint64_t features, void* stream) override;
  void decode_on_device(std::uint64_t features, std::int64_t n, bool full, bool raw, std::uint64_t rgb, void* stream) override;
  void reencode_on_device(std::uint64_t rgb, std::int64_t n, int iterations, const int* keep, int keep_count,
                          std::uint64_t rgb_out, void* stream) override;
  void interpolate_on_device(std::uint64_t start, std::uint64_t end, int steps, std::uint64_t rgb, void* stream) override;
  std::uint64_t take_on_device(std::size_t bytes, void* stream) override;
  void free_on_device(std::uint64_t memory, void* stream) override;
  void order_streams(void* first, void* later) override;
  void copy_from_device(std::uint64_t memory, std::size_t bytes, void* to, void* stream) override;
  std::vector<int> steps_of_kernels(bool decoding, std::int64_t n) const override;
  bool may_close_in_child() const override { return false; }
  int threads() const override { return 0; }
  const std::string& isa() const override { return isa_; }

 private:
  // Run a call whose input and results are on the host: chunk by chunk, the next one copied in before the last one's
  // results are out where a second slot is free.
  void over_chunks(std::int64_t n, const HostCall& call);
  // Queue body(first image, images) on the caller's stream, chunk by chunk, each in a turn of its own. What fails leaves no
  // work under way. The context must be current.
  template <class Body>
  void in_turns(Stream theirs, std::int64_t n, const Body& body);
  // The same for body(slot, first image, images), for what needs memory of its own.
  template <class Body>
  void in_slots(Stream theirs, std::int64_t n, const Body& body);
  // To be called in a turn: start on the stream what reads and writes device memory.
  void encode(Stream stream, const Ends& ends, int images);
  void decode(Stream stream, const Ends& ends, int images, bool full, bool raw);
  void reencode(Stream stream, const Ends& ends, int images, int iterations);
  int iterations_of_graph(int images);  // of re-encoding
  Gpu::Current enter() const;  // the context, made current for a call; not in a forked child

  pid_t process_;
  int chunk_;
  std::shared_ptr<const Gpu> gpu_;
  StreamOwner stream_;
  Turns turns_;
  std::map<int, int> iterations_;  // of re-encoding that a graph for so many images holds
  Plan encoder_, generator_;  // without steps where the bundle has no network for it
  std::size_t feature_bytes_, image_bytes_, whole_bytes_;
  DeviceMemory features_;  // between encoding and decoding
  std::optional<Slots> slots_;
  std::optional<ResultMemory> results_;
  Graphs graphs_;
  std::string isa_;
};

CudaSession::CudaSession(const Bundle& bundle, const SessionOptions& options, int ordinal)
    : process_(getpid()),
      chunk_(std::clamp(options.max_batch, 1, kMaxChunk)),
      gpu_(std::make_shared<const Gpu>(ordinal, precision_of(options.precision))),
      stream_(gpu_),
      turns_(gpu_),
      graphs_(gpu_),
      isa_("sm_" + std::to_string(gpu_->facts().architecture)) {
  const Tensors tensors = bundle.weights_if_any();
  const Gpu::Current context(*gpu_);
  require_memory(tensors.bytes() / sizeof(float) * bytes_of(gpu_->precision()), "the weights need",
                 "Use another GPU, or free memory.");
  const std::shared_ptr<ThreadPool> pool = shared_pool(options.threads);
  const std::lock_guard<std::mutex> lock(calls());
  WeightLimit limit;
  limit.spare_bytes = options.spare_bytes;
  const Manifest& manifest = bundle.manifest();
  if (manifest.can_encode()) encoder_ = Plan::encoder(gpu_, stream_.get(), manifest.encoder, tensors, &limit, pool.get());
  if (manifest.can_decode()) generator_ = Plan::generator(gpu_, stream_.get(), manifest, tensors, &limit, pool.get());
  const auto images = static_cast<std::size_t>(chunk_);
  feature_bytes_ = static_cast<std::size_t>(manifest.features.elements()) * sizeof(float);
  image_bytes_ = bytes_of_image(manifest.side());
  whole_bytes_ = bytes_of_image(manifest.full_side());
  const std::size_t larger = std::max(image_bytes_, whole_bytes_);  // what is decoded may be smaller than what is encoded
  const SlotSizes sizes{images * larger, images * feature_bytes_, images * image_bytes_, images * whole_bytes_ * sizeof(float)};
  std::size_t need = kSlots * sizes.device() + images * feature_bytes_;
  const Plan::Settings settings{chunk_, options.stable, kernels_of(options.kernels, gpu_->facts(), gpu_->precision())};
  std::vector<Plan*> plans;
  if (manifest.can_decode()) plans.push_back(&generator_);
  if (manifest.can_encode()) plans.push_back(&encoder_);
  for (Plan* plan : plans) need += plan->configure(settings);
  require_memory(need, "max_batch " + std::to_string(chunk_) + " needs", "Use a smaller max_batch, or free memory.");
  for (Plan* plan : plans) plan->prepare(stream_.get());
  features_ = DeviceMemory(gpu_, images * feature_bytes_, stream_.get());
  slots_.emplace(gpu_, sizes, stream_.get());
  results_.emplace(gpu_, kKeptResults * images * image_bytes_);
  stream_.wait();
}

CudaSession::~CudaSession() {  // calls on the GPU's memory may be under way
  gpu_->quietly([&](const Driver&) { turns_.wait_quietly(); });
}

void CudaSession::over_chunks(std::int64_t n, const HostCall& call) {
  const Gpu::Current context = enter();
  std::optional<Flight> flights[2];  // of the chunk before, and of this one
  for (std::int64_t begin = 0, chunk = 0; begin < n; begin += chunk_, ++chunk) {
    std::optional<Flight>&last = flights[(chunk + 1) % 2], &next = flights[chunk % 2];
    Slots::Lease slot = last ? slots_->try_take() : slots_->take();
    if (!slot) {
      slot = last->finish();
      last.reset();
    }
    next.emplace(call, std::move(slot), stream_.get(), &turns_, static_cast<std::size_t>(begin),
                 static_cast<std::size_t>(std::min<std::int64_t>(chunk_, n - begin)));
    next->start();
    if (last) last->finish();
    last.reset();
  }
  for (std::optional<Flight>& flight : flights)
    if (flight) flight->finish();
}

Gpu::Current CudaSession::enter() const {
  refuse_after_fork(process_);
  return Gpu::Current(*gpu_);
}

void CudaSession::encode(Stream stream, const Ends& ends, int images) {
  graphs_.run({Work::encode, images, 1}, ends, stream, [&] { encoder_.run(stream, ends, images, Area::crop); });
}

void CudaSession::decode(Stream stream, const Ends& ends, int images, bool full, bool raw) {
  const Work rounded = full ? Work::decode_whole : Work::decode_crop;
  const Work work = raw ? (full ? Work::decode_raw_whole : Work::decode_raw_crop) : rounded;
  graphs_.run({work, images, 1}, ends, stream, [&] {
    generator_.run(stream, ends, images, full ? Area::whole : Area::crop, raw ? Levels::raw : Levels::rounded);
  });
}

int CudaSession::iterations_of_graph(int images) {
  int& most = iterations_[images];
  if (most == 0) {
    const std::size_t kernels = encoder_.steps_of_kernels(images).size() + generator_.steps_of_kernels(images).size();
    most = std::clamp(kKernels / static_cast<int>(kernels), 1, kIterations);
  }
  return most;
}

void CudaSession::reencode(Stream stream, const Ends& ends, int images, int iterations) {
  const int most = iterations_of_graph(images);
  Ends part = ends;
  for (; iterations > 0; iterations -= most, part.source = ends.result) {
    const int several = std::min(iterations, most);
    graphs_.run({Work::reencode, images, several}, part, stream,
                [&] { Plan::run_loop(stream, encoder_, generator_, part, features_.address(), images, several); });
  }
}

void CudaSession::encode(const std::uint8_t* rgb, std::int64_t n, float* features) {
  HostCall call{reinterpret_cast<const char*>(rgb), reinterpret_cast<char*>(features), image_bytes_, feature_bytes_};
  call.source = &Slot::images;
  call.result = &Slot::features;
  call.compute = [&](Slot& slot, int images, std::size_t) {
    encode(stream_.get(), {slot.images.address(), slot.features.address()}, images);
  };
  over_chunks(n, call);
}

void CudaSession::decode(const float* features, std::int64_t n, bool full, std::uint8_t* rgb) {
  HostCall call{reinterpret_cast<const char*>(features), reinterpret_cast<char*>(rgb), feature_bytes_,
                full ? whole_bytes_ : image_bytes_};
  call.source = &Slot::features;
  call.result = &Slot::images;
  call.compute = [&](Slot& slot, int images, std::size_t) {
    decode(stream_.get(), {slot.features.address(), slot.images.address()}, images, full, false);
  };
  over_chunks(n, call);
}

void CudaSession::decode_raw(const float* features, std::int64_t n, bool full, float* rgb) {
  HostCall call{reinterpret_cast<const char*>(features), reinterpret_cast<char*>(rgb), feature_bytes_,
                sizeof(float) * (full ? whole_bytes_ : image_bytes_)};
  call.source = &Slot::features;
  call.result = &Slot::levels;
  call.compute = [&](Slot& slot, int images, std::size_t) {
    decode(stream_.get(), {slot.features.address(), slot.levels.address()}, images, full, true);
  };
  over_chunks(n, call);
}

void CudaSession::reencode(const std::uint8_t* rgb, std::int64_t n, int, const int* keep, int keep_count,
                           std::uint8_t* rgb_out) {
  if (keep_count == 0) return;
  HostCall call{reinterpret_cast<const char*>(rgb), reinterpret_cast<char*>(rgb_out), image_bytes_, image_bytes_,
                static_cast<std::size_t>(keep_count)};
  call.source = &Slot::images;
  call.result = &Slot::kept;
  call.compute = [&](Slot& slot, int images, std::size_t number) {
    const Address current = slot.images.address();
    reencode(stream_.get(), {current, current}, images, keep[number] - (number > 0 ? keep[number - 1] : 0));
    if (number > 0) slot.downloaded.hold(stream_.get());
    const std::size_t bytes = static_cast<std::size_t>(images) * image_bytes_;
    check(Driver::get().copy_on_device(slot.kept.address(), current, bytes, stream_.get()), "copy on the GPU");
  };
  over_chunks(n, call);
}

template <class Body>
void CudaSession::in_turns(Stream theirs, std::int64_t n, const Body& body) {
  check_not_captured(theirs);
  for (std::int64_t begin = 0; begin < n; begin += chunk_) {
    Turn turn(&turns_, theirs);
    body(static_cast<std::size_t>(begin), static_cast<int>(std::min<std::int64_t>(chunk_, n - begin)));
    turn.end();
  }
}

template <class Body>
void CudaSession::in_slots(Stream theirs, std::int64_t n, const Body& body) {
  check_not_captured(theirs);
  for (std::int64_t begin = 0; begin < n; begin += chunk_) {
    const Slots::Lease slot = slots_->take();  // before the turn: who has a slot may be waiting for his
    Turn turn(&turns_, theirs);
    body(*slot, static_cast<std::size_t>(begin), static_cast<int>(std::min<std::int64_t>(chunk_, n - begin)));
    slot->computed.record(theirs);
    turn.end();
  }
}

void CudaSession::encode_on_device(std::uint64_t rgb, std::int64_t n, std::uint64_t features, void* stream) {
  if (n == 0) return;  // arrays without images lie nowhere
  const Gpu::Current context = enter();
  check_place(*gpu_, rgb, "images");
  check_place(*gpu_, features, "features", sizeof(float));
  check_apart(rgb, static_cast<std::size_t>(n) * image_bytes_, features, static_cast<std::size_t>(n) * feature_bytes_);
  in_turns(stream, n, [&](std::size_t first, int images) {
    encode(stream, {rgb + first * image_bytes_, features + first * feature_bytes_}, images);
  });
}

void CudaSession::decode_on_device(std::uint64_t features, std::int64_t n, bool full, bool raw, std::uint64_t rgb,
                                   void* stream) {
  if (n == 0) return;
  const Gpu::Current context = enter();
  const std::size_t level = raw ? sizeof(float) : 1, bytes = level * (full ? whole_bytes_ : image_bytes_);
  check_place(*gpu_, features, "features", sizeof(float));
  check_place(*gpu_, rgb, "images", level);
  check_apart(features, static_cast<std::size_t>(n) * feature_bytes_, rgb, static_cast<std::size_t>(n) * bytes);
  in_turns(stream, n, [&](std::size_t first, int images) {
    decode(stream, {features + first * feature_bytes_, rgb + first * bytes}, images, full, raw);
  });
}

void CudaSession::reencode_on_device(std::uint64_t rgb, std::int64_t n, int, const int* keep, int keep_count,
                                     std::uint64_t rgb_out, void* stream) {
  if (n == 0 || keep_count == 0) return;
  const Gpu::Current context = enter();
  const std::size_t strip = static_cast<std::size_t>(keep_count) * image_bytes_;
  check_place(*gpu_, rgb, "images");
  check_place(*gpu_, rgb_out, "result");
  const bool in_place = keep_count == 1 && rgb == rgb_out;  // an image is read before any kernel writes where it lies
  if (!in_place) check_apart(rgb, static_cast<std::size_t>(n) * image_bytes_, rgb_out, static_cast<std::size_t>(n) * strip);
  if (keep_count == 1) {
    in_turns(stream, n, [&](std::size_t first, int images) {
      reencode(stream, {rgb + first * image_bytes_, rgb_out + first * image_bytes_}, images, keep[0]);
    });
    return;
  }
  in_slots(stream, n, [&](const Slot& slot, std::size_t first, int images) {
    Ends ends{rgb + first * image_bytes_, slot.images.address()};
    for (int kept = 0; kept < keep_count; ++kept, ends.source = ends.result) {
      reencode(stream, ends, images, keep[kept] - (kept > 0 ? keep[kept - 1] : 0));
      RowCopy copy;
      copy.from.device = ends.result;
      copy.from.pitch = copy.width = image_bytes_;
      copy.to.device = rgb_out + first * strip + static_cast<std::size_t>(kept) * image_bytes_;
      copy.to.pitch = strip;
      copy.height = static_cast<std::size_t>(images);
      check(Driver::get().copy_rows(&copy, stream), "copy on the GPU");
    }
  });
}

void CudaSession::interpolate_on_device(std::uint64_t start, std::uint64_t end, int steps, std::uint64_t rgb, void* stream) {
  const Gpu::Current context = enter();
  check_place(*gpu_, start, "start", sizeof(float));
  check_place(*gpu_, end, "end", sizeof(float));
  check_place(*gpu_, rgb, "images");
  for (const Address each : {start, end})
    check_apart(each, feature_bytes_, rgb, static_cast<std::size_t>(steps) * image_bytes_);
  in_turns(stream, steps, [&](std::size_t first, int images) {
    deepsim::cuda::Line line;
    line.start = reinterpret_cast<const float*>(start);
    line.end = reinterpret_cast<const float*>(end);
    line.out = features_.as<float>();
    line.size = static_cast<int>(feature_bytes_ / sizeof(float));
    line.first = static_cast<int>(first);
    line.count = images;
    line.steps = steps;
    const int threads = deepsim::cuda::kPassThreads;
    gpu_->launch("lay_line", {(line.size + threads - 1) / threads}, threads, 0, stream, line);
    decode(stream, {features_.address(), rgb + first * image_bytes_}, images, false, false);
  });
}

std::uint64_t CudaSession::take_on_device(std::size_t bytes, void* stream) {
  const Gpu::Current context = enter();
  check_not_captured(stream);
  return results_->take(std::max<std::size_t>(bytes, 1), stream);
}

void CudaSession::free_on_device(std::uint64_t memory, void* stream) {
  const Gpu::Current context = enter();
  results_->free(memory, stream);
}

void CudaSession::order_streams(void* first, void* later) {
  const Gpu::Current context = enter();
  for (const Stream each : {first, later}) check_not_captured(each);
  const EventOwner reached(gpu_);
  reached.record(first);
  reached.hold(later);
}

void CudaSession::copy_from_device(std::uint64_t memory, std::size_t bytes, void* to, void* stream) {
  const Gpu::Current context = enter();
  check_place(*gpu_, memory, "array");
  check_not_captured(stream);
  check(Driver::get().copy_to_host(to, memory, bytes, stream), "copy from the GPU");
  check(Driver::get().stream_synchronize(stream), "compute");
}

std::vector<int> CudaSession::steps_of_kernels(bool decoding, std::int64_t n) const {
  const Plan& plan = decoding ? generator_ : encoder_;
  std::vector<int> found;
  for (std::int64_t begin = 0; begin < n; begin += chunk_) {
    const std::vector<int> part = plan.steps_of_kernels(static_cast<int>(std::min<std::int64_t>(chunk_, n - begin)));
    found.insert(found.end(), part.begin(), part.end());
  }
  return found;
}

}  // namespace

void check_device(const SessionOptions& options, int ordinal) {
  require_kernels(device_facts(ordinal), precision_of(options.precision));
}

std::unique_ptr<Session> open_session(const Bundle& bundle, const SessionOptions& options, int ordinal) {
  return std::make_unique<CudaSession>(bundle, options, ordinal);
}

}  // namespace deepsim::runtime::detail::cuda
