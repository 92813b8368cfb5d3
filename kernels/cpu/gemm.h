// The register tile at the bottom of every layer: up to kRows rows times kColumns columns, summed over steps of 16.
#pragma once

#include <utility>

#include "vector.h"

namespace deepsim::kernels::DEEPSIM_ISA {

constexpr int kAhead = 32;  // inputs ahead of their use at which weights are fetched; measured, up to 15 % faster than none

// c[row][column] (+)= sum over steps s and k < 16 of a[steps[s] + row * Stride * 16 + k] * w[s][k][column].
// Each sum runs in this order whatever the number of rows, so a result does not depend on how rows are cut into tiles.
// Weights are float, or IEEE binary16 that is widened as it is loaded.
template <int Rows, int Vectors, int Stride, class Weight>
void register_tile(const float* a, const std::ptrdiff_t* steps, int step_count, const Weight* w, float* c, bool accumulate) {
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

template <class Weight>
using RegisterTile = void (*)(const float*, const std::ptrdiff_t*, int, const Weight*, float*, bool);

// The tile for 1 <= rows <= kRows and columns = kColumns or (where that is over 16) 16.
template <class Weight, int Stride, int... Row>
RegisterTile<Weight> tile_of(int rows, int columns, std::integer_sequence<int, Row...>) {
  constexpr int narrow = kColumns > kBlock ? kVectors / 2 : kVectors;
  static constexpr RegisterTile<Weight> tables[2][kRows] = {{register_tile<Row + 1, narrow, Stride, Weight>...},
                                                            {register_tile<Row + 1, kVectors, Stride, Weight>...}};
  return tables[columns == kColumns][rows - 1];
}

// Look up the tile whose rows are `Stride` (1 or 2) pixels apart.
template <class Weight, int Stride = 1>
RegisterTile<Weight> register_tile_for(int rows, int columns) {
  return tile_of<Weight, Stride>(rows, columns, std::make_integer_sequence<int, kRows>{});
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
