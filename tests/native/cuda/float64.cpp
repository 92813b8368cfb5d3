#include "float64.h"

#include <algorithm>
#include <cmath>

namespace deepsim::tests {

namespace {

// Call body(n, c, y, x) for every value, in order.
template <class Body>
void for_all(const Tensor& x, const Body& body) {
  for (int n = 0; n < x.images; ++n)
    for (int c = 0; c < x.channels; ++c)
      for (int i = 0; i < x.height; ++i)
        for (int j = 0; j < x.width; ++j) body(n, c, i, j);
}

double in(const std::vector<double>& values, int index) { return values[static_cast<std::size_t>(index)]; }

}  // namespace

Tensor::Tensor(int n, int c, int h, int w)
    : images(n), channels(c), height(h), width(w), values(static_cast<std::size_t>(n) * static_cast<std::size_t>(c * h * w)) {}

std::size_t Tensor::index(int n, int c, int y, int x) const {
  return static_cast<std::size_t>(((n * channels + c) * height + y) * width + x);
}

double Tensor::padded(int n, int c, int y, int x) const {
  return y < 0 || x < 0 || y >= height || x >= width ? 0.0 : at(n, c, y, x);
}

Tensor magnitude(Tensor x) {
  for (double& value : x.values) value = std::fabs(value);
  return x;
}

Tensor convolve(const Tensor& x, const Tensor& weight, const std::vector<double>& bias, int pad, int groups) {
  const int outputs = weight.images, inputs = weight.channels;
  Tensor y(x.images, outputs, x.height + 2 * pad - weight.height + 1, x.width + 2 * pad - weight.width + 1);
  for_all(y, [&](int n, int o, int i, int j) {
    double sum = in(bias, o);
    for (int c = 0; c < inputs; ++c)
      for (int r = 0; r < weight.height; ++r)
        for (int s = 0; s < weight.width; ++s)
          sum += x.padded(n, o / (outputs / groups) * inputs + c, i + r - pad, j + s - pad) * weight.at(o, c, r, s);
    y.at(n, o, i, j) = sum;
  });
  return y;
}

Tensor upconvolve(const Tensor& x, const Tensor& weight, const std::vector<double>& bias) {
  const int pad = weight.height / 2 - (weight.height % 2 == 0 ? 1 : 0);
  Tensor y(x.images, weight.channels, 2 * x.height, 2 * x.width);
  for_all(y, [&](int n, int o, int i, int j) { y.at(n, o, i, j) = in(bias, o); });
  for_all(x, [&](int n, int c, int i, int j) {
    for (int o = 0; o < weight.channels; ++o)
      for (int r = 0; r < weight.height; ++r)
        for (int s = 0; s < weight.width; ++s) {
          const int down = 2 * i + r - pad, across = 2 * j + s - pad;
          const bool inside = down >= 0 && across >= 0 && down < y.height && across < y.width;
          if (inside) y.at(n, o, down, across) += x.at(n, c, i, j) * weight.at(c, o, r, s);
        }
  });
  return y;
}

Tensor leaky_relu(Tensor x, double slope) {
  for (double& value : x.values) value = std::max(value, 0.0) + slope * std::min(value, 0.0);
  return x;
}

Tensor max_pool(const Tensor& x, int kernel, int stride, int height, int width) {
  Tensor y(x.images, x.channels, height, width);
  for_all(y, [&](int n, int c, int i, int j) {
    double most = -INFINITY;
    for (int down = i * stride; down < std::min(i * stride + kernel, x.height); ++down)
      for (int across = j * stride; across < std::min(j * stride + kernel, x.width); ++across)
        most = std::max(most, x.at(n, c, down, across));
    y.at(n, c, i, j) = most;
  });
  return y;
}

Tensor local_response_norm(const Tensor& x) {
  Tensor y = x;
  for_all(y, [&](int n, int c, int i, int j) {
    double squares = 0;
    for (int near = std::max(c - 2, 0); near <= std::min(c + 2, x.channels - 1); ++near)
      squares += x.at(n, near, i, j) * x.at(n, near, i, j);
    y.at(n, c, i, j) = x.at(n, c, i, j) / std::pow(1 + 1e-4 / 5 * squares, 0.75);
  });
  return y;
}

Tensor space_to_depth(const Tensor& x, int stride, int pad, int height, int width) {
  Tensor y(x.images, x.channels * stride * stride, height, width);
  for_all(y, [&](int n, int c, int i, int j) {
    const int phase = c / x.channels;
    y.at(n, c, i, j) = x.padded(n, c % x.channels, i * stride + phase / stride - pad, j * stride + phase % stride - pad);
  });
  return y;
}

}  // namespace deepsim::tests
