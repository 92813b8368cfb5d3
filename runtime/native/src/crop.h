// The central part of a generator's images: of every layer, the windows that it needs.
#pragma once

#include <vector>

#include "../../../kernels/cpu/kernels.h"

namespace deepsim::runtime::detail {

// Keep the central `side` x `side` pixels of images. layers: convolutions, each of which reads what the next one wrote: the
// last of the network first.
void crop(int side, const std::vector<kernels::Convolution*>& layers);

}  // namespace deepsim::runtime::detail
