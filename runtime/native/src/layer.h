// The layer table of a manifest: the records of kernels/layers.py, with the same meaning of every field. A switch over a kind
// or an activation names every one of them and has no default, so that a new one does not compile until each reader knows it;
// `unknown` follows it, for values that no enumerator has.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace deepsim::runtime::detail {

enum class Kind { fc, conv, deconv, pool, lrn, reshape };
enum class Activation { none, relu, lrelu, lrelu02, tanh255 };

// Without the batch: (C, H, W), or (C,) as {C, 1, 1, flat}.
struct Shape {
  int channels = 0, height = 0, width = 0;
  bool flat = false;

  std::int64_t elements() const { return std::int64_t{channels} * height * width; }
  bool operator==(const Shape& other) const {
    return channels == other.channels && height == other.height && width == other.width && flat == other.flat;
  }
};

struct Layer {
  std::string name;
  Kind kind = Kind::conv;
  int inputs = 0, outputs = 0, kernel = 1, stride = 1, padding = 0, groups = 1;
  Activation activation = Activation::none;
  Shape shape{};  // of reshape
  bool ceil_mode = false;
  int output_padding = 0;  // rows and columns that a deconvolution adds below and to the right

  bool has_weights() const;
  // fc (out, in); conv (out, in / groups, k, k); deconv (in, out / groups, k, k); else empty
  std::vector<std::int64_t> weight_shape() const;
  // Raises BundleUnsafe naming the layer when an input of this shape does not fit, or nothing would be left.
  Shape output_shape(const Shape& input) const;

 private:
  std::int64_t extent(std::int64_t size) const;
};

// Raises BundleError: whoever reads the layer, such as "lowering", does not know its kind or its activation.
[[noreturn]] void unknown(const Layer& layer, const char* reader);

// (pixel - mean) * scale in the network's channel order, pixels 0-255.
struct PixelConvention {
  bool bgr = true;
  std::array<float, 3> mean{}, scale{};
};

struct Network {
  std::string name;  // of the encoder; of the inverted layer for a generator
  Shape input{};
  std::vector<Layer> layers;
  PixelConvention pixels;

  // The output shape of every layer in order. Raises BundleUnsafe where they do not fit together.
  std::vector<Shape> shapes() const;
};

}  // namespace deepsim::runtime::detail
