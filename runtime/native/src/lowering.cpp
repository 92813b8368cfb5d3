#include "lowering.h"

#include <algorithm>
#include <cstddef>

#include "error.h"

namespace deepsim::runtime::detail {

using kernels::blocks_of;
using kernels::Convolution;
using kernels::kBlock;
using kernels::Store;

namespace {

// Whether a layer that becomes a convolution is a deconvolution. Raises BundleError for one that becomes none.
bool is_deconvolution(const Layer& layer) {
  switch (layer.kind) {
    case Kind::conv:
      return false;
    case Kind::deconv:
      return true;
    case Kind::fc:
    case Kind::pool:
    case Kind::lrn:
    case Kind::reshape:
      break;
  }
  unknown(layer, "lowering to a convolution");
}

bool is_tanh(const Layer& layer) {
  switch (layer.activation) {
    case Activation::tanh255:
      return true;
    case Activation::none:
    case Activation::relu:
    case Activation::lrelu:
    case Activation::lrelu02:
      return false;
  }
  unknown(layer, "lowering to pixels");
}

// weight[out][in / groups][k][k] of a convolution, or of a stride-1 deconvolution seen as one (kernel rotated).
class Kernel {
 public:
  Kernel(const Layer& layer, const float* weight) : layer_(layer), weight_(weight), rotates_(is_deconvolution(layer)) {}
  float operator()(int out, int in, int r, int s) const {
    const int k = layer_.kernel;
    return rotates_ ? at(in, out, layer_.outputs, k - 1 - r, k - 1 - s) : at(out, in, layer_.inputs / layer_.groups, r, s);
  }

