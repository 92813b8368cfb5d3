#include "session.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <functional>

#include "cuda/session.h"
#include "error.h"
#include "openmp.h"
#include "plan.h"
#include "process.h"

namespace deepsim::runtime::detail {

namespace {

constexpr int kMaxChunk = 64;  // more images per pass gain nothing, and memory grows with them
constexpr std::size_t kChunkBytes = std::size_t{256} << 20;  // of a chunk's images and features, unless one image takes more

}  // namespace

const kernels::KernelTable* kernels_named(const std::string& isa) {
  std::string names;
  for (const kernels::KernelTable* const* table = kernels::available_kernels(); *table != nullptr; ++table) {
    if (isa.empty() || isa == (*table)->name) return *table;
    names += std::string(names.empty() ? "" : ", ") + (*table)->name;
  }
  throw Failure(ErrorKind::device, "instruction set '" + isa + "': not on this machine, it has " + names + ".");
}

namespace {

// One call at a time uses all threads.
class CpuSession final : public Session {
 public:
  CpuSession(const Bundle& bundle, const SessionOptions& options);

  void encode(const std::uint8_t* rgb, std::int64_t n, float* features) override;
  void decode(const float* features, std::int64_t n, bool full, std::uint8_t* rgb) override;
  void decode_raw(const float* features, std::int64_t n, bool full, float* rgb) override;
  void reencode(const std::uint8_t* rgb, std::int64_t n, int iterations, const int* keep, int keep_count,
                std::uint8_t* rgb_out) override;
  int threads() const override { return machine_.pool->threads(); }
  const std::string& isa() const override { return isa_; }
  const ThreadPool& pool() const { return *machine_.pool; }

 private:
  void decode(const float* features, std::int64_t n, bool full, bool raw, char* rgb);
  // Run `body` on chunks of at most `chunk_` images, alone on the thread pool.
  void over_chunks(std::int64_t n, const std::function<void(std::int64_t begin, int images)>& body);

