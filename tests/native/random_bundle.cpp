#include "random_bundle.h"

#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <fstream>
#include <random>
#include <utility>

namespace deepsim::tests {

using kernels::reference::Image;
using runtime::detail::Activation;
using runtime::detail::EncoderKind;
using runtime::detail::Interpolation;
using runtime::detail::Kind;
using runtime::detail::PixelConvention;
using runtime::detail::Resize;
using runtime::detail::Shape;

Layer layer(const std::string& name, Kind kind, int inputs, int outputs, int kernel, int stride, int padding,
            Activation activation, int groups) {
  Layer made;
  made.name = name;
  made.kind = kind;
  made.inputs = inputs;
  made.outputs = outputs;
  made.kernel = kernel;
  made.stride = stride;
  made.padding = padding;
  made.groups = groups;
  made.activation = activation;
  made.ceil_mode = kind == Kind::pool;
  return made;
}

Layer reshape(int channels, int height, int width) {
  Layer made;
  made.name = "reshape";
  made.kind = Kind::reshape;
  made.shape = {channels, height, width, false};
  return made;
}

Layer wide_upconvolution(Layer layer) {
  layer.kernel = 5;
  layer.padding = 2;
  layer.output_padding = 1;
  return layer;
}

namespace {

std::vector<Layer> encoder_layers() {
  return {layer("conv1", Kind::conv, 3, 32, 11, 8, 2, Activation::relu),
          layer("pool1", Kind::pool, 0, 0, 3, 2, 0, Activation::none),
          layer("norm1", Kind::lrn, 0, 0, 1, 1, 0, Activation::none),
          layer("conv2", Kind::conv, 32, 64, 5, 1, 2, Activation::relu, 2),
          layer("conv3", Kind::conv, 64, 40, 3, 1, 1, Activation::relu),
          layer("conv4", Kind::conv, 40, 24, 3, 1, 1, Activation::relu, 2),
          layer("fc6", Kind::fc, 24 * 14 * 14, 50, 1, 1, 0, Activation::relu)};
}

std::vector<Layer> generator_layers(bool tanh) {
  std::vector<Layer> layers = {layer("defc5", Kind::fc, 50, 33 * 16, 1, 1, 0, Activation::lrelu),
                               reshape(33, 4, 4),
                               layer("deconv5", Kind::deconv, 33, 32, 4, 2, 1, Activation::lrelu),
                               layer("conv5_1", Kind::deconv, 32, 48, 3, 1, 1, Activation::lrelu),
                               layer("deconv4", Kind::deconv, 48, 32, 4, 2, 1, Activation::lrelu),
                               layer("conv4_0", Kind::conv, 32, 64, 3, 2, 1, Activation::lrelu),
                               layer("deconv4_1", Kind::deconv, 64, 32, 4, 2, 1, Activation::lrelu),
                               layer("conv4_1", Kind::conv, 32, 32, 2, 1, 0, Activation::lrelu),
                               layer("conv4_2", Kind::conv, 32, 16, 2, 1, 1, Activation::lrelu),
                               layer("deconv3", Kind::deconv, 16, 20, 4, 2, 1, Activation::lrelu),
                               layer("deconv2", Kind::deconv, 20, 6, 4, 2, 1, Activation::lrelu),
                               layer("deconv1", Kind::deconv, 6, 5, 4, 2, 1, Activation::none)};
  if (tanh) {
    layers.push_back(layer("deconv0", Kind::deconv, 5, 4, 4, 2, 1, Activation::lrelu));
    layers.push_back(layer("conv0_1", Kind::conv, 4, 3, 3, 1, 1, Activation::tanh255));
  } else {
    layers.push_back(layer("deconv0", Kind::deconv, 5, 3, 4, 2, 1, Activation::none));
  }
  return layers;
}

void write(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

double activated(const Layer& layer, double value) {
  switch (layer.activation) {
    case Activation::none:
      return value;
    case Activation::relu:
      return kernels::reference::leaky_relu(value, 0.0);
    case Activation::lrelu:
      return kernels::reference::leaky_relu(value, 0.3);
    case Activation::lrelu02:
      return kernels::reference::leaky_relu(value, 0.2);
    case Activation::tanh255:
      return 255 * std::tanh(value);
  }
  runtime::detail::unknown(layer, "the reference of the tests");
}

Image linear(const Layer& l, const Shape& output, const std::vector<float>& weight, const std::vector<float>& bias,
             const Image& x) {
  namespace reference = kernels::reference;
  switch (l.kind) {
    case Kind::fc:
      return reference::fully_connected(x, weight, bias);
    case Kind::conv:
      return reference::convolve(x, weight, bias, l.kernel, l.stride, l.padding, l.groups);
    case Kind::deconv:
      return reference::upconvolve(x, weight, bias, l.kernel, l.stride, l.padding, l.output_padding);
    case Kind::pool:
      return reference::max_pool(x, l.kernel, l.stride, output.height, output.width);
    case Kind::lrn:
      return reference::local_response_norm(x);
    case Kind::reshape: {
      Image shaped(l.shape.channels, l.shape.height, l.shape.width);
      shaped.values = x.values;
      return shaped;
    }
  }
  runtime::detail::unknown(l, "the reference of the tests");
}

Image apply(const Network& network, const Weights& weights, const std::string& prefix, Image x) {
  const std::vector<Shape> shapes = network.shapes();
  for (std::size_t i = 0; i < network.layers.size(); ++i) {
    const Layer& l = network.layers[i];
    static const std::vector<float> none;
    const auto& weight = l.has_weights() ? weights.at(prefix + "." + l.name + ".weight") : none;
    const auto& bias = l.has_weights() ? weights.at(prefix + "." + l.name + ".bias") : none;
    x = linear(l, shapes[i], weight, bias, x);
    for (double& value : x.values) value = activated(l, value);
  }
  return x;
}

}  // namespace

RandomBundle::RandomBundle(bool tanh, unsigned seed)
    : RandomBundle(Recipe{encoder_layers(), generator_layers(tanh), kSide, -1, tanh, seed}) {}

RandomBundle::RandomBundle(const Recipe& recipe) {
  static std::atomic<int> count{0};
  folder = std::filesystem::temp_directory_path() /
           ("deepsim-test-" + std::to_string(getpid()) + "-" + std::to_string(count++) + ".deepsim");
  std::filesystem::create_directories(folder);
  const PixelConvention pixels{!recipe.tanh, {104, 117, 123}, {1, 1, 1}};
  Network &encoder = manifest.encoder, &generator = manifest.generator;
  manifest.encoder_kind = recipe.kind;
  if (recipe.kind != EncoderKind::none) encoder = {"random", {3, recipe.side, recipe.side, false}, recipe.encoder, pixels};
  if (recipe.tanh) encoder.pixels.scale = {0.02f, 0.02f, 0.02f};
  manifest.features = manifest.can_encode() ? encoder.shapes().back() : recipe.features;
  manifest.layer = !recipe.generator.empty() || !manifest.can_encode() ? "fc6" : encoder.layers.back().name;
  manifest.display = recipe.display;
  if (!recipe.generator.empty()) generator = {manifest.layer, manifest.features, recipe.generator, pixels};
  manifest.geometry.photograph.side = recipe.side;
  const int offset = recipe.offset >= 0 ? recipe.offset : (manifest.full_side() - recipe.side) / 2;
  manifest.geometry = {{Resize::warp, recipe.side + 29, recipe.side, Interpolation::bilinear}, offset, recipe.generated_side};
  WeightShapes shapes;
  add_weights(encoder, "encoder", recipe.seed, &shapes);
  add_weights(generator, "generator", recipe.seed + 1000, &shapes);
  const std::string tensors = tensor_bytes(weights, shapes);
  write(folder / "weights.safetensors", tensors);
  write(folder / "manifest.json", manifest_bytes(manifest, tensors));
}

// Scaled so that values keep their size from layer to layer, from grey levels and back.
void RandomBundle::add_weights(const Network& network, const std::string& prefix, unsigned seed, WeightShapes* shapes) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  const bool levels =
      network.pixels.scale[0] == 1.0f && network.layers.size() > 0 && network.layers.back().activation != Activation::tanh255;
  for (const Layer& l : network.layers) {
    if (!l.has_weights()) continue;
    const std::string name = prefix + "." + l.name;
    const int taps = l.kind == Kind::deconv ? l.kernel * l.kernel / (l.stride * l.stride) : l.kernel * l.kernel;
    float scale = std::sqrt(2.0f / static_cast<float>(l.inputs / l.groups * taps));
    if (prefix == "encoder" && levels && &l == &network.layers.front()) scale /= 50;
    if (prefix == "generator" && levels && &l == &network.layers.back()) scale *= 60;
    (*shapes)[name + ".weight"] = l.weight_shape();
    (*shapes)[name + ".bias"] = {l.outputs};
    std::size_t elements = 1;
    for (const std::int64_t extent : l.weight_shape()) elements *= static_cast<std::size_t>(extent);
    for (std::size_t i = 0; i < elements; ++i) weights[name + ".weight"].push_back(normal(random) * scale);
    for (int i = 0; i < l.outputs; ++i) weights[name + ".bias"].push_back(normal(random) * 0.1f);
  }
}

double relative_error(const float* found, const std::vector<double>& wanted) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    difference += std::pow(static_cast<double>(found[i]) - wanted[i], 2);
    norm += wanted[i] * wanted[i];
  }
  return difference > 0 ? std::sqrt(difference / norm) : 0;  // also of features that are all zero
}

