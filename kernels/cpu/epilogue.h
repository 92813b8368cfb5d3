// What happens to a tile of sums before it is stored: bias, activation, pixel shuffle, or conversion to RGB.
#pragma once

#include <algorithm>
#include <cmath>

#include "vector.h"

namespace deepsim::kernels::DEEPSIM_ISA {

// Where kLanes neighbouring columns go: the blocked output at their channels, phase (a, b) and bias applied.
struct ColumnTarget {
  float* base;
  Vector bias;
  int factor, down, across;  // phase (a, b) is that many rows and columns from window (p, q)

  ColumnTarget(const Convolution& layer, float* image, int group, int column)
      : bias(load(layer.bias + group * layer.columns + column)), factor(layer.store == Store::shuffle ? 2 : 1) {
    const int block = group * (layer.columns / kBlock) + column / kBlock;
    const int phase = factor == 2 ? block % 4 : 0;
    down = layer.sign * (phase / 2);
    across = layer.sign * (phase % 2);
    const std::ptrdiff_t plane = static_cast<std::ptrdiff_t>(layer.out_height) * layer.out_width * kBlock;
    base = image + (factor == 2 ? block / 4 : block) * plane + column % kBlock;
  }

  // Store window (p, q) if its pixel is inside of the output.
  DEEPSIM_INLINE void put(const Convolution& layer, int p, int q, Vector sum) const {
    const int y = factor * p + down, x = factor * q + across;
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

typedef std::int32_t IntegerVector __attribute__((vector_size(kLanes * sizeof(std::int32_t))));
typedef std::uint8_t ByteVector __attribute__((vector_size(kLanes)));

// What turns the columns [column, column + 16) of network values into grey levels.
struct LevelScale {
  float mean[kBlock] = {}, scale[kBlock];

  LevelScale(const Pixels& pixels, int column) {
    for (int i = 0; i < kBlock; ++i) {
      mean[i] = pixels.mean[(column + i) % 3];
      scale[i] = pixels.scale[(column + i) % 3];
    }
  }
};

DEEPSIM_INLINE void put_levels(Vector level, float* levels) { store(levels, level); }

// Clipped to 0..255 and rounded half to even (by adding and subtracting 1.5 * 2^23).
DEEPSIM_INLINE void put_levels(Vector level, std::uint8_t* levels) {
  constexpr float whole = 12582912.0f;
  level = level > 0.0f ? level : Vector{};
  level = level < 255.0f ? level : broadcast(255.0f);
  level = (level + whole) - whole;
  const ByteVector bytes = __builtin_convertvector(__builtin_convertvector(level, IntegerVector), ByteVector);
  std::memcpy(levels, &bytes, sizeof bytes);
}

DEEPSIM_INLINE Vector tanh255(Vector values) {
  for (int i = 0; i < kLanes; ++i) values[i] = tanh255(values[i]);
  return values;
}

// Write the columns [column, column + width) of windows (p, q .. q + rows) of one image as RGB: Level is uint8 or fp32.
template <class Level>
void put_pixels(const Convolution& layer, Level* image, int p, int q, int rows, int column, int width, const float* sums) {
  const Pixels& pixels = layer.pixels;
  const LevelScale scales(pixels, column);
  Level levels[kRows * kColumns];
  for (int row = 0; row < rows; ++row)
    for (int j = 0; j < width; j += kLanes) {
      Vector value = activate(load(sums + row * width + j) + load(layer.bias + column + j), layer.slope);
      if (pixels.tanh255) value = tanh255(value);
      put_levels(value / load(scales.scale + j) + load(scales.mean + j), levels + row * width + j);
    }
  const int bottom = std::min(pixels.height - pixels.crop_top, pixels.crop_side);
  const int right = std::min(pixels.width - pixels.crop_left, pixels.crop_side);
  for (int i = 0; i < std::min(12 - column, width); ++i) {
    const int phase = (column + i) / 3, channel = (column + i) % 3;
    const int down = 2 * p + layer.sign * (phase / 2) - pixels.crop_top;
    const int across = 2 * q + layer.sign * (phase % 2) - pixels.crop_left;
    if (down < 0 || down >= bottom) continue;
    const int begin = across < 0 ? (1 - across) / 2 : 0, end = std::min(rows, (right - across + 1) / 2);
    Level* to = image + (static_cast<std::ptrdiff_t>(down) * pixels.crop_side + across) * 3;
    to += pixels.bgr ? 2 - channel : channel;
    for (int row = begin; row < end; ++row) to[row * 6] = levels[row * width + i];
  }
}

}  // namespace deepsim::kernels::DEEPSIM_ISA
