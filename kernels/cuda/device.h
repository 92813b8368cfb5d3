// What the kernels use of a GPU, one function for each operation: an instruction under nvcc (device_ptx.h), a model of it
// under a host compiler (emulation.h) that runs the same kernels and checks the rules of shared memory on the way.
#pragma once

#include <cstddef>
#include <cstdint>

namespace deepsim::cuda {

// How 16-bit values are stored: IEEE binary16, or bfloat16 for ranges beyond 65504. Memory holds their bits.
struct Half {};
struct Brain {};

struct Pair {
  float low, high;
};

// Division by a number that the host knows: quotient = n multiplier >> (32 + shift), exact for 0 <= n < 2^31
// (Granlund & Montgomery 1994, figure 4.1 with 31 bits).
struct Divisor {
  std::uint32_t multiplier = 0, shift = 0;
  Divisor() = default;
  explicit Divisor(int divisor) {
    while ((std::uint64_t{1} << shift) < static_cast<std::uint64_t>(divisor)) ++shift;
    if (divisor == 1) return;
    --shift;
    const std::uint64_t numerator = std::uint64_t{1} << (32 + shift);
    multiplier = static_cast<std::uint32_t>((numerator + static_cast<std::uint64_t>(divisor) - 1) / static_cast<std::uint64_t>(divisor));
  }
};

}  // namespace deepsim::cuda

#if defined(__CUDACC__)
#include "device_ptx.h"
#else
#include "emulation.h"
#endif

namespace deepsim::cuda {

// n / divisor for 0 <= n < 2^31.
DEEPSIM_DEVICE int divide(int n, Divisor by) {
  if (by.multiplier == 0) return n;
  return static_cast<int>(high_product(static_cast<std::uint32_t>(n), by.multiplier) >> by.shift);
}

}  // namespace deepsim::cuda
