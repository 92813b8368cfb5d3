// Binary16 and bfloat16 in 32-bit arithmetic, rounded to nearest even, as the conversions of a GPU do it; binary32 as it is.
// Included by device.h, which has the types.
#pragma once

#include <cstdint>

#include "types.h"
#include <cstring>

namespace deepsim::cuda::emulation {

inline std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float float_of(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

constexpr std::uint32_t magnitude_mask = 0x7fffffffu, infinity = 0x7f800000u;
constexpr std::uint32_t one_nan = 0x7fffu;  // the GPU's conversions return this NaN for every NaN, in both types

inline std::uint32_t to_bits(float value, Half) {
  const std::uint32_t sign = bits_of(value) >> 16 & 0x8000u, magnitude = bits_of(value) & magnitude_mask;
  if (magnitude > infinity) return one_nan;
  if (magnitude >= bits_of(65520.f)) return sign | 0x7c00u;
  // A subnormal's unit is 2^-24, which is also the last bit of 0.5: the addition rounds.
  if (magnitude < bits_of(0x1p-14f)) return sign | (bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f));
  const std::uint32_t rebiased = magnitude - (112u << 23);
  return sign | (rebiased + 0xfffu + (rebiased >> 13 & 1u)) >> 13;
}

inline std::uint32_t to_bits(float value, Brain) {
  const std::uint32_t bits = bits_of(value);
  if ((bits & magnitude_mask) > infinity) return one_nan;
  return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

// Without a branch, for the compiler to vectorise: the product moves the exponent and normalises subnormals.
inline float from_bits(std::uint32_t half, Half) {
  const float magnitude = float_of((half & 0x7fffu) << 13) * 0x1p112f;
  const std::uint32_t special = (half & 0x7c00u) == 0x7c00u ? infinity : 0u;
  return float_of(bits_of(magnitude) | special | (half & 0x8000u) << 16);
}

inline float from_bits(std::uint32_t brain, Brain) { return float_of(brain << 16); }

inline std::uint32_t to_bits(float value, Single) { return bits_of(value); }
inline float from_bits(std::uint32_t single, Single) { return float_of(single); }

}  // namespace deepsim::cuda::emulation
