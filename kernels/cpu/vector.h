// The vector types of one instruction set, and the register tile that fits its registers.
#pragma once

#include <cstring>

#include "kernels.h"

#define DEEPSIM_JOIN_(a, b) a##b
#define DEEPSIM_JOIN(a, b) DEEPSIM_JOIN_(a, b)
#define DEEPSIM_INLINE inline __attribute__((always_inline))

namespace deepsim::kernels::DEEPSIM_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kVectors = 2, kRows = 14, kChains = 24;  // 28 accumulators of 32 registers
#elif defined(__AVX2__)
constexpr int kLanes = 8, kVectors = 2, kRows = 6, kChains = 12;  // 12 of 16
#elif defined(__aarch64__)
constexpr int kLanes = 4, kVectors = 4, kRows = 6, kChains = 24;  // 24 of 32
#else
constexpr int kLanes = 4, kVectors = 2, kRows = 6, kChains = 12;  // 12 of 16
#endif
constexpr int kColumns = kLanes * kVectors;

typedef float Vector __attribute__((vector_size(kLanes * sizeof(float))));
typedef float UnalignedVector __attribute__((vector_size(kLanes * sizeof(float)), aligned(4), may_alias));

DEEPSIM_INLINE Vector load(const float* from) { return *reinterpret_cast<const UnalignedVector*>(from); }
DEEPSIM_INLINE void store(float* to, Vector value) { *reinterpret_cast<UnalignedVector*>(to) = value; }
DEEPSIM_INLINE Vector broadcast(float value) { return value - Vector{}; }

// max(v, 0) + slope min(v, 0)
DEEPSIM_INLINE Vector activate(Vector v, float slope) {
  const Vector above = v > 0.0f ? v : Vector{}, below = v < 0.0f ? v : Vector{};
  return above + slope * below;
}

}  // namespace deepsim::kernels::DEEPSIM_ISA
