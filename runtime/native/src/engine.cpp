#include "engine.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <functional>

#include "error.h"
#include "plan.h"

namespace deepsim::runtime::detail {

namespace {

constexpr int kMaxChunk = 64;  // more images per pass gain nothing, and memory grows with them
constexpr int kSide = 227;
constexpr std::size_t kImageBytes = static_cast<std::size_t>(kSide) * kSide * 3;

}  // namespace

const kernels::KernelTable* kernels_named(const std::string& isa) {
  std::string names;
  for (const kernels::KernelTable* const* table = kernels::available_kernels(); *table != nullptr; ++table) {
    if (isa.empty() || isa == (*table)->name) return *table;
    names += std::string(names.empty() ? "" : ", ") + (*table)->name;
  }
  throw Failure(ErrorKind::device, "instruction set '" + isa + "': not on this machine, it has " + names +
                                       ". Choose one of these.");
}

struct Engine::Parts {
  Parts(const Bundle& bundle, const EngineOptions& options);

  // Run `body` on chunks of at most `chunk` images, alone on the thread pool.
  void over_chunks(std::int64_t n, const std::function<void(std::int64_t begin, int images)>& body);

  pid_t process;
  int threads, chunk;
  std::string isa;
  Machine machine;
  Packed packed;
  Plan encoder, whole, crop;
  std::size_t feature_floats;
  Buffer features, images;  // between encoder and generator; the image that is encoded again
};

Engine::Parts::Parts(const Bundle& bundle, const EngineOptions& options)
    : process(getpid()), threads(thread_count(options.threads)), chunk(std::clamp(options.max_batch, 1, kMaxChunk)) {
  machine.kernels = kernels_named(options.isa);
  isa = machine.kernels->name;
  Process& current = Process::current();
  machine.pool = &current.pool(threads);
  const Tensors tensors = bundle.weights();
  const std::lock_guard<std::mutex> lock(current.calls);
  const PlanOptions plan{machine.kernels, machine.pool, options.half_fc_weights};
  packed.limit.spare_bytes = options.spare_bytes;
  encoder = Plan::encoder(bundle.manifest().encoder, tensors, plan, &packed);
  whole = Plan::generator(bundle.manifest().generator, tensors, plan, &packed);
  crop = whole.cropped(kSide);
  for (Plan* each : {&encoder, &whole, &crop}) each->prepare(chunk, &machine);
  machine.scratch_floats = (machine.scratch_floats + 15) / 16 * 16;
  machine.scratch = Buffer(machine.scratch_floats * static_cast<std::size_t>(threads) * sizeof(float));
  feature_floats = encoder.out_bytes() / sizeof(float);
  features = Buffer(static_cast<std::size_t>(chunk) * encoder.out_bytes());
  images = Buffer(static_cast<std::size_t>(chunk) * kImageBytes);
}

void Engine::Parts::over_chunks(std::int64_t n, const std::function<void(std::int64_t, int)>& body) {
  if (getpid() != process) {
    throw Failure(ErrorKind::device,
                  "inverter: made before this process was forked, which no backend survives. Make it after the fork, "
                  "or start processes with the spawn method.");
  }
  const std::lock_guard<std::mutex> lock(Process::current().calls);
  for (std::int64_t begin = 0; begin < n; begin += chunk)
    body(begin, static_cast<int>(std::min<std::int64_t>(chunk, n - begin)));
}

Engine::Engine(const Bundle& bundle, const EngineOptions& options) : parts_(std::make_unique<Parts>(bundle, options)) {}

Engine::~Engine() = default;

int Engine::threads() const { return parts_->threads; }

const std::string& Engine::isa() const { return parts_->isa; }

void Engine::encode(const std::uint8_t* rgb, std::int64_t n, float* features) {
  Parts& parts = *parts_;
  parts.over_chunks(n, [&](std::int64_t begin, int images) {
    const auto at = static_cast<std::size_t>(begin);
    parts.encoder.run(parts.machine, rgb + at * kImageBytes, features + at * parts.feature_floats, images);
  });
}

void Engine::decode(const float* features, std::int64_t n, bool full, std::uint8_t* rgb) {
  Parts& parts = *parts_;
  const Plan& plan = full ? parts.whole : parts.crop;
  parts.over_chunks(n, [&](std::int64_t begin, int images) {
    const auto at = static_cast<std::size_t>(begin);
    plan.run(parts.machine, features + at * parts.feature_floats, rgb + at * plan.out_bytes(), images);
  });
}

void Engine::reencode(const std::uint8_t* rgb, std::int64_t n, int iterations, const int* keep, int keep_count,
                      std::uint8_t* rgb_out) {
  Parts& parts = *parts_;
  parts.over_chunks(n, [&](std::int64_t begin, int images) {
    const auto at = static_cast<std::size_t>(begin);
    const std::uint8_t* current = rgb + at * kImageBytes;
    for (int iteration = 1, kept = 0; iteration <= iterations && kept < keep_count; ++iteration) {
      parts.encoder.run(parts.machine, current, parts.features.floats(), images);
      parts.crop.run(parts.machine, parts.features.floats(), parts.images.as<std::uint8_t>(), images);
      current = parts.images.as<std::uint8_t>();
      if (iteration != keep[kept]) continue;
      for (std::size_t image = 0; image < static_cast<std::size_t>(images); ++image) {
        const std::size_t slot = (at + image) * static_cast<std::size_t>(keep_count) + static_cast<std::size_t>(kept);
        std::memcpy(rgb_out + slot * kImageBytes, current + image * kImageBytes, kImageBytes);
      }
      ++kept;
    }
  });
}

}  // namespace deepsim::runtime::detail
