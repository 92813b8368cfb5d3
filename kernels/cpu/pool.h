// Max-pooling, and local response normalisation of what it yields while that is still in the cache.
#pragma once

#include <algorithm>
#include <cmath>

#include "vector.h"

namespace deepsim::kernels::DEEPSIM_ISA {

constexpr int kNeighbours = 2;  // channels on each side that normalise one (Krizhevsky et al. 2012, 3.3: n = 5)
constexpr float kAlpha = 1e-4f / 5, kOffset = 1.0f;

// The maximum over the window of output pixel (y, x) in one plane; a window may end at the border.
inline void pool_pixel(const Pool& layer, const float* plane, int y, int x, float* to) {
  const int bottom = std::min(y * layer.stride + layer.kernel, layer.in_height);
  const int right = std::min(x * layer.stride + layer.kernel, layer.in_width);
  for (int lane = 0; lane < kBlock; lane += kLanes) {
    Vector most = broadcast(-INFINITY);
    for (int i = y * layer.stride; i < bottom; ++i)
      for (int j = x * layer.stride; j < right; ++j) {
        const Vector v = load(plane + (static_cast<std::ptrdiff_t>(i) * layer.in_width + j) * kBlock + lane);
        most = v > most ? v : most;
      }
    store(to + lane, most);
  }
}

// values / (1 + alpha / 5 * sum of squares)^0.75; values has kBlock zeros before and after its channels.
inline void normalise(const float* values, int channels, float* normalised) {
  for (int c = 0; c < channels; ++c) {
    float sum = 0;
    for (int i = -kNeighbours; i <= kNeighbours; ++i) sum += values[c + i] * values[c + i];
    const float root = std::sqrt(kOffset + kAlpha * sum);
    normalised[c] = values[c] / (root * std::sqrt(root));
  }
}

inline void pool(const PoolTask& task) {
  const Pool& layer = *task.layer;
  const std::ptrdiff_t in_plane = static_cast<std::ptrdiff_t>(layer.in_height) * layer.in_width * kBlock;
  const std::ptrdiff_t out_plane = static_cast<std::ptrdiff_t>(layer.out_height) * layer.out_width * kBlock;
  const int channels = layer.blocks * kBlock;
  float* pooled = task.scratch + kBlock;  // one pixel's channels with kBlock zeros around
  float* normalised = pooled + channels + kBlock;
  std::memset(task.scratch, 0, kBlock * sizeof(float));
  std::memset(pooled + channels, 0, kBlock * sizeof(float));
  for (int y = task.row_begin; y < task.row_end; ++y)
    for (int x = 0; x < layer.out_width; ++x) {
      float* to = task.out + (static_cast<std::ptrdiff_t>(y) * layer.out_width + x) * kBlock;
      for (int block = 0; block < layer.blocks; ++block)
        pool_pixel(layer, task.in + block * in_plane, y, x, layer.normalise ? pooled + block * kBlock : to + block * out_plane);
      if (!layer.normalise) continue;
      normalise(pooled, channels, normalised);
      for (int block = 0; block < layer.blocks; ++block)
        std::memcpy(to + block * out_plane, normalised + block * kBlock, kBlock * sizeof(float));
    }
}

}  // namespace deepsim::kernels::DEEPSIM_ISA
