#include "layer.h"

#include "error.h"

namespace deepsim::runtime::detail {

namespace {

constexpr std::int64_t kMaxSide = 4096, kMaxChannels = 1 << 16;

}  // namespace

void unknown(const Layer& layer, const char* reader) {
  throw Failure(ErrorKind::bundle, "layer " + layer.name + ": " + reader + " does not know kind " +
                                       std::to_string(static_cast<int>(layer.kind)) + " with activation " +
                                       std::to_string(static_cast<int>(layer.activation)) + ", expected known ones.");
}

bool Layer::has_weights() const {
  switch (kind) {
    case Kind::fc:
    case Kind::conv:
    case Kind::deconv:
      return true;
    case Kind::pool:
    case Kind::lrn:
    case Kind::reshape:
      return false;
  }
  unknown(*this, "the table of kinds");
}

std::vector<std::int64_t> Layer::weight_shape() const {
  switch (kind) {
    case Kind::fc:
      return {outputs, inputs};
    case Kind::conv:
      return {outputs, inputs / groups, kernel, kernel};
    case Kind::deconv:
      return {inputs, outputs / groups, kernel, kernel};
    case Kind::pool:
    case Kind::lrn:
    case Kind::reshape:
      return {};
  }
  unknown(*this, "the shape of weights");
}

std::int64_t Layer::extent(std::int64_t size) const {
  switch (kind) {
    case Kind::conv: {
      const std::int64_t room = size + 2 * std::int64_t{padding} - kernel;
      return room < 0 ? 0 : room / stride + 1;
    }
    case Kind::deconv:
      return (size - 1) * stride - 2 * std::int64_t{padding} + kernel + output_padding;
    case Kind::pool:
      return size < kernel && !ceil_mode ? 0 : (size - kernel + (ceil_mode ? stride - 1 : 0)) / stride + 1;
    case Kind::lrn:
      return size;
    case Kind::fc:
    case Kind::reshape:
      break;  // these have no extent of their own
  }
  unknown(*this, "the extent of maps");
}

Shape Layer::output_shape(const Shape& input) const {
  bool fits = false;
  std::int64_t channels = has_weights() ? outputs : input.channels, height = 1, width = 1;
  bool flat = false;
  switch (kind) {
    case Kind::reshape:
      fits = input.elements() == shape.elements();
      channels = shape.channels, height = shape.height, width = shape.width, flat = shape.flat;
      break;
    case Kind::fc:
      fits = input.elements() == inputs;
      flat = true;
      break;
    case Kind::conv:
    case Kind::deconv:
    case Kind::pool:
    case Kind::lrn:
      fits = !input.flat && (!has_weights() || input.channels == inputs);
      height = extent(input.height), width = extent(input.width);
      break;
  }
  const bool divides = inputs % groups == 0 && outputs % groups == 0;
  const bool sane =
      channels > 0 && height > 0 && width > 0 && channels <= kMaxChannels && height <= kMaxSide && width <= kMaxSide;
  if (!fits || !divides || !sane) {
    throw Failure(ErrorKind::bundle_unsafe,
                  "layer " + name + ": does not fit its input, expected a table whose layers fit. Do not use this bundle.");
  }
  return {static_cast<int>(channels), static_cast<int>(height), static_cast<int>(width), flat};
}

std::vector<Shape> Network::shapes() const {
  std::vector<Shape> found;
  Shape shape = input;
  for (const Layer& layer : layers) found.push_back(shape = layer.output_shape(shape));
  return found;
}

}  // namespace deepsim::runtime::detail
