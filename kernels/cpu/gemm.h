// The register tile at the bottom of every layer: up to kRows rows times kColumns columns, summed over steps of 16.
#pragma once

#include <utility>

#include "vector.h"

namespace deepsim::kernels::DEEPSIM_ISA {

constexpr int kAhead = 32;  // inputs ahead of their use at which weights are fetched; measured, up to 15 % faster than none

// c[row][column] (+)= sum over steps s and k < 16 of a[steps[s] + row * Stride * 16 + k] * w[s][k][column].
// Each sum runs in this order whatever the number of rows, so a result does not depend on how rows are cut into tiles.
template <int Rows, int Vectors, int Stride>
void register_tile(const float* a, const std::ptrdiff_t* steps, int step_count, const float* w, float* c,
                   bool accumulate) {
  constexpr int columns = Vectors * kLanes;
  Vector sum[Rows][Vectors];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) sum[i][j] = accumulate ? load(c + i * columns + j * kLanes) : Vector{};
  for (int s = 0; s < step_count; ++s) {
    const float* x = a + steps[s];
    for (int k = 0; k < kBlock; ++k, w += columns) {
      Vector weight[Vectors];
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) {
        weight[j] = load(w + j * kLanes);
        __builtin_prefetch(w + kAhead * columns + j * kLanes);
      }
#pragma GCC unroll 16
      for (int i = 0; i < Rows; ++i) {
        const Vector value = broadcast(x[i * Stride * kBlock + k]);
#pragma GCC unroll 4
        for (int j = 0; j < Vectors; ++j) sum[i][j] += value * weight[j];
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) store(c + i * columns + j * kLanes, sum[i][j]);
}

using RegisterTile = void (*)(const float*, const std::ptrdiff_t*, int, const float*, float*, bool);

template <int Vectors, int Stride, int... Row>
const RegisterTile* tiles_of(std::integer_sequence<int, Row...>) {
  static constexpr RegisterTile table[] = {register_tile<Row + 1, Vectors, Stride>...};
  return table;
}

// Look up the tile for 1 <= rows <= kRows, columns = kColumns or (where that is over 16) 16, row stride 1 or 2 pixels.
inline RegisterTile register_tile_for(int rows, int columns, int stride) {
  using AllRows = std::make_integer_sequence<int, kRows>;
  constexpr int narrow = kColumns > kBlock ? kVectors / 2 : kVectors;
  const bool wide = columns == kColumns;
  const RegisterTile* table = nullptr;
  if (stride == 1) table = wide ? tiles_of<kVectors, 1>(AllRows{}) : tiles_of<narrow, 1>(AllRows{});
  if (stride == 2) table = wide ? tiles_of<kVectors, 2>(AllRows{}) : tiles_of<narrow, 2>(AllRows{});
  return table[rows - 1];
}

// The columns of a layer's tile: kColumns, or what is left of them in the last one.
inline int tile_width(int columns, int tile) {
  const int left = columns - tile * kColumns;
  return left < kColumns ? left : kColumns;
}

// Cut `count` rows into the fewest tiles of nearly equal height.
inline int balanced_rows(int count) {
  const int tiles = (count + kRows - 1) / kRows;
  return (count + tiles - 1) / tiles;
}

}  // namespace deepsim::kernels::DEEPSIM_ISA
