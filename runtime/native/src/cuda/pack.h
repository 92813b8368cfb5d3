// Weights for the GPU, in the order in which the kernels read them.
#pragma once

#include <vector>

#include "../pack.h"
#include "../planner.h"
#include "gpu.h"

namespace deepsim::runtime::detail::cuda {

// Channels that lie together: as many as take the 16 bytes of a row.
int plane_of(Precision precision);

// Bytes of [group][columns / tile][channels / depth][k k][depth / plane][tile][plane] values, rounded half to even where they
// have 16 bits; columns that a tile lacks are zeros. Raises NumericError when a weight is too large for the precision.
std::vector<unsigned char> pack_convolution(const DenseWeights& weights, int tile_columns, int depth, Precision precision,
                                            ThreadPool& pool);
// The same for a fully connected layer: one group, one tap.
std::vector<unsigned char> pack_connected(const Connected& layer, int tile_columns, int depth, Precision precision,
                                          ThreadPool& pool);

}  // namespace deepsim::runtime::detail::cuda
