// What a caller names for a call on memory of the GPU, checked: addresses and streams. Each raises UsageError.
#pragma once

#include <cstddef>

#include "gpu.h"

namespace deepsim::runtime::detail::cuda {

// For memory that kernels could not reach, where they would end the context for all of the process.
void check_place(const Gpu& gpu, Address memory, const char* what, std::size_t alignment = 1);
// Where a call would write what it still has to read.
void check_apart(Address in, std::size_t in_bytes, Address out, std::size_t out_bytes);
void check_not_captured(Stream stream);

}  // namespace deepsim::runtime::detail::cuda
