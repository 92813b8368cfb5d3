// The smallest networks that have an encoder and a generator with every store, and pooling with normalisation.
#pragma once

#include "../random_bundle.h"

namespace deepsim::tests {

constexpr std::size_t kFeatures = 10;

// `larger`: an encoder whose first layer moves more bytes than the generator's last.
struct SmallBundle : RandomBundle {
  explicit SmallBundle(bool larger = false)
      : RandomBundle(Recipe{larger ? larger_encoder_layers() : encoder_layers(), generator_layers()}) {}

 private:
  using Activation = runtime::detail::Activation;
  using Kind = runtime::detail::Kind;

  static std::vector<Layer> encoder_layers() {
    return {layer("conv1", Kind::conv, 3, 16, 15, 16, 0, Activation::relu),
            layer("pool1", Kind::pool, 0, 0, 3, 2, 0, Activation::none),
            layer("norm1", Kind::lrn, 0, 0, 1, 1, 0, Activation::none),
            layer("fc6", Kind::fc, 16 * 7 * 7, kFeatures, 1, 1, 0, Activation::relu)};
  }
  static std::vector<Layer> larger_encoder_layers() {
    return {layer("conv1", Kind::conv, 3, 64, 3, 4, 0, Activation::relu),
            layer("pool1", Kind::pool, 0, 0, 9, 8, 0, Activation::none),
            layer("fc6", Kind::fc, 64 * 7 * 7, kFeatures, 1, 1, 0, Activation::relu)};
  }
  static std::vector<Layer> generator_layers() {
    return {layer("defc5", Kind::fc, kFeatures, 16 * 15 * 15, 1, 1, 0, Activation::lrelu),
            reshape(16, 15, 15),
            layer("deconv3", Kind::deconv, 16, 8, 4, 2, 1, Activation::lrelu),
            layer("deconv2", Kind::deconv, 8, 8, 4, 2, 1, Activation::lrelu),
            layer("deconv1", Kind::deconv, 8, 4, 4, 2, 1, Activation::lrelu),
            layer("deconv0", Kind::deconv, 4, 3, 4, 2, 1, Activation::none)};
  }
};

}  // namespace deepsim::tests
