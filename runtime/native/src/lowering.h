// Rewrites layers into what the kernels compute: stride-1 convolutions, their columns stacked where that pays.
#pragma once

#include "../../../kernels/cpu/kernels.h"
#include "layer.h"
#include "pack.h"

namespace deepsim::runtime::detail {

struct Lowered {
  kernels::Convolution layer;  // weights and bias not yet set
  DenseWeights weights;
  std::vector<float> bias;
};

// A convolution or stride-1 deconvolution on blocked input of shape `input` (after space-to-depth where it strides).
Lowered lower_convolution(const Layer& layer, const Shape& input, const float* weight, const float* bias);

// The side of the windows of inputs that an up-convolution's outputs are made of, 0 for a layer that is none:
// ConvTranspose2d(k 4, stride 2, padding 1) has 2, ConvTranspose2d(k 5, stride 2, padding 2, output_padding 1) has 3.
int upconvolution_taps(const Layer& layer);

// The four phases of a 2x2 block of an up-convolution's outputs read the same window, so it is a convolution with four times
// the columns, then a pixel shuffle. Phase (a, b) of window (p, q) is output (2p + sign a, 2q + sign b). Its tap (r, s) is
// kernel element (padding + 2 + sign a - 2r, padding + 2 + sign b - 2s), zero where there is none. The sign is 1 where the
// builder stores `forward` and windows have 3 taps, else -1, which takes one window more on both axes.
Lowered lower_upconvolution(const Layer& layer, const Shape& input, bool forward, const float* weight, const float* bias);

// The last layer, to uint8 RGB: an up-convolution or a stride-1 convolution to three channels, with `forward` 2x2 of its
// outputs to a window.
Lowered lower_image(const Layer& layer, const Shape& input, const PixelConvention& pixels, bool forward, const float* weight,
                    const float* bias);

// The first layer of an encoder or any strided convolution reads its input after space-to-depth by the stride:
// kernel ceil(k / stride), channel (dy stride + dx) C + c, C padded to blocks unless the input is pixels.
Lowered lower_strided(const Layer& layer, const Shape& input, bool from_pixels, const float* weight, const float* bias);

// Of the activation below zero: 0 ReLU, 0.3 or 0.2 LeakyReLU, 1 none (and tanh, which is no slope).
float slope_of(const Layer& layer);

// Groups stay groups where their channels fill blocks; else one dense group with zeros between.
int kept_groups(const Layer& layer);

}  // namespace deepsim::runtime::detail
