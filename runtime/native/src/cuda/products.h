// The kernels that compute products, as the host sees them: which tiles there are and which fits a layer.
#pragma once

#include "gpu.h"

namespace deepsim::runtime::detail::cuda {

// What multiplies in products that are large enough. mma: mma.sync, on every GPU. wgmma: a warpgroup's multiplications
// straight from shared memory, on compute capability 9.0 (Hopper) alone. Which is faster there has not been measured: mma
// is the default, and the choice is a setting for who measures. Both multiply 16-bit values; in fp32 it is fma, each thread
// on its own.
enum class Instructions { mma, wgmma, fma };

// "mma", "wgmma", or "" for the environment's DEEPSIM_CUDA_KERNELS, else mma; in fp32 fma, where none was named. Raises
// UsageError for another name or one that the precision has no kernels for, DeviceError for wgmma on another GPU.
Instructions instructions_of(const std::string& name, const DeviceFacts& facts, Precision precision);

struct Product {
  std::string kernel;  // its name in the module
  int rows = 0, columns = 0, depth = 0, planes = 0, stages = 0, threads = 0, weight_bytes = 0;
  Instructions instructions = Instructions::mma;

  int blocks(int product_rows, int product_columns) const {
    return ((product_rows + rows - 1) / rows) * ((product_columns + columns - 1) / columns);
  }
  int shared_bytes(int span, int taps) const;
};

// The kernel for a product of this many rows and columns with chunks of `depth` channels, stored in this way ("blocks",
// "shuffle", "connected", "pixels", "partial"). Large tiles where they fill the GPU; all tiles of mma sum in the same order,
// and all of fma in theirs, so that the choice changes no bit. With wgmma, its kernels where there is one that fills the GPU,
// else those of mma. Raises DeviceError when none fits the shared memory.
Product product_for(const DeviceFacts& facts, const std::string& store, int depth, int rows, int columns, int groups,
                    int span, int taps, Instructions instructions = Instructions::mma);

}  // namespace deepsim::runtime::detail::cuda
