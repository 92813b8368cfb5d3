// The few types that host code and kernels share.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#define DEEPSIM_HOST_DEVICE __host__ __device__
#else
#define DEEPSIM_HOST_DEVICE
#endif

namespace deepsim::cuda {

// How values are stored: IEEE binary16; bfloat16, for ranges beyond 65504; or IEEE binary32, the reference that rounds
// nothing to 16 bits. Memory holds their Bits; Two are those of two neighbours, the first one's below the second's.
struct Half {
  using Bits = std::uint16_t;
  using Two = std::uint32_t;
};
struct Brain {
  using Bits = std::uint16_t;
  using Two = std::uint32_t;
};
struct Single {
  using Bits = std::uint32_t;
  using Two = std::uint64_t;
};

struct alignas(8) Pair {
  float low, high;
};

struct alignas(16) Four {
  float values[4];
};

// Division of 0 <= n < 2^31 by a number that the host knows: n multiplier >> (32 + shift), which is exact (Granlund &
// Montgomery 1994, section 4: the multiplier is 2^(32 + shift) / value, rounded up, with 2^shift < value <= 2^(shift+1)).
struct Divisor {
  int value = 1;
  std::uint32_t multiplier = 0, shift = 0;

  Divisor() = default;
  explicit Divisor(int divisor) : value(divisor) {
    if (divisor == 1) return;
    const auto by = static_cast<std::uint64_t>(divisor);
    while ((std::uint64_t{2} << shift) < by) ++shift;
    multiplier = static_cast<std::uint32_t>(((std::uint64_t{1} << (32 + shift)) + by - 1) / by);
  }
};

}  // namespace deepsim::cuda
