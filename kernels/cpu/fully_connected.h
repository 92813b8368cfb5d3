// A fully connected layer: the register tile with one tap, in pieces of the depth that keep the weights in the L1 cache
// while all rows of the batch pass over them.
#pragma once

#include <algorithm>

#include "epilogue.h"
#include "gemm.h"

namespace deepsim::kernels::DEEPSIM_ISA {

inline void put_rows(const FullyConnectedTask& task, int column, int width, const float* sums) {
  const FullyConnected& layer = *task.layer;
  for (int row = 0; row < task.rows; ++row)
    for (int j = 0; j < width; j += kLanes) {
      const Vector sum = load(sums + static_cast<std::ptrdiff_t>(row) * width + j) + load(layer.bias + column + j);
      store(task.out + static_cast<std::ptrdiff_t>(row) * layer.columns + column + j, activate(sum, layer.slope));
    }
}

// sums[row][column] of all rows and the columns of one tile, piece by piece of the depth.
template <class Weight>
void sum_rows(const FullyConnectedTask& task, const Weight* weights, int width, const std::ptrdiff_t* steps, float* sums) {
  const int rows = balanced_rows(task.rows);
  for (int block = 0; block < task.layer->in_blocks; block += kDepthBlocks) {
    const int depth = std::min(kDepthBlocks, task.layer->in_blocks - block);
    const float* a = task.panel + static_cast<std::ptrdiff_t>(block) * task.rows * kBlock;
    for (int row = 0; row < task.rows; row += rows) {
      const int count = std::min(rows, task.rows - row);
      register_tile_for<Weight>(count, width)(a + static_cast<std::ptrdiff_t>(row) * kBlock, steps, depth, weights,
                                              sums + static_cast<std::ptrdiff_t>(row) * width, block > 0);
    }
    weights += static_cast<std::ptrdiff_t>(depth) * kBlock * width;
  }
}

inline void fully_connected(const FullyConnectedTask& task) {
  const FullyConnected& layer = *task.layer;
  std::ptrdiff_t steps[kDepthBlocks];
  for (int s = 0; s < kDepthBlocks; ++s) steps[s] = static_cast<std::ptrdiff_t>(s) * task.rows * kBlock;
  for (int tile = task.column_tile_begin; tile < task.column_tile_end; ++tile) {
    const int width = tile_width(layer.columns, tile);
    const std::ptrdiff_t first = static_cast<std::ptrdiff_t>(tile) * kColumns * layer.in_blocks * kBlock;
    if (layer.half) {
      sum_rows(task, static_cast<const std::uint16_t*>(layer.weights) + first, width, steps, task.scratch);
    } else {
      sum_rows(task, static_cast<const float*>(layer.weights) + first, width, steps, task.scratch);
    }
    put_rows(task, tile * kColumns, width, task.scratch);
  }
}

}  // namespace deepsim::kernels::DEEPSIM_ISA
