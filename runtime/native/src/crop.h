// A square part of a generator's images: of every layer, the windows that it needs.
#pragma once

#include <vector>

#include "../../../kernels/cpu/kernels.h"

namespace deepsim::runtime::detail {

// Keep the `side` x `side` pixels of images from row and column `offset` on. layers: convolutions, each of which reads what the
// next one wrote: the last of the network first.
void crop(int side, int offset, const std::vector<kernels::Convolution*>& layers);

}  // namespace deepsim::runtime::detail
