#include "drawn_networks.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "error.h"
#include "footprint.h"
#include "lowering.h"

namespace deepsim::tests {

using runtime::detail::Activation;
using runtime::detail::EncoderKind;
using runtime::detail::Failure;
using runtime::detail::footprint_of;
using runtime::detail::Kind;
using runtime::detail::Shape;
using runtime::detail::upconvolution_taps;

namespace {

constexpr double kMaxWeights = 1 << 17;  // floats of all layers together
constexpr std::size_t kHeader = 4, kRecord = 8, kMaxLayers = 16;

struct Record {
  const std::uint8_t* at;
  // A byte below 128 is itself; above come the numbers at which something changes.
  int number(std::size_t field) const {
    static constexpr int edges[] = {144, 160,  192,  224,  226,   227,   228,   240,   255,   256,   257,   384,  511,
                                    512, 1000, 1023, 1024, 2047,  2048,  4095,  4096,  4097,  8192,  16384, 9216, 3025,
                                    4,   8,    32,   64,   32767, 32768, 46340, 46341, 65535, 65536, 65537, -1,   99999};
    const int byte = at[field];
    return byte < 128 ? byte : edges[static_cast<std::size_t>(byte - 128) % (sizeof edges / sizeof *edges)];
  }
  bool flag(int bit) const { return (at[7] >> bit & 1) != 0; }
};

// Make the layer's extents follow from its input, as far as its kind has them.
void fit(const Record& record, const Shape& input, Layer* layer) {
  layer->inputs = layer->has_weights() ? input.channels : 0;
  if (layer->kind == Kind::fc) layer->inputs = static_cast<int>(input.elements());
  if (layer->kind == Kind::reshape) {
    const int side = std::max(1, layer->kernel), channels = static_cast<int>(input.elements() / side / side);
    layer->shape = {channels, side, side, false};
    if (record.flag(1)) layer->shape = {static_cast<int>(input.elements()), 1, 1, true};
    layer->kernel = 1;
  }
  if (layer->kind != Kind::conv && layer->kind != Kind::deconv) layer->padding = 0, layer->groups = 1;  // have neither
  if (layer->kind == Kind::deconv && record.flag(2)) layer->kernel = 4, layer->stride = 2, layer->padding = 1;
  if (layer->kind == Kind::deconv && record.flag(4)) {
    layer->kernel = 5, layer->stride = 2, layer->padding = 2, layer->output_padding = 1;
  }
}

Layer draw_layer(const Record& record, const std::string& name, const Shape& input) {
  Layer layer;
  layer.name = name;
  layer.kind = static_cast<Kind>(record.at[0] % 6);
  layer.inputs = layer.outputs = layer.has_weights() ? record.number(1) : 0;
  layer.kernel = record.number(2);
  layer.stride = record.number(3);
  layer.padding = record.number(4);
  layer.groups = record.number(5);
  static constexpr Activation activations[] = {Activation::none, Activation::relu, Activation::lrelu, Activation::tanh255};
  layer.activation = record.flag(5) ? Activation::lrelu02 : activations[record.at[6] % 4];
  layer.ceil_mode = record.flag(3);
  layer.shape = {record.number(1), record.number(4), record.number(5), record.flag(1)};
  if (!record.flag(0)) fit(record, input, &layer);
  return layer;
}

std::optional<Shape> output_of(const Layer& layer, const Shape& input) {
  if (layer.kernel < 1 || layer.stride < 1 || layer.groups < 1) return std::nullopt;  // the manifest's reader refuses
  try {
    return layer.output_shape(input);
  } catch (const Failure&) {
    return std::nullopt;
  }
}

// Add drawn layers to the network; tell the shape that they end in, nothing when they do not fit.
std::optional<Shape> draw_layers(const std::uint8_t* records, std::size_t count, bool equal_names, Network* network) {
  std::optional<Shape> shape = network->input;
  for (std::size_t i = 0; i < count; ++i) {
    const Record record{records + i * kRecord};
    const std::string name = equal_names ? "same" : "layer" + std::to_string(i);
    network->layers.push_back(draw_layer(record, name, shape ? *shape : network->input));
    if (shape) shape = output_of(network->layers.back(), *shape);
  }
  return shape;
}

Layer up_convolution(int inputs, int outputs, const std::string& name) {
  Layer layer;
  layer.name = name;
  layer.kind = Kind::deconv;
  layer.inputs = inputs;
  layer.outputs = outputs;
  layer.kernel = 4;
  layer.stride = 2;
  layer.padding = 1;
  return layer;
}

// Up-convolutions to a square image of at least `side` pixels a side.
void close_to_image(Shape shape, int side, Network* network) {
  while (!shape.flat && shape.height < side) {
    const int outputs = 2 * shape.height >= side ? 3 : 4;
    network->layers.push_back(up_convolution(shape.channels, outputs, "up" + std::to_string(network->layers.size())));
    shape = {outputs, 2 * shape.height, 2 * shape.width, false};
  }
}

// A value in [-1, 1] that depends on where it stands.
float value_at(std::size_t index) {
  const std::uint32_t mixed = static_cast<std::uint32_t>(index) * 2654435761u >> 20;
  return static_cast<float>(mixed) / 2048.0f - 1.0f;
}

std::vector<float> values_for(std::size_t count, bool finite) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = value_at(i);
  if (!finite) {
    values.front() = std::numeric_limits<float>::quiet_NaN();
    values.back() = std::numeric_limits<float>::infinity();
  }
  return values;
}

// A side that a bundle has and which kind of encoder: 227 and a table for bytes below 8, as in the first schema.
int draw_geometry(std::uint8_t byte, Manifest* manifest) {
  static constexpr int sides[] = {227, 224, 64, 96, 33, 7, 1, 300};
  static constexpr EncoderKind kinds[] = {EncoderKind::table, EncoderKind::table, EncoderKind::graph, EncoderKind::none};
  const int side = sides[byte >> 3 & 7u];
  manifest->geometry.photograph = {runtime::detail::Resize::shorter, side + 32, side, runtime::detail::Interpolation::bicubic};
  manifest->encoder_kind = kinds[byte >> 6];
  return side;
}

// Of the generator's output, 0 where its layers do not fit together.
int side_of(const Network& generator) {
  std::optional<Shape> shape = generator.input;
  for (const Layer& layer : generator.layers)
    if (shape) shape = output_of(layer, *shape);
  return shape ? shape->height : 0;
}

double weights_of(const Layer& layer) {
  if (!layer.has_weights() || layer.groups < 1 || layer.outputs < 1) return 0;
  double count = 1;
  for (const std::int64_t extent : layer.weight_shape()) count *= static_cast<double>(extent);
  return count;
}

}  // namespace

