#include "footprint.h"

#include <algorithm>
#include <cmath>

#include "lowering.h"

namespace deepsim::runtime::detail {

namespace {

double padded(double channels) { return std::ceil(channels / kernels::kBlock) * kernels::kBlock; }

double floats_of(const Shape& shape) { return padded(shape.channels) * shape.height * shape.width; }

// The stride-1 convolution that a layer becomes (lowering.cpp).
struct Matrix {
  double channels, columns, side, groups = 1;
};

Matrix lowered(const Layer& layer, bool from_pixels, bool to_pixels) {
  const double stride = layer.stride, phases = stride * stride;
  const double columns = to_pixels ? kernels::kBlock : padded(layer.outputs);
  const int taps = upconvolution_taps(layer);
  if (taps > 0) return {padded(layer.inputs), to_pixels ? columns : 4 * columns, static_cast<double>(taps)};
  if (to_pixels) return {padded(layer.inputs), columns, layer.kernel + 1.0};
  if (from_pixels) return {padded(phases * layer.inputs), columns, std::ceil(layer.kernel / stride)};
  if (layer.kind == Kind::conv && layer.stride > 1) {
    return {phases * padded(layer.inputs), columns, std::ceil(layer.kernel / stride)};
  }
  return {padded(layer.inputs), columns, static_cast<double>(layer.kernel), static_cast<double>(kept_groups(layer))};
}

}  // namespace

Footprint footprint_of(const Layer& layer, const Shape& input, const Shape& stored, bool from_pixels, bool to_pixels) {
  Footprint found{0, std::max(floats_of(input), floats_of(stored))};
  switch (layer.kind) {
    case Kind::pool:
    case Kind::lrn:
    case Kind::reshape:
      return found;
    case Kind::fc:
      found.weights = floats_of(input) * floats_of(stored);
      return found;
    case Kind::conv:
    case Kind::deconv: {
      const Matrix matrix = lowered(layer, from_pixels, to_pixels);
      found.weights = matrix.channels * matrix.columns * matrix.side * matrix.side / matrix.groups;
      const double row = matrix.channels * (stored.width + matrix.side - 1);
      const bool strides = from_pixels || (layer.stride > 1 && upconvolution_taps(layer) == 0);
      const double rows = strides ? stored.height + matrix.side - 1 : matrix.side;
      found.activations = std::max(found.activations, row * rows);
      return found;
    }
  }
  unknown(layer, "the count of memory");
}

}  // namespace deepsim::runtime::detail
