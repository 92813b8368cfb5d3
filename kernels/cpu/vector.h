// The vector types of one instruction set, and the register tile that fits its registers.
#pragma once

#include <cstring>

#if defined(__F16C__)
#include <immintrin.h>
#endif

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

typedef std::uint32_t WordVector __attribute__((vector_size(kLanes * sizeof(std::uint32_t))));
typedef std::uint16_t HalfVector __attribute__((vector_size(kLanes * sizeof(std::uint16_t))));

DEEPSIM_INLINE Vector load(const float* from) { return *reinterpret_cast<const UnalignedVector*>(from); }
DEEPSIM_INLINE void store(float* to, Vector value) { *reinterpret_cast<UnalignedVector*>(to) = value; }
DEEPSIM_INLINE Vector broadcast(float value) { return value - Vector{}; }

// kLanes finite IEEE binary16 values, widened; in general by shifting their bits and scaling by 2^112.
DEEPSIM_INLINE Vector load(const std::uint16_t* from) {
#if defined(__AVX512F__)
  return _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(__F16C__)
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
  HalfVector halves;
  std::memcpy(&halves, from, sizeof halves);
  const WordVector bits = __builtin_convertvector(halves, WordVector);
  const Vector magnitude = reinterpret_cast<Vector>((bits & 0x7fffu) << 13) * 5.192296858534828e33f;
  return reinterpret_cast<Vector>(reinterpret_cast<WordVector>(magnitude) | (bits & 0x8000u) << 16);
#endif
}

// max(v, 0) + slope min(v, 0); NaN stays NaN
DEEPSIM_INLINE Vector activate(Vector v, float slope) { return v > 0.0f ? v : v * slope; }

}  // namespace deepsim::kernels::DEEPSIM_ISA
