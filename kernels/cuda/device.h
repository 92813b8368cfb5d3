// What the kernels use of a GPU, one function for each operation: an instruction under nvcc (device_ptx.h), a model of it
// under a host compiler (emulation.h) that runs the same kernels and checks the rules of shared memory on the way.
#pragma once

#include "types.h"

#if defined(__CUDACC__)
#include "device_ptx.h"
#else
#include "emulation.h"
#endif

namespace deepsim::cuda {

// n / divisor for 0 <= n < 2^31.
DEEPSIM_DEVICE int divide(int n, Divisor by) {
  if (by.value == 1) return n;
  return static_cast<int>(high_product(static_cast<std::uint32_t>(n), by.multiplier) >> by.shift);
}

}  // namespace deepsim::cuda