double mean_difference(const std::vector<std::uint8_t>& a, const std::vector<std::uint8_t>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::abs(int{a[i]} - int{b[i]});
  return sum / static_cast<double>(a.size());
}

std::vector<std::uint8_t> random_images(int n, unsigned seed, int side) {
  std::mt19937 random(seed);
  std::vector<std::uint8_t> images;
  const int blob = (side + 7) / 8;
  for (int image = 0; image < n; ++image) {
    std::uint8_t coarse[8][8][3];
    for (auto& row : coarse)
      for (auto& pixel : row)
        for (auto& value : pixel) value = static_cast<std::uint8_t>(random() & 255u);
    for (int y = 0; y < side; ++y)
      for (int x = 0; x < side; ++x)
        for (const std::uint8_t value : coarse[y / blob][x / blob]) images.push_back(value);
  }
  return images;
}

std::vector<std::uint8_t> rounded(const std::vector<float>& levels) {
  std::vector<std::uint8_t> bytes;
  for (const float level : levels) bytes.push_back(static_cast<std::uint8_t>(std::clamp(std::nearbyint(level), 0.0f, 255.0f)));
  return bytes;
}

std::vector<std::uint8_t> cropped(const std::vector<std::uint8_t>& whole, int whole_side, int side, int offset) {
  std::vector<std::uint8_t> part;
  for (int row = offset; row < offset + side; ++row) {
    const auto begin = whole.begin() + (static_cast<std::ptrdiff_t>(row) * whole_side + offset) * 3;
    part.insert(part.end(), begin, begin + std::ptrdiff_t{3} * side);
  }
  return part;
}

