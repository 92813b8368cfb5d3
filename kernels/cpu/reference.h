// Readable twins of the CPU kernels, in float64 and straight from the definitions: what the kernels are tested against.
// Tensors are one image in C, H, W order; weights as in kernels/layers.py.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace deepsim::kernels::reference {

struct Image {
  int channels = 0, height = 0, width = 0;
  std::vector<double> values;

  Image(int c, int h, int w)
      : channels(c), height(h), width(w), values(static_cast<std::size_t>(c) * static_cast<std::size_t>(h * w)) {}
  double& at(int c, int y, int x) {
    return values[(static_cast<std::size_t>(c) * static_cast<std::size_t>(height) + static_cast<std::size_t>(y)) *
                      static_cast<std::size_t>(width) +
                  static_cast<std::size_t>(x)];
  }
  double at(int c, int y, int x) const { return const_cast<Image*>(this)->at(c, y, x); }
  // Zero outside of the image.
  double padded(int c, int y, int x) const { return y < 0 || x < 0 || y >= height || x >= width ? 0.0 : at(c, y, x); }
};

inline double leaky_relu(double x, double slope) { return std::max(x, 0.0) + slope * std::min(x, 0.0); }

// Cross-correlation; weight (out, in / groups, k, k).
inline Image convolve(const Image& x, const std::vector<float>& weight, const std::vector<float>& bias, int k, int stride,
                      int padding, int groups) {
  const int outputs = static_cast<int>(bias.size()), inputs = x.channels / groups;
  Image y(outputs, (x.height + 2 * padding - k) / stride + 1, (x.width + 2 * padding - k) / stride + 1);
  for (int o = 0; o < outputs; ++o)
    for (int i = 0; i < y.height; ++i)
      for (int j = 0; j < y.width; ++j) {
        double sum = bias[static_cast<std::size_t>(o)];
        for (int c = 0; c < inputs; ++c)
          for (int r = 0; r < k; ++r)
            for (int s = 0; s < k; ++s)
              sum += x.padded(o / (outputs / groups) * inputs + c, i * stride + r - padding, j * stride + s - padding) *
                     static_cast<double>(weight[static_cast<std::size_t>(((o * inputs + c) * k + r) * k + s)]);
        y.at(o, i, j) = sum;
      }
  return y;
}

// Transposed convolution; weight (in, out, k, k). Every input pixel adds its kernel to the output.
inline Image upconvolve(const Image& x, const std::vector<float>& weight, const std::vector<float>& bias, int k, int stride,
                        int padding, int output_padding = 0) {
  const int outputs = static_cast<int>(bias.size());
  const int more = k - 2 * padding + output_padding;
  Image y(outputs, (x.height - 1) * stride + more, (x.width - 1) * stride + more);
  for (int o = 0; o < outputs; ++o) {
    for (int i = 0; i < y.height; ++i)
      for (int j = 0; j < y.width; ++j) y.at(o, i, j) = bias[static_cast<std::size_t>(o)];
    for (int c = 0; c < x.channels; ++c)
      for (int i = 0; i < x.height; ++i)
        for (int j = 0; j < x.width; ++j)
          for (int r = 0; r < k; ++r)
            for (int s = 0; s < k; ++s) {
              const int down = i * stride + r - padding, across = j * stride + s - padding;
              if (down < 0 || across < 0 || down >= y.height || across >= y.width) continue;
              y.at(o, down, across) +=
                  x.at(c, i, j) * static_cast<double>(weight[static_cast<std::size_t>(((c * outputs + o) * k + r) * k + s)]);
            }
  }
  return y;
}

// y = W x + b of the flattened image; weight (out, in).
inline Image fully_connected(const Image& x, const std::vector<float>& weight, const std::vector<float>& bias) {
  Image y(static_cast<int>(bias.size()), 1, 1);
  for (std::size_t o = 0; o < bias.size(); ++o) {
    y.values[o] = bias[o];
    for (std::size_t i = 0; i < x.values.size(); ++i)
      y.values[o] += x.values[i] * static_cast<double>(weight[o * x.values.size() + i]);
  }
  return y;
}

// Window maxima without padding; the last windows may end at the border.
inline Image max_pool(const Image& x, int k, int stride, int height, int width) {
  Image y(x.channels, height, width);
  for (int c = 0; c < x.channels; ++c)
    for (int i = 0; i < height; ++i)
      for (int j = 0; j < width; ++j) {
        double most = -INFINITY;
        for (int r = i * stride; r < std::min(i * stride + k, x.height); ++r)
          for (int s = j * stride; s < std::min(j * stride + k, x.width); ++s) most = std::max(most, x.at(c, r, s));
        y.at(c, i, j) = most;
      }
  return y;
}

// x / (1 + 1e-4 / 5 * sum of squares over five channels)^0.75 (Krizhevsky et al. 2012, 3.3)
inline Image local_response_norm(const Image& x) {
  Image y = x;
  for (int c = 0; c < x.channels; ++c)
    for (int i = 0; i < x.height; ++i)
      for (int j = 0; j < x.width; ++j) {
        double sum = 0;
        for (int n = std::max(c - 2, 0); n <= std::min(c + 2, x.channels - 1); ++n) sum += x.at(n, i, j) * x.at(n, i, j);
        y.at(c, i, j) = x.at(c, i, j) / std::pow(1 + 1e-4 / 5 * sum, 0.75);
      }
  return y;
}

}  // namespace deepsim::kernels::reference