  pid_t process_;
  int chunk_;
  std::string isa_;
  Machine machine_;
  Packed packed_;
  Plan encoder_, whole_, crop_;  // without steps where the bundle has no network for it
  std::size_t feature_floats_, image_bytes_;
  Buffer features_, images_;  // between encoder and generator; the image that is encoded again
};

std::size_t bytes_of_image(int side) { return static_cast<std::size_t>(side) * static_cast<std::size_t>(side) * 3; }

// The images that a call computes together, at most `wanted`.
int chunk_for(const Manifest& manifest, int wanted) {
  const std::size_t features = static_cast<std::size_t>(manifest.features.elements()) * sizeof(float);
  const std::size_t fitting = kChunkBytes / (features + bytes_of_image(manifest.full_side()));
  return std::clamp(std::min(wanted, static_cast<int>(std::min<std::size_t>(fitting, kMaxChunk))), 1, kMaxChunk);
}

CpuSession::CpuSession(const Bundle& bundle, const SessionOptions& options)
    : process_(getpid()),
      chunk_(chunk_for(bundle.manifest(), options.max_batch)),
      feature_floats_(static_cast<std::size_t>(bundle.manifest().features.elements())),
      image_bytes_(bytes_of_image(bundle.manifest().side())) {
  machine_.kernels = kernels_named(options.isa);
  isa_ = machine_.kernels->name;
  machine_.pool = shared_pool(options.threads);
  const Tensors tensors = bundle.weights_if_any();
  const std::lock_guard<std::mutex> lock(calls());
  const PlanOptions plan{machine_.kernels, machine_.pool.get(), options.half_fc_weights};
  packed_.limit.spare_bytes = options.spare_bytes;
  const Manifest& manifest = bundle.manifest();
  if (manifest.can_encode()) encoder_ = Plan::encoder(manifest.encoder, tensors, plan, &packed_);
  if (manifest.can_decode()) {
    whole_ = Plan::generator(manifest.generator, tensors, plan, &packed_);
    crop_ = whole_.cropped(manifest.generated_side(), manifest.geometry.offset);
  }
  for (Plan* each : {&encoder_, &whole_, &crop_}) each->prepare(chunk_, &machine_);
  machine_.scratch_floats = (machine_.scratch_floats + 15) / 16 * 16;
  machine_.scratch = Buffer(machine_.scratch_floats * static_cast<std::size_t>(threads()) * sizeof(float));
  if (!manifest.can_encode() || !manifest.can_decode()) return;
  features_ = Buffer(static_cast<std::size_t>(chunk_) * feature_floats_ * sizeof(float));
  images_ = Buffer(static_cast<std::size_t>(chunk_) * image_bytes_);
}

void CpuSession::over_chunks(std::int64_t n, const std::function<void(std::int64_t, int)>& body) {
  refuse_after_fork(process_);
  const std::lock_guard<std::mutex> lock(calls());
  if (n > 0 && threads() > 1) rest_openmp_threads();
  for (std::int64_t begin = 0; begin < n; begin += chunk_)
    body(begin, static_cast<int>(std::min<std::int64_t>(chunk_, n - begin)));
}

void CpuSession::encode(const std::uint8_t* rgb, std::int64_t n, float* features) {
  over_chunks(n, [&](std::int64_t begin, int images) {
    const auto at = static_cast<std::size_t>(begin);
    encoder_.run(machine_, rgb + at * image_bytes_, features + at * feature_floats_, images);
  });
}

void CpuSession::decode(const float* features, std::int64_t n, bool full, bool raw, char* rgb) {
  const Plan& plan = full ? whole_ : crop_;
  over_chunks(n, [&](std::int64_t begin, int images) {
    const auto at = static_cast<std::size_t>(begin);
    plan.run(machine_, features + at * feature_floats_, rgb + at * plan.out_bytes(raw), images, raw);
  });
}

void CpuSession::decode(const float* features, std::int64_t n, bool full, std::uint8_t* rgb) {
  decode(features, n, full, false, reinterpret_cast<char*>(rgb));
}

void CpuSession::decode_raw(const float* features, std::int64_t n, bool full, float* rgb) {
  decode(features, n, full, true, reinterpret_cast<char*>(rgb));
}

void CpuSession::reencode(const std::uint8_t* rgb, std::int64_t n, int iterations, const int* keep, int keep_count,
                          std::uint8_t* rgb_out) {
  over_chunks(n, [&](std::int64_t begin, int images) {
    const auto at = static_cast<std::size_t>(begin);
    const std::uint8_t* current = rgb + at * image_bytes_;
    for (int iteration = 1, kept = 0; iteration <= iterations && kept < keep_count; ++iteration) {
      encoder_.run(machine_, current, features_.floats(), images);
      crop_.run(machine_, features_.floats(), images_.as<std::uint8_t>(), images);
      current = images_.as<std::uint8_t>();
      if (iteration != keep[kept]) continue;
      for (std::size_t image = 0; image < static_cast<std::size_t>(images); ++image) {
        const std::size_t slot = (at + image) * static_cast<std::size_t>(keep_count) + static_cast<std::size_t>(kept);
        std::memcpy(rgb_out + slot * image_bytes_, current + image * image_bytes_, image_bytes_);
      }
      ++kept;
    }
  });
}

// The number of the GPU that a device names, -1 for the CPU.
int ordinal_of(const std::string& device) {
  if (device.empty() || device == "cpu") return -1;
  const std::string digits = device.rfind("cuda:", 0) == 0 ? device.substr(5) : "";
  if (digits.empty() || digits.size() > 3 || digits.find_first_not_of("0123456789") != std::string::npos) {
    throw Failure(ErrorKind::usage, "device '" + device + "': unknown, expected cpu or a GPU such as cuda:0.");
  }
  return std::stoi(digits);
}

}  // namespace

namespace {

[[noreturn]] void refuse_device_memory() {
  throw Failure(ErrorKind::usage,
                "inverter: on the CPU, expected one on a GPU for memory of a GPU. Open it with device cuda:0.");
}

}  // namespace

void Session::encode_on_device(std::uint64_t, std::int64_t, std::uint64_t, void*) { refuse_device_memory(); }
void Session::decode_on_device(std::uint64_t, std::int64_t, bool, bool, std::uint64_t, void*) { refuse_device_memory(); }
void Session::reencode_on_device(std::uint64_t, std::int64_t, int, const int*, int, std::uint64_t, void*) {
  refuse_device_memory();
}
void Session::interpolate_on_device(std::uint64_t, std::uint64_t, int, std::uint64_t, void*) { refuse_device_memory(); }
std::uint64_t Session::take_on_device(std::size_t, void*) { refuse_device_memory(); }
void Session::free_on_device(std::uint64_t, void*) { refuse_device_memory(); }
std::vector<int> Session::steps_of_kernels(bool, std::int64_t) const { refuse_device_memory(); }
void Session::order_streams(void*, void*) { refuse_device_memory(); }
void Session::copy_from_device(std::uint64_t, std::size_t, void*, void*) { refuse_device_memory(); }

void check_device(const SessionOptions& options) {
  const int ordinal = ordinal_of(options.device);
  if (ordinal < 0) {
    (void)kernels_named(options.isa);
  } else {
    cuda::check_device(options, ordinal);
  }
}

std::string describe_kernels(const SessionOptions& options) {
  const int ordinal = ordinal_of(options.device);
  return ordinal < 0 ? kernels_named(options.isa)->name : cuda::describe_kernels(options, ordinal);
}

std::unique_ptr<Session> open_session(const Bundle& bundle, const SessionOptions& options) {
  const int ordinal = ordinal_of(options.device);
  if (ordinal < 0) {
    auto session = std::make_unique<CpuSession>(bundle, options);
    log_shortage(session->pool());
    return session;
  }
  return cuda::open_session(bundle, options, ordinal);
}

}  // namespace deepsim::runtime::detail
