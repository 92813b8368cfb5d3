// Direct convolution as a shift-GEMM: the input of some rows is copied once with its zero border, then every tap of
// every window is the same matrix read at a constant shift.
#pragma once

#include <algorithm>

#include "epilogue.h"
#include "gemm.h"

namespace deepsim::kernels::DEEPSIM_ISA {

// The copied part of the input: [image][block][height][width][16], zeros where the image has no pixel.
struct Patch {
  int top, left, height, width;  // in input pixels; top and left may be negative

  Patch(const Convolution& layer, int row_begin, int row_end)
      : top(row_begin * layer.window_stride - layer.pad),
        left(layer.column_begin * layer.window_stride - layer.pad),
        height((row_end - row_begin - 1) * layer.window_stride + layer.kernel),
        width((layer.windows_across() - 1) * layer.window_stride + layer.kernel) {}

  std::ptrdiff_t plane() const { return static_cast<std::ptrdiff_t>(height) * width * kBlock; }
};

inline void copy_row(const Convolution& layer, const Patch& patch, const float* plane, int y, float* to) {
  const int begin = std::clamp(-patch.left, 0, patch.width);
  const int end = std::clamp(layer.in_width - patch.left, begin, patch.width);
  const bool inside = y >= 0 && y < layer.in_height;
  const int filled_begin = inside ? begin : patch.width, filled_end = inside ? end : patch.width;
  std::memset(to, 0, static_cast<std::size_t>(filled_begin) * kBlock * sizeof(float));
  if (filled_end > filled_begin) {
    const std::ptrdiff_t at = (static_cast<std::ptrdiff_t>(y) * layer.in_width + patch.left + filled_begin) * kBlock;
    std::memcpy(to + filled_begin * kBlock, plane + at,
                static_cast<std::size_t>(filled_end - filled_begin) * kBlock * sizeof(float));
  }
  std::memset(to + filled_end * kBlock, 0, static_cast<std::size_t>(patch.width - filled_end) * kBlock * sizeof(float));
}

inline void copy_patch(const ConvolutionTask& task, const Patch& patch, float* to) {
  const Convolution& layer = *task.layer;
  const std::ptrdiff_t plane = static_cast<std::ptrdiff_t>(layer.in_height) * layer.in_width * kBlock;
  for (int image = 0; image < task.images; ++image) {
    const float* from = task.in + (task.image_begin + image) * layer.in_image() + task.group * layer.in_blocks * plane;
    for (int block = 0; block < layer.in_blocks; ++block)
      for (int y = 0; y < patch.height; ++y, to += static_cast<std::ptrdiff_t>(patch.width) * kBlock)
        copy_row(layer, patch, from + block * plane, patch.top + y, to);
  }
}

// The shift of every (block, tap), in the order of the packed weights.
inline void fill_steps(const Convolution& layer, const Patch& patch, std::ptrdiff_t* steps) {
  for (int block = 0; block < layer.in_blocks; ++block)
    for (int r = 0; r < layer.kernel; ++r)
      for (int s = 0; s < layer.kernel; ++s)
        *steps++ = block * patch.plane() + (static_cast<std::ptrdiff_t>(r) * patch.width + s) * kBlock;
}

inline void put_tile(const ConvolutionTask& task, int image, int p, int q, int rows, int column, int width, const float* sums) {
  const Convolution& layer = *task.layer;
  if (layer.store == Store::pixels) {
    const std::ptrdiff_t size = static_cast<std::ptrdiff_t>(layer.pixels.crop_side) * layer.pixels.crop_side * 3;
    if (layer.pixels.raw)
      return put_pixels(layer, static_cast<float*>(task.out) + image * size, p, q, rows, column, width, sums);
    return put_pixels(layer, static_cast<std::uint8_t*>(task.out) + image * size, p, q, rows, column, width, sums);
  }
  for (int j = 0; j < width; j += kLanes) {
    const ColumnTarget target(layer, static_cast<float*>(task.out) + image * layer.out_image(), task.group, column + j);
    for (int i = 0; i < rows; ++i) target.put(layer, p, q + i, load(sums + i * width + j));
  }
}

inline void convolve(const ConvolutionTask& task) {
  const Convolution& layer = *task.layer;
  const Patch patch(layer, task.row_begin, task.row_end);
  const int step_count = layer.in_blocks * layer.kernel * layer.kernel;
  auto* steps = reinterpret_cast<std::ptrdiff_t*>(task.scratch);
  float* copied = task.scratch + 2 * ((step_count + kBlock - 1) / kBlock * kBlock);
  fill_steps(layer, patch, steps);
  copy_patch(task, patch, copied);
  const int rows = balanced_rows(layer.windows_across());
  const auto tile_for = layer.window_stride == 1 ? register_tile_for<float, 1> : register_tile_for<float, 2>;
  alignas(64) float sums[kRows * kColumns];
  const std::ptrdiff_t depth = static_cast<std::ptrdiff_t>(step_count) * kBlock;
  for (int tile = task.column_tile_begin; tile < task.column_tile_end; ++tile) {
    const int width = tile_width(layer.columns, tile);
    const float* weights = layer.weights + (static_cast<std::ptrdiff_t>(task.group) * layer.columns + tile * kColumns) * depth;
    for (int image = 0; image < task.images; ++image)
      for (int p = task.row_begin; p < task.row_end; ++p)
        for (int q = layer.column_begin; q < layer.column_end; q += rows) {
          const int count = std::min(rows, layer.column_end - q);
          const std::ptrdiff_t down = static_cast<std::ptrdiff_t>(p - task.row_begin) * layer.window_stride;
          const std::ptrdiff_t across = static_cast<std::ptrdiff_t>(q - layer.column_begin) * layer.window_stride;
          const float* a = copied + image * layer.in_blocks * patch.plane() + (down * patch.width + across) * kBlock;
          tile_for(count, width)(a, steps, step_count, weights, sums, false);
          put_tile(task, task.image_begin + image, p, q, count, tile * kColumns, width, sums);
        }
  }
}

}  // namespace deepsim::kernels::DEEPSIM_ISA
