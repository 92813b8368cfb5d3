#include "arguments.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <string>

#include "error.h"

namespace deepsim::runtime::detail {

namespace {

constexpr std::int64_t kMaxImages = std::int64_t{1} << 31;
constexpr std::uint32_t kMaxStruct = 4096;  // bytes; a size beyond is no size

// The structs of the first version ended with these fields; compilers padded the options to 48 bytes, where the next field
// goes.
constexpr std::uint32_t kFirstOptions = offsetof(deepsim_options, stable) + sizeof(std::int32_t);
constexpr std::uint32_t kFirstInfo = offsetof(deepsim_bundle_info, interpolation) + sizeof(const char*);
static_assert(sizeof(void*) != 8 || offsetof(deepsim_options, unused) + sizeof(std::int32_t) == 48,
              "a field in what older clients do not set");

void check_size(std::uint32_t size, std::uint32_t first, const char* name) {
  if (size >= first && size <= kMaxStruct) return;
  throw Failure(ErrorKind::usage, std::string(name) + ": size " + std::to_string(size) + ", expected " + std::to_string(first) +
                                      " to " + std::to_string(kMaxStruct) + ". Set size to its sizeof.");
}

void check_count(std::int64_t n) {
  if (n >= 0 && n <= kMaxImages) return;
  throw Failure(ErrorKind::shape, "n: " + std::to_string(n) + ", expected 0 to " + std::to_string(kMaxImages) + " images.");
}

// A client's options in this version's layout.
deepsim_options known_options(const deepsim_options& given) {
  check_size(given.size, kFirstOptions, "options");
  const auto* bytes = reinterpret_cast<const unsigned char*>(&given);
  const std::uint32_t known = std::min<std::uint32_t>(given.size, sizeof given);
  if (std::any_of(bytes + known, bytes + given.size, [](unsigned char byte) { return byte != 0; })) {
    throw Failure(ErrorKind::usage, "options: size " + std::to_string(given.size) + " with values beyond byte " +
                                        std::to_string(sizeof given) +
                                        ", expected zeros there, which this version does not know.");
  }
  deepsim_options options{};
  std::memcpy(&options, bytes, known);
  return options;
}

}  // namespace

void require(const void* pointer, const char* name) {
  if (pointer != nullptr) return;
  throw Failure(ErrorKind::usage, std::string(name) + ": a null pointer, expected memory.");
}

void check_buffers(const void* inverter, const void* in, std::int64_t n, const void* out) {
  require(inverter, "inverter");
  check_count(n);
  if (n > 0) require(in, "input");
  if (n > 0) require(out, "output");
}

void check_memory(const void* inverter, std::uint64_t in, std::int64_t n, std::uint64_t out) {
  check_buffers(inverter, reinterpret_cast<const void*>(in), n, reinterpret_cast<const void*>(out));
}

void check_steps(std::int32_t steps) {
  if (steps >= 2 && steps <= (1 << 20)) return;
  throw Failure(ErrorKind::usage, "steps: " + std::to_string(steps) + ", expected a whole number from 2 to 1,048,576.");
}

void check_finite(const float* features, std::int64_t count) {
  if (std::all_of(features, features + count, [](float value) { return std::isfinite(value); })) return;
  const bool nan = std::any_of(features, features + count, [](float value) { return std::isnan(value); });
  throw Failure(ErrorKind::data, std::string("features: ") + (nan ? "NaN" : "infinite values") +
                                     ", expected finite float32. Look where they come from.");
}

void check_keep(std::int32_t iterations, const std::int32_t* keep, std::int32_t count) {
  bool fits = iterations >= 1 && count >= 1 && keep[count - 1] <= iterations && keep[0] >= 1;
  for (std::int32_t i = 1; fits && i < count; ++i) fits = keep[i - 1] < keep[i];
  if (fits) return;
  throw Failure(ErrorKind::usage,
                "keep: expected increasing numbers from 1 to " + std::to_string(iterations) + " (iterations).");
}

SessionOptions session_options(const char* device, const char* precision) {
  SessionOptions options;
  if (device != nullptr) options.device = device;
  if (precision != nullptr) options.precision = precision;
  return options;
}

SessionOptions session_options(const deepsim_options* given) {
  if (given == nullptr) return {};
  const deepsim_options options = known_options(*given);
  if (options.max_batch < 0 || options.threads < 0 || options.threads > 4096) {
    throw Failure(ErrorKind::usage, "options: max_batch " + std::to_string(options.max_batch) + ", threads " +
                                        std::to_string(options.threads) + ", expected 0 or more and at most 4096 threads.");
  }
  SessionOptions session = session_options(options.device, options.precision);
  if (options.max_batch > 0) session.max_batch = options.max_batch;
  session.threads = options.threads;
  session.half_fc_weights = options.half_fc_weights != 0;
  if (options.isa != nullptr) session.isa = options.isa;
  session.stable = options.stable != 0;
  return session;
}

void write_info(const deepsim_bundle_info& found, deepsim_bundle_info* info) {
  const std::uint32_t size = info->size;
  check_size(size, kFirstInfo, "info");
  std::memset(info, 0, size);
  std::memcpy(info, &found, std::min<std::uint32_t>(size, sizeof found));
  info->size = size;
}

}  // namespace deepsim::runtime::detail
