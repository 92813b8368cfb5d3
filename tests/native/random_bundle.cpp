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
using runtime::detail::Kind;
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
  std::vector<Layer> layers = {layer("defc5", Kind::fc, 50, 33 * 16, 1, 1, 0, Activation::lrelu), reshape(33, 4, 4),
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

Image apply(const Network& network, const Weights& weights, const std::string& prefix, Image x) {
  const std::vector<Shape> shapes = network.shapes();
  for (std::size_t i = 0; i < network.layers.size(); ++i) {
    const Layer& l = network.layers[i];
    namespace reference = kernels::reference;
    static const std::vector<float> none;
    const auto& weight = l.has_weights() ? weights.at(prefix + "." + l.name + ".weight") : none;
    const auto& bias = l.has_weights() ? weights.at(prefix + "." + l.name + ".bias") : none;
    if (l.kind == Kind::fc) x = reference::fully_connected(x, weight, bias);
    if (l.kind == Kind::conv) x = reference::convolve(x, weight, bias, l.kernel, l.stride, l.padding, l.groups);
    if (l.kind == Kind::deconv) x = reference::upconvolve(x, weight, bias, l.kernel, l.stride, l.padding);
    if (l.kind == Kind::pool) x = reference::max_pool(x, l.kernel, l.stride, shapes[i].height, shapes[i].width);
    if (l.kind == Kind::lrn) x = reference::local_response_norm(x);
    if (l.kind == Kind::reshape) {
      Image shaped(l.shape.channels, l.shape.height, l.shape.width);
      shaped.values = x.values;
      x = shaped;
    }
    const double slope = l.activation == Activation::relu ? 0.0 : l.activation == Activation::lrelu ? 0.3 : 1.0;
    for (double& value : x.values)
      value = l.activation == Activation::tanh255 ? 255 * std::tanh(value) : reference::leaky_relu(value, slope);
  }
  return x;
}

}  // namespace

RandomBundle::RandomBundle(bool tanh, unsigned seed) : RandomBundle(encoder_layers(), generator_layers(tanh), tanh, seed) {}

RandomBundle::RandomBundle(std::vector<Layer> encoder_layers, std::vector<Layer> generator_layers, bool tanh, unsigned seed) {
  static std::atomic<int> count{0};
  folder = std::filesystem::temp_directory_path() /
           ("deepsim-test-" + std::to_string(getpid()) + "-" + std::to_string(count++) + ".deepsim");
  std::filesystem::create_directories(folder);
  encoder = {"random", {3, kSide, kSide, false}, std::move(encoder_layers), {!tanh, {104, 117, 123}, {1, 1, 1}}};
  if (tanh) encoder.pixels.scale = {0.02f, 0.02f, 0.02f};
  generator = {"fc6", encoder.shapes().back(), std::move(generator_layers), {!tanh, {104, 117, 123}, {1, 1, 1}}};
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  WeightShapes shapes;
  for (const auto* network : {&encoder, &generator})
    for (const Layer& l : network->layers) {
      if (!l.has_weights()) continue;
      const std::string name = (network == &encoder ? "encoder." : "generator.") + l.name;
      const int taps = l.kind == Kind::deconv ? l.kernel * l.kernel / (l.stride * l.stride) : l.kernel * l.kernel;
      float scale = std::sqrt(2.0f / static_cast<float>(l.inputs / l.groups * taps));
      if (name == "encoder.conv1" && !tanh) scale /= 50;
      if (name == "generator.deconv0" && !tanh) scale *= 60;
      shapes[name + ".weight"] = l.weight_shape();
      shapes[name + ".bias"] = {l.outputs};
      std::size_t elements = 1;
      for (const std::int64_t extent : l.weight_shape()) elements *= static_cast<std::size_t>(extent);
      for (std::size_t i = 0; i < elements; ++i) weights[name + ".weight"].push_back(normal(random) * scale);
      for (int i = 0; i < l.outputs; ++i) weights[name + ".bias"].push_back(normal(random) * 0.1f);
    }
  const std::string tensors = tensor_bytes(weights, shapes);
  write(folder / "weights.safetensors", tensors);
  write(folder / "manifest.json", manifest_bytes(encoder, generator, tensors));
}

double relative_error(const float* found, const std::vector<double>& wanted) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    difference += std::pow(static_cast<double>(found[i]) - wanted[i], 2);
    norm += wanted[i] * wanted[i];
  }
  return std::sqrt(difference / norm);
}

double mean_difference(const std::vector<std::uint8_t>& a, const std::vector<std::uint8_t>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::abs(int{a[i]} - int{b[i]});
  return sum / static_cast<double>(a.size());
}

std::vector<std::uint8_t> random_images(int n, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::uint8_t> images;
  for (int image = 0; image < n; ++image) {
    std::uint8_t coarse[8][8][3];
    for (auto& row : coarse)
      for (auto& pixel : row)
        for (auto& value : pixel) value = static_cast<std::uint8_t>(random() & 255u);
    for (int y = 0; y < kSide; ++y)
      for (int x = 0; x < kSide; ++x)
        for (const std::uint8_t value : coarse[y / 29][x / 29]) images.push_back(value);
  }
  return images;
}

Image reference_encode(const RandomBundle& bundle, const std::uint8_t* rgb) {
  const auto& pixels = bundle.encoder.pixels;
  Image x(3, kSide, kSide);
  for (int c = 0; c < 3; ++c)
    for (int i = 0; i < kSide * kSide; ++i) {
      const auto channel = static_cast<std::size_t>(c);
      const double value = rgb[i * 3 + (pixels.bgr ? 2 - c : c)];
      x.values[channel * kSide * kSide + static_cast<std::size_t>(i)] =
          (value - static_cast<double>(pixels.mean[channel])) * static_cast<double>(pixels.scale[channel]);
    }
  return apply(bundle.encoder, bundle.weights, "encoder", x);
}

std::vector<std::uint8_t> reference_decode(const RandomBundle& bundle, const Image& features) {
  const auto& pixels = bundle.generator.pixels;
  const Image y = apply(bundle.generator, bundle.weights, "generator", features);
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