 private:
  float at(int first, int second, int seconds, int r, int s) const {
    const auto k = static_cast<std::ptrdiff_t>(layer_.kernel);
    return weight_[((static_cast<std::ptrdiff_t>(first) * seconds + second) * k + r) * k + s];
  }
  const Layer& layer_;
  const float* weight_;
  bool rotates_;
};

void set_windows(Convolution* layer, int height, int width) {
  layer->row_begin = layer->column_begin = 0;
  layer->row_end = height;
  layer->column_end = width;
}

Convolution blank(const Layer& layer, const Shape& input, const DenseWeights& weights) {
  Convolution lowered;
  lowered.groups = weights.groups;
  lowered.in_blocks = weights.channels / kBlock;
  lowered.in_height = input.height;
  lowered.in_width = input.width;
  lowered.kernel = weights.kernel;
  lowered.columns = weights.columns;
  lowered.slope = slope_of(layer);
  return lowered;
}

std::vector<float> padded(const float* bias, int count, std::size_t size) {
  std::vector<float> values(size);
  std::copy_n(bias, count, values.begin());
  return values;
}

std::size_t columns_of(const DenseWeights& weights) {
  return static_cast<std::size_t>(weights.groups) * static_cast<std::size_t>(weights.columns);
}

// Call visit(group, column, channel, out, in) for every connected pair, channels within the kept groups.
template <class Visit>
void for_each_pair(const Layer& layer, int groups, const Visit& visit) {
  const int inputs = layer.inputs / layer.groups, outputs = layer.outputs / layer.groups;
  for (int out = 0; out < layer.outputs; ++out)
    for (int in = 0; in < inputs; ++in) {
      const int own = out / outputs;
      const int group = groups > 1 ? own : 0;
      visit(group, groups > 1 ? out % outputs : out, groups > 1 ? in : own * inputs + in, out, in);
    }
}

int convolution_pad(const Layer& layer) { return is_deconvolution(layer) ? layer.kernel - 1 - layer.padding : layer.padding; }

constexpr int kUpconvolutionPad = 1;  // zeros above and left of the first window

int sign_of_phases(const Layer& layer, bool forward) { return forward && upconvolution_taps(layer) == 3 ? 1 : -1; }

void fill_upconvolution(const Layer& layer, const float* weight, int sign, bool image, DenseWeights* weights) {
  const int k = layer.kernel, taps = weights->kernel, first = layer.padding + 2 * kUpconvolutionPad;
  for (int in = 0; in < layer.inputs; ++in)
    for (int out = 0; out < layer.outputs; ++out)
      for (int phase = 0; phase < 4; ++phase)
        for (int tap = 0; tap < taps * taps; ++tap) {
          const int y = first + sign * (phase / 2) - 2 * (tap / taps), x = first + sign * (phase % 2) - 2 * (tap % taps);
          if (y < 0 || x < 0 || y >= k || x >= k) continue;
          const int column = image ? phase * 3 + out : (out / kBlock * 4 + phase) * kBlock + out % kBlock;
          const auto at = (static_cast<std::ptrdiff_t>(in) * layer.outputs + out) * k * k + y * k + x;
          weights->at(0, column, in, tap / taps, tap % taps) = weight[at];
        }
}

// What an up-convolution becomes, but for where its outputs go.
Convolution upconvolution(const Layer& layer, const Shape& input, int sign, const DenseWeights& weights) {
  Convolution lowered = blank(layer, input, weights);
  lowered.pad = kUpconvolutionPad;
  lowered.sign = sign;
  const int more = sign < 0 ? 1 : 0;
  set_windows(&lowered, input.height + more, input.width + more);
  return lowered;
}

kernels::Pixels pixels_of(const Layer& layer, const PixelConvention& convention, const Shape& output) {
  kernels::Pixels pixels;
  std::copy(convention.mean.begin(), convention.mean.end(), pixels.mean);
  std::copy(convention.scale.begin(), convention.scale.end(), pixels.scale);
  pixels.bgr = convention.bgr;
  pixels.tanh255 = is_tanh(layer);
  pixels.height = output.height;
  pixels.width = output.width;
  pixels.crop_side = output.height;
  return pixels;
}

Lowered lower_stacked_image(const Layer& layer, const Shape& input, const float* weight, const float* bias) {
  DenseWeights weights(1, kBlock, layer.inputs, layer.kernel + 1);
  const Kernel kernel(layer, weight);
  for_each_pair(layer, 1, [&](int, int, int channel, int out, int in) {
    for (int phase = 0; phase < 4; ++phase)
      for (int r = 0; r < layer.kernel; ++r)
        for (int s = 0; s < layer.kernel; ++s)
          weights.at(0, phase * 3 + out, channel, r + phase / 2, s + phase % 2) = kernel(out, in, r, s);
  });
  Convolution lowered = blank(layer, input, weights);
  lowered.pad = convolution_pad(layer);
  lowered.window_stride = 2;
  lowered.sign = 1;
  const Shape output = layer.output_shape(input);
  set_windows(&lowered, (output.height + 1) / 2, (output.width + 1) / 2);
  return {lowered, std::move(weights), padded(bias, 3, kBlock)};
}

Lowered lower_image_upconvolution(const Layer& layer, const Shape& input, int sign, const float* weight, const float* bias) {
  DenseWeights weights(1, kBlock, layer.inputs, upconvolution_taps(layer));
  fill_upconvolution(layer, weight, sign, true, &weights);
  const Convolution lowered = upconvolution(layer, input, sign, weights);
  return {lowered, std::move(weights), padded(bias, 3, kBlock)};
}

// One window for each pixel of the output, one column for each of its channels.
Lowered to_blocks(Convolution lowered, const Layer& layer, const Shape& output, DenseWeights weights, const float* bias) {
  set_windows(&lowered, output.height, output.width);
  lowered.out_blocks = blocks_of(layer.outputs);
  lowered.out_height = output.height;
  lowered.out_width = output.width;
  const std::size_t columns = columns_of(weights);
  return {lowered, std::move(weights), padded(bias, layer.outputs, columns)};
}

}  // namespace

float slope_of(const Layer& layer) {
  switch (layer.activation) {
    case Activation::relu:
      return 0.0f;
    case Activation::lrelu:
      return 0.3f;
    case Activation::lrelu02:
      return 0.2f;
    case Activation::none:
    case Activation::tanh255:
      return 1.0f;
  }
  unknown(layer, "lowering");
}

int upconvolution_taps(const Layer& layer) {
  if (layer.kind != Kind::deconv || layer.stride != 2 || layer.groups != 1) return 0;
  if (layer.kernel == 4 && layer.padding == 1 && layer.output_padding == 0) return 2;
  if (layer.kernel == 5 && layer.padding == 2 && layer.output_padding == 1) return 3;
  return 0;
}

int kept_groups(const Layer& layer) {
  const bool blocks = layer.inputs / layer.groups % kBlock == 0 && layer.outputs / layer.groups % kBlock == 0;
  return blocks ? layer.groups : 1;
}

Lowered lower_convolution(const Layer& layer, const Shape& input, const float* weight, const float* bias) {
  const int groups = kept_groups(layer);
  DenseWeights weights(groups, layer.outputs / groups, layer.inputs / groups, layer.kernel);
  const Kernel kernel(layer, weight);
  for_each_pair(layer, groups, [&](int group, int column, int channel, int out, int in) {
    for (int r = 0; r < layer.kernel; ++r)
      for (int s = 0; s < layer.kernel; ++s) weights.at(group, column, channel, r, s) = kernel(out, in, r, s);
  });
  Convolution lowered = blank(layer, input, weights);
  lowered.pad = convolution_pad(layer);
  const Shape output = layer.output_shape(input);
  return to_blocks(lowered, layer, output, std::move(weights), bias);
}

Lowered lower_strided(const Layer& layer, const Shape& input, bool from_pixels, const float* weight, const float* bias) {
  const int stride = layer.stride, inputs = layer.inputs / layer.groups;
  const int channels = from_pixels ? layer.inputs : blocks_of(layer.inputs) * kBlock;
  DenseWeights weights(1, layer.outputs, stride * stride * channels, (layer.kernel + stride - 1) / stride);
  const Kernel kernel(layer, weight);
  for (int out = 0; out < layer.outputs; ++out)
    for (int in = 0; in < inputs; ++in)
      for (int y = 0; y < layer.kernel; ++y)
        for (int x = 0; x < layer.kernel; ++x) {
          const int channel = out / (layer.outputs / layer.groups) * inputs + in;
          const int phase = y % stride * stride + x % stride;
          weights.at(0, out, phase * channels + channel, y / stride, x / stride) = kernel(out, in, y, x);
        }
  const Shape output = layer.output_shape(input);
  Convolution lowered = blank(layer, input, weights);
  lowered.in_height = output.height + weights.kernel - 1;
  lowered.in_width = output.width + weights.kernel - 1;
  return to_blocks(lowered, layer, output, std::move(weights), bias);
}

Lowered lower_upconvolution(const Layer& layer, const Shape& input, bool forward, const float* weight, const float* bias) {
  const int blocks = blocks_of(layer.outputs), sign = sign_of_phases(layer, forward);
  DenseWeights weights(1, 4 * blocks * kBlock, layer.inputs, upconvolution_taps(layer));
  fill_upconvolution(layer, weight, sign, false, &weights);
  Convolution lowered = upconvolution(layer, input, sign, weights);
  lowered.store = Store::shuffle;
  lowered.out_blocks = blocks;
  lowered.out_height = 2 * input.height;
  lowered.out_width = 2 * input.width;
  std::vector<float> biases(columns_of(weights));
  for (int out = 0; out < layer.outputs; ++out)
    for (int phase = 0; phase < 4; ++phase)
      biases[static_cast<std::size_t>((out / kBlock * 4 + phase) * kBlock + out % kBlock)] = bias[out];
  return {lowered, std::move(weights), std::move(biases)};
}

Lowered lower_image(const Layer& layer, const Shape& input, const PixelConvention& pixels, bool forward, const float* weight,
                    const float* bias) {
  const bool up = upconvolution_taps(layer) > 0;
  Lowered lowered = up        ? lower_image_upconvolution(layer, input, sign_of_phases(layer, forward), weight, bias)
                    : forward ? lower_stacked_image(layer, input, weight, bias)
                              : lower_convolution(layer, input, weight, bias);
  const std::ptrdiff_t phases = up || forward ? 4 : 1;
  for (std::ptrdiff_t phase = 1; phase < phases; ++phase) std::copy_n(bias, 3, lowered.bias.begin() + phase * 3);
  lowered.layer.store = Store::pixels;
  lowered.layer.pixels = pixels_of(layer, pixels, layer.output_shape(input));
  return lowered;
}

}  // namespace deepsim::runtime::detail
