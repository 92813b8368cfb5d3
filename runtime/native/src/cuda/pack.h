// Weights for the GPU: 16-bit, in the order in which the kernels read them.
#pragma once

#include <cstdint>
#include <vector>

#include "../pack.h"
#include "../planner.h"
#include "gpu.h"

namespace deepsim::runtime::detail::cuda {

// The bits of a value in fp16 or bf16, rounded half to even.
std::uint16_t to_bits(float value, Precision precision);

// [group][columns / tile][channels / depth][k k][depth / 8][tile][8]; columns that a tile lacks are zeros. Raises NumericError
// when a weight is too large for the precision.
std::vector<std::uint16_t> pack_convolution(const DenseWeights& weights, int tile_columns, int depth, Precision precision,
                                            ThreadPool& pool);
// The same for a fully connected layer: one group, one tap.
std::vector<std::uint16_t> pack_connected(const Connected& layer, int tile_columns, int depth, Precision precision,
                                          ThreadPool& pool);

}  // namespace deepsim::runtime::detail::cuda
