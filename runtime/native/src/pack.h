// Weights in the order in which the kernels read them. A lowered convolution is first written down densely, as
// [group][column][channel][k][k], then packed directly or through Winograd's transform.
#pragma once

#include <cstdint>
#include <vector>

#include "../../../kernels/cpu/kernels.h"
#include "memory.h"
#include "thread_pool.h"

namespace deepsim::runtime::detail {

// The weights of a stride-1 convolution, columns and channels padded with zeros to multiples of 16.
struct DenseWeights {
  int groups = 1, columns = 0, channels = 0, kernel = 1;  // columns and channels per group
  std::vector<float> values;

  DenseWeights(int groups, int columns, int channels, int kernel);
  float& at(int group, int column, int channel, int r, int s);
  float at(int group, int column, int channel, int r, int s) const;
};

// Round to IEEE binary16, half to even; infinity where it is too large.
std::uint16_t to_half(float value);

// [group][columns / tile][channels / 16][k * k][16][tile]
Buffer pack_direct(const DenseWeights& weights, int tile_columns, ThreadPool& pool);

// [group][columns / tile][position][channels / 16][16][tile]; outputs is m of F(m x m, k x k): (3, k 2) or (4, k 3).
Buffer pack_winograd(const DenseWeights& weights, int tile_columns, ThreadPool& pool);

// [columns / tile][inputs / 16][16][tile] from weight[outputs][inputs]. row_of[column] and input_of[k] give where a
// packed column or input is found, -1 for padding. With `half` the weights are rounded to IEEE binary16; raises
// NumericError when one is too large for it.
Buffer pack_fully_connected(const float* weight, std::int64_t inputs, const std::vector<int>& row_of,
                            const std::vector<int>& input_of, bool half, int tile_columns, ThreadPool& pool);

}  // namespace deepsim::runtime::detail