void add_weights(const Network& network, const std::string& prefix, bool finite, DrawnBundle* bundle) {
  double total = 0;
  for (const Layer& layer : network.layers) {
    const double count = weights_of(layer);
    if (count <= 0 || (total += count + layer.outputs) > kMaxWeights) continue;
    const std::string name = prefix + "." + layer.name;
    bundle->shapes[name + ".weight"] = layer.weight_shape();
    bundle->shapes[name + ".bias"] = {layer.outputs};
    bundle->weights[name + ".weight"] = values_for(static_cast<std::size_t>(count), finite);
    bundle->weights[name + ".bias"] = values_for(static_cast<std::size_t>(layer.outputs), true);
  }
}

double work_of(const Network& network, bool from_pixels) {
  double work = 0;
  Shape shape = network.input;
  for (const Layer& layer : network.layers) {
    const bool first = from_pixels && &layer == &network.layers.front();
    const Shape output = layer.output_shape(shape);
    const bool image = &layer == &network.layers.back() && !output.flat && output.channels == 3;
    const Shape& windows = upconvolution_taps(layer) > 0 ? shape : output;
    const double taps = layer.has_weights() ? footprint_of(layer, shape, output, first, image).weights
                                            : static_cast<double>(output.channels) * layer.kernel * layer.kernel;
    work += static_cast<double>(windows.height) * windows.width * taps;
    shape = output;
  }
  return work;
}

DrawnBundle draw_bundle(const std::uint8_t* data, std::size_t size) {
  DrawnBundle bundle;
  if (size < kHeader + kRecord) return bundle;
  const std::uint8_t flags = data[0];
  const std::size_t layers = std::min((size - kHeader) / kRecord, kMaxLayers);
  const std::size_t encoding = std::min<std::size_t>(data[1] % 8, layers);
  Network &encoder = bundle.manifest.encoder, &generator = bundle.manifest.generator;
  const int side = draw_geometry(data[1], &bundle.manifest);
  bundle.isa = data[2];
  bundle.half = (flags & 1) != 0;
  encoder = {"drawn", {3, side, side, false}, {}, {(flags & 2) != 0, {104, 117, 123}, {1, 1, 1}}};
  generator = {"features", {}, {}, {(flags & 4) != 0, {104, 117, 123}, {1, 1, 1}}};
  encoder.pixels.scale[0] = static_cast<float>(data[3]) / 64 - 1;
  const auto features = draw_layers(data + kHeader, encoding, (flags & 8) != 0, &encoder);
  generator.input = features ? *features : Shape{1, 1, 1, true};
  const std::uint8_t* decoding = data + kHeader + encoding * kRecord;
  const auto image = draw_layers(decoding, layers - encoding, (flags & 8) != 0, &generator);
  if (image && (flags & 16) == 0) close_to_image(*image, side, &generator);
  const int whole = side_of(generator);
  bundle.manifest.geometry.offset = (flags & 128) != 0 ? data[2] : (whole - side) / 2;
  if (bundle.manifest.can_encode()) add_weights(encoder, "encoder", (flags & 32) == 0, &bundle);
  add_weights(generator, "generator", (flags & 64) == 0, &bundle);
  return bundle;
}

}  // namespace deepsim::tests
