// The kernels that compute products, as the host sees them: which tiles there are and which fits a layer.
#pragma once

#include "gpu.h"

namespace deepsim::runtime::detail::cuda {

struct Product {
  std::string kernel;  // its name in the module
  int rows = 0, columns = 0, depth = 0, stages = 0, threads = 0;

  int blocks(int product_rows, int product_columns) const {
    return ((product_rows + rows - 1) / rows) * ((product_columns + columns - 1) / columns);
  }
  int shared_bytes(int span, int taps) const;
};

// The kernel for a product of this many rows and columns with chunks of `depth` channels, stored in this way ("blocks",
// "shuffle", "connected", "pixels", "partial"). Large tiles where they fill the GPU; all tiles sum in the same order, so
// that the choice changes no bit. Raises DeviceError when none fits the shared memory.
Product product_for(const DeviceFacts& facts, const std::string& store, int depth, int rows, int columns, int groups,
                    int span, int taps);

}  // namespace deepsim::runtime::detail::cuda
