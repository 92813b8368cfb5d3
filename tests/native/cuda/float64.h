// What the CUDA kernels should compute: plain loops in float64 over (n, C, H, W), straight from the definitions.
#pragma once

#include <cstddef>
#include <vector>

namespace deepsim::tests {

struct Tensor {
  int images = 0, channels = 0, height = 1, width = 1;
  std::vector<double> values;

  Tensor() = default;
  Tensor(int n, int c, int h, int w);
  std::size_t index(int n, int c, int y, int x) const;
  double& at(int n, int c, int y, int x) { return values[index(n, c, y, x)]; }
  double at(int n, int c, int y, int x) const { return values[index(n, c, y, x)]; }
  // Zero outside of the image.
  double padded(int n, int c, int y, int x) const;
};

Tensor magnitude(Tensor x);

// Cross-correlation; weight (outputs, C / groups, kh, kw).
Tensor convolve(const Tensor& x, const Tensor& weight, const std::vector<double>& bias, int pad, int groups);
// Transposed convolution that doubles the extents; weight (C, outputs, k, k): a pixel adds its kernel to the result. k is 4,
// with padding 1, or 5, with padding 2 and output padding 1.
Tensor upconvolve(const Tensor& x, const Tensor& weight, const std::vector<double>& bias);
Tensor leaky_relu(Tensor x, double slope);

// The largest of each window; the last ones may end at the border.
Tensor max_pool(const Tensor& x, int kernel, int stride, int height, int width);
// x / (1 + 1e-4 / 5 sum of squares over five channels)^0.75.
Tensor local_response_norm(const Tensor& x);
// Channel (dy stride + dx) C + c of pixel (y, x) is channel c of pixel (y stride + dy - pad, x stride + dx - pad).
Tensor space_to_depth(const Tensor& x, int stride, int pad, int height, int width);

}  // namespace deepsim::tests
