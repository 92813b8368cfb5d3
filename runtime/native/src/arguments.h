// What a client of the C ABI gives, checked.
#pragma once

#include <cstdint>

#include "deepsim/deepsim.h"
#include "session.h"

namespace deepsim::runtime::detail {

// Each raises UsageError, ShapeError (a number of images) or DataError (features) naming the argument.
void require(const void* pointer, const char* name);
void check_buffers(const void* inverter, const void* in, std::int64_t n, const void* out);
// The same for memory of a GPU.
void check_memory(const void* inverter, std::uint64_t in, std::int64_t n, std::uint64_t out);
void check_steps(std::int32_t steps);
void check_finite(const float* features, std::int64_t count);
void check_keep(std::int32_t iterations, const std::int32_t* keep, std::int32_t count);

SessionOptions session_options(const char* device, const char* precision);
// Options of any size since the first version: an older client's have defaults for the rest; a newer client's may not set
// what this version does not know.
SessionOptions session_options(const deepsim_options* options);

// Write as much of `found` as the client's struct has, zeros beyond.
void write_info(const deepsim_bundle_info& found, deepsim_bundle_info* info);

}  // namespace deepsim::runtime::detail
