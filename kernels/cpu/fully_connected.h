// A fully connected layer: the register tile with one tap, in pieces of the depth that keep the weights in the L1 cache
// while all rows of the batch pass over them. Weights stored as IEEE binary16 are widened piece by piece.
#pragma once

#include <algorithm>

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "epilogue.h"
#include "gemm.h"

namespace deepsim::kernels::DEEPSIM_ISA {

// IEEE binary16 to binary32 for finite values, by shifting the bits and scaling the exponent.
DEEPSIM_INLINE float widen_one(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000u) << 16, bits = (half & 0x7fffu) << 13;
  float magnitude;
  std::memcpy(&magnitude, &bits, sizeof magnitude);
  magnitude *= 5.192296858534828e33f;  // 2^112
  std::uint32_t result;
  std::memcpy(&result, &magnitude, sizeof result);
  result |= sign;
  std::memcpy(&magnitude, &result, sizeof magnitude);
  return magnitude;
}

// The weights after the next piece's are asked for on the way.
inline void widen(const std::uint16_t* from, int count, float* to) {
  for (int i = 0; i < count; i += 32) __builtin_prefetch(from + 2 * count + i, 0, 2);
#if defined(__AVX512F__)
  for (int i = 0; i < count; i += 16) _mm512_storeu_ps(to + i, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i))));
#elif defined(__F16C__)
  for (int i = 0; i < count; i += 8) _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
#else
  for (int i = 0; i < count; ++i) to[i] = widen_one(from[i]);
#endif
}

inline void put_rows(const FullyConnectedTask& task, int column, int width, const float* sums) {
  const FullyConnected& layer = *task.layer;
  for (int row = 0; row < task.rows; ++row)
    for (int j = 0; j < width; j += kLanes) {
      const Vector sum = load(sums + static_cast<std::ptrdiff_t>(row) * width + j) + load(layer.bias + column + j);
      store(task.out + static_cast<std::ptrdiff_t>(row) * layer.columns + column + j, activate(sum, layer.slope));
    }
}

inline void fully_connected(const FullyConnectedTask& task) {
  const FullyConnected& layer = *task.layer;
  const int rows = balanced_rows(task.rows);
  float* widened = task.scratch;
  float* sums = task.scratch + kDepthBlocks * kBlock * kColumns;
  std::ptrdiff_t steps[kDepthBlocks];
  for (int s = 0; s < kDepthBlocks; ++s) steps[s] = static_cast<std::ptrdiff_t>(s) * task.rows * kBlock;
  for (int tile = task.column_tile_begin; tile < task.column_tile_end; ++tile) {
    const int width = tile_width(layer.columns, tile);
    const std::ptrdiff_t first = static_cast<std::ptrdiff_t>(tile) * kColumns * layer.in_blocks * kBlock;
    for (int block = 0; block < layer.in_blocks; block += kDepthBlocks) {
      const int depth = std::min(kDepthBlocks, layer.in_blocks - block);
      const std::ptrdiff_t at = first + static_cast<std::ptrdiff_t>(block) * kBlock * width;
      const float* weights = layer.half ? widened : static_cast<const float*>(layer.weights) + at;
      if (layer.half) widen(static_cast<const std::uint16_t*>(layer.weights) + at, depth * kBlock * width, widened);
      const float* a = task.panel + static_cast<std::ptrdiff_t>(block) * task.rows * kBlock;
      for (int row = 0; row < task.rows; row += rows) {
        const int count = std::min(rows, task.rows - row);
        register_tile_for(count, width, 1)(a + static_cast<std::ptrdiff_t>(row) * kBlock, steps, depth, weights,
                                           sums + static_cast<std::ptrdiff_t>(row) * width, block > 0);
      }
    }
    put_rows(task, tile * kColumns, width, sums);
  }
}

}  // namespace deepsim::kernels::DEEPSIM_ISA