Image reference_encode(const RandomBundle& bundle, const std::uint8_t* rgb) {
  const auto& pixels = bundle.manifest.encoder.pixels;
  const int side = bundle.manifest.side();
  const std::size_t plane = static_cast<std::size_t>(side) * static_cast<std::size_t>(side);
  Image x(3, side, side);
  for (int c = 0; c < 3; ++c)
    for (int i = 0; i < side * side; ++i) {
      const auto channel = static_cast<std::size_t>(c);
      const double value = rgb[i * 3 + (pixels.bgr ? 2 - c : c)];
      x.values[channel * plane + static_cast<std::size_t>(i)] =
          (value - static_cast<double>(pixels.mean[channel])) * static_cast<double>(pixels.scale[channel]);
    }
  return apply(bundle.manifest.encoder, bundle.weights, "encoder", x);
}

std::vector<std::uint8_t> reference_decode(const RandomBundle& bundle, const Image& features) {
  const auto& pixels = bundle.manifest.generator.pixels;
  const Image y = apply(bundle.manifest.generator, bundle.weights, "generator", features);
  const std::size_t plane = y.values.size() / 3;
  std::vector<std::uint8_t> rgb(y.values.size());
  for (std::size_t c = 0; c < 3; ++c)
    for (std::size_t i = 0; i < plane; ++i) {
      const double value = y.values[c * plane + i] / static_cast<double>(pixels.scale[c]) + static_cast<double>(pixels.mean[c]);
      rgb[i * 3 + (pixels.bgr ? 2 - c : c)] = static_cast<std::uint8_t>(std::clamp(std::nearbyint(value), 0.0, 255.0));
    }
  return rgb;
}

}  // namespace deepsim::tests
