// What happens to a tile of sums before it is stored: bias, activation, pixel shuffle, or conversion to uint8 RGB.
#pragma once

#include <cmath>

#include "vector.h"

namespace deepsim::kernels::DEEPSIM_ISA {

// Where kLanes neighbouring columns go: the blocked output at their channels, phase (a, b) and bias applied.
struct ColumnTarget {
  float* base;
  Vector bias;
  int factor, a, b;

  ColumnTarget(const Convolution& layer, float* image, int group, int column)
      : bias(load(layer.bias + group * layer.columns + column)), factor(layer.store == Store::shuffle ? 2 : 1) {
    const int block = group * (layer.columns / kBlock) + column / kBlock;
    const int phase = factor == 2 ? block % 4 : 0;
    a = phase / 2;
    b = phase % 2;
    const std::ptrdiff_t plane = static_cast<std::ptrdiff_t>(layer.out_height) * layer.out_width * kBlock;
    base = image + (factor == 2 ? block / 4 : block) * plane + column % kBlock;
  }

  // Store window (p, q) if its pixel is inside of the output.
  DEEPSIM_INLINE void put(const Convolution& layer, int p, int q, Vector sum) const {
    const int y = factor * p - a, x = factor * q - b;
    const bool inside = static_cast<unsigned>(y) < static_cast<unsigned>(layer.out_height) &&
                        static_cast<unsigned>(x) < static_cast<unsigned>(layer.out_width);
    if (inside) {
      store(base + (static_cast<std::ptrdiff_t>(y) * layer.out_width + x) * kBlock, activate(sum + bias, layer.slope));
    }
  }
};

// exp(x) for |x| <= 40 to about 1e-7: 2^n e^r with |r| <= ln(2) / 2 and the Taylor series of e^r up to r^7.
DEEPSIM_INLINE float exponential(float x) {
  const float n = std::nearbyint(x * 1.44269504f);
  float r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  float e = 1.0f / 5040;
  const float coefficients[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
#pragma GCC unroll 8
  for (float c : coefficients) e = e * r + c;
  const std::int32_t bits = (static_cast<std::int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return e * power;
}

// 255 tanh(x), absolute error about 3e-5 of a grey level.
DEEPSIM_INLINE float tanh255(float x) {
  const float bounded = x > 10.0f ? 10.0f : (x < -10.0f ? -10.0f : x);
  return 255.0f - 510.0f / (exponential(2.0f * bounded) + 1.0f);
}

inline void to_levels(const Convolution& layer, const float* sums, const float* bias, int count, int first,
                      float* levels) {
  const Pixels& pixels = layer.pixels;
  for (int i = 0; i < count; ++i) {
    const int channel = (first + i) % 3;
    float value = sums[i] + bias[i];
    value = (value > 0.0f ? value : 0.0f) + layer.slope * (value < 0.0f ? value : 0.0f);
    value = pixels.tanh255 ? tanh255(value) : value;
    value = std::nearbyint(value / pixels.scale[channel] + pixels.mean[channel]);
    levels[i] = value > 255.0f ? 255.0f : (value > 0.0f ? value : 0.0f);
  }
}

// Write the columns [column, column + width) of windows (p, q .. q + rows) of one image as uint8 RGB.
inline void put_pixels(const Convolution& layer, std::uint8_t* image, int p, int q, int rows, int column, int width,
                       const float* sums) {
  const Pixels& pixels = layer.pixels;
  const int used = 12 - column < width ? 12 - column : width;
  for (int row = 0; row < rows; ++row) {
    float levels[kBlock];
    to_levels(layer, sums + row * width, layer.bias + column, used, column, levels);
    for (int i = 0; i < used; ++i) {
      const int phase = (column + i) / 3, channel = (column + i) % 3;
      const int y = 2 * p + pixels.sign * (phase / 2), x = 2 * (q + row) + pixels.sign * (phase % 2);
      const int down = y - pixels.crop_top, across = x - pixels.crop_left;
      const bool inside = y < pixels.height && x < pixels.width && down >= 0 && down < pixels.crop_side &&
                          across >= 0 && across < pixels.crop_side;
      const std::ptrdiff_t at = (static_cast<std::ptrdiff_t>(down) * pixels.crop_side + across) * 3;
      if (inside) image[at + (pixels.bgr ? 2 - channel : channel)] = static_cast<std::uint8_t>(levels[i]);
    }
  }
}

}  // namespace deepsim::kernels::DEEPSIM_ISA
