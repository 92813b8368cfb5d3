// Winograd's minimal filtering (Lavin & Gray 2016, arXiv 1509.09308): F(4x4, 3x3) and F(2x2, 5x5) for 3x3 and 5x5
// convolutions, F(3x3, 2x2) for the 2x2 windows of up-convolutions. Two kernels: one transforms tiles, the other
// multiplies them position by position as matrices and transforms back with bias, activation and pixel shuffle.
#pragma once

#include <algorithm>

#include "epilogue.h"
#include "gemm.h"

namespace deepsim::kernels::DEEPSIM_ISA {

// F(3, 2), points 0, 1, -1, infinity.
struct Winograd32 {
  static constexpr int tile = 4, outputs = 3;
  DEEPSIM_INLINE static void input(const Vector* d, Vector* o) {
    o[0] = d[0] - d[2];
    o[1] = d[1] + d[2];
    o[2] = d[2] - d[1];
    o[3] = d[3] - d[1];
  }
  DEEPSIM_INLINE static void output(const Vector* m, Vector* y) {
    const Vector sum = m[1] + m[2];
    y[0] = m[0] + sum;
    y[1] = m[1] - m[2];
    y[2] = sum + m[3];
  }
};

// F(4, 3) at the points 0, a, -a, b, -b and infinity, a and b being kWinogradPoints.
struct Winograd43 {
  static constexpr int tile = 6, outputs = 4;
  static constexpr float a = kWinogradPoints[0], b = kWinogradPoints[1], a2 = a * a, b2 = b * b;
  DEEPSIM_INLINE static void input(const Vector* d, Vector* o) {
    const Vector even_a = d[4] - b2 * d[2], odd_a = a * (d[3] - b2 * d[1]);
    const Vector even_b = d[4] - a2 * d[2], odd_b = b * (d[3] - a2 * d[1]);
    o[0] = a2 * b2 * d[0] - (a2 + b2) * d[2] + d[4];
    o[1] = even_a + odd_a;
    o[2] = even_a - odd_a;
    o[3] = even_b + odd_b;
    o[4] = even_b - odd_b;
    o[5] = a2 * b2 * d[1] - (a2 + b2) * d[3] + d[5];
  }
  DEEPSIM_INLINE static void output(const Vector* m, Vector* y) {
    const Vector sum_a = m[1] + m[2], difference_a = m[1] - m[2];
    const Vector sum_b = m[3] + m[4], difference_b = m[3] - m[4];
    y[0] = m[0] + sum_a + sum_b;
    y[1] = a * difference_a + b * difference_b;
    y[2] = a2 * sum_a + b2 * sum_b;
    y[3] = a * a2 * difference_a + b * b2 * difference_b + m[5];
  }
};

// F(2, 5): the points of F(4, 3), and so the same tile and input transform.
struct Winograd25 : Winograd43 {
  static constexpr int outputs = 2;
  DEEPSIM_INLINE static void output(const Vector* m, Vector* y) {
    y[0] = m[0] + (m[1] + m[2]) + (m[3] + m[4]);
    y[1] = a * (m[1] - m[2]) + b * (m[3] - m[4]) + m[5];
  }
};

// Transform one tile's kLanes channels: read [tile][tile] pixels, write position i * tile + j to to[position * step].
template <class F>
DEEPSIM_INLINE void transform_input(const float* from, std::ptrdiff_t row, float* to, std::ptrdiff_t step) {
  Vector columns[F::tile][F::tile];
#pragma GCC unroll 6
  for (int x = 0; x < F::tile; ++x) {
    Vector d[F::tile], o[F::tile];
#pragma GCC unroll 6
    for (int y = 0; y < F::tile; ++y) d[y] = load(from + y * row + x * kBlock);
    F::input(d, o);
#pragma GCC unroll 6
    for (int y = 0; y < F::tile; ++y) columns[y][x] = o[y];
  }
#pragma GCC unroll 6
  for (int y = 0; y < F::tile; ++y) {
    Vector o[F::tile];
    F::input(columns[y], o);
#pragma GCC unroll 6
    for (int x = 0; x < F::tile; ++x) store(to + (y * F::tile + x) * step, o[x]);
  }
}

// Transform one tile's sums back: read position i * tile + j at from[position * step], give [outputs][outputs].
template <class F>
DEEPSIM_INLINE void transform_output(const float* from, std::ptrdiff_t step, Vector (*result)[F::outputs]) {
  Vector columns[F::outputs][F::tile];
#pragma GCC unroll 6
  for (int x = 0; x < F::tile; ++x) {
    Vector m[F::tile], y[F::outputs];
#pragma GCC unroll 6
    for (int i = 0; i < F::tile; ++i) m[i] = load(from + (i * F::tile + x) * step);
    F::output(m, y);
#pragma GCC unroll 6
    for (int i = 0; i < F::outputs; ++i) columns[i][x] = y[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < F::outputs; ++i) F::output(columns[i], result[i]);
}

// Where tile `index` of a task's numbering lies.
struct TilePlace {
  int image, p, q;  // the image, and the first window

  TilePlace(const Convolution& layer, const TileRange& range, int index) {
    image = index / range.count();
    const int across = range.column_end - range.column_begin, rest = index % range.count();
    p = (range.row_begin + rest / across) * layer.winograd;
    q = (range.column_begin + rest % across) * layer.winograd;
  }
};

// A tile of one block at the border of the image, completed with zeros: [tile][tile][16].
template <class F>
void copy_border_tile(const Convolution& layer, const float* plane, int top, int left, float* to) {
  for (int y = top; y < top + F::tile; ++y)
    for (int x = left; x < left + F::tile; ++x, to += kBlock) {
      const bool inside = y >= 0 && y < layer.in_height && x >= 0 && x < layer.in_width;
      const std::ptrdiff_t at = (static_cast<std::ptrdiff_t>(y) * layer.in_width + x) * kBlock;
      for (int k = 0; k < kBlock; ++k) to[k] = inside ? plane[at + k] : 0.0f;
    }
}

// Fill transformed[position][block][tile][16] for the tiles and blocks of the task.
template <class F>
void transform_tiles(const ConvolutionTask& task) {
  const Convolution& layer = *task.layer;
  const TileRange range = tile_range(layer);
  const int tiles = task.tile_end - task.tile_begin;
  const std::ptrdiff_t plane = static_cast<std::ptrdiff_t>(layer.in_height) * layer.in_width * kBlock;
  const std::ptrdiff_t step = static_cast<std::ptrdiff_t>(layer.in_blocks) * tiles * kBlock;
  alignas(64) float border[F::tile * F::tile * kBlock];
  for (int t = 0; t < tiles; ++t) {
    const TilePlace place(layer, range, task.tile_begin + t);
    const int top = place.p - layer.pad, left = place.q - layer.pad;
    const bool inside = top >= 0 && left >= 0 && top + F::tile <= layer.in_height && left + F::tile <= layer.in_width;
    const float* image = task.in + place.image * layer.in_image() + task.group * layer.in_blocks * plane;
    for (int block = task.block_begin; block < task.block_end; ++block) {
      const float* from = image + block * plane + (static_cast<std::ptrdiff_t>(top) * layer.in_width + left) * kBlock;
      std::ptrdiff_t row = static_cast<std::ptrdiff_t>(layer.in_width) * kBlock;
      if (!inside) {
        copy_border_tile<F>(layer, image + block * plane, top, left, border);
        from = border;
        row = F::tile * kBlock;
      }
      float* to = task.transformed + (static_cast<std::ptrdiff_t>(block) * tiles + t) * kBlock;
      for (int lane = 0; lane < kBlock; lane += kLanes) transform_input<F>(from + lane, row, to + lane, step);
    }
  }
}

// Transform the products of one column tile back and store them.
template <class F>
void put_tiles(const ConvolutionTask& task, const float* products, int column, int width) {
  const Convolution& layer = *task.layer;
  const TileRange range = tile_range(layer);
  const int tiles = task.tile_end - task.tile_begin;
  for (int t = 0; t < tiles; ++t) {
    const TilePlace place(layer, range, task.tile_begin + t);
    float* image = static_cast<float*>(task.out) + place.image * layer.out_image();
    const int rows = std::min(F::outputs, layer.row_end - place.p);
    const int across = std::min(F::outputs, layer.column_end - place.q);
    for (int j = 0; j < width; j += kLanes) {
      const ColumnTarget target(layer, image, task.group, column + j);
      Vector result[F::outputs][F::outputs];
      transform_output<F>(products + static_cast<std::ptrdiff_t>(t) * width + j, static_cast<std::ptrdiff_t>(tiles) * width,
                          result);
      for (int y = 0; y < rows; ++y)
        for (int x = 0; x < across; ++x) target.put(layer, place.p + y, place.q + x, result[y][x]);
    }
  }
}

template <class F>
void multiply_tiles(const ConvolutionTask& task) {
  const Convolution& layer = *task.layer;
  constexpr int positions = F::tile * F::tile;
  const int tiles = task.tile_end - task.tile_begin;
  const std::ptrdiff_t depth = static_cast<std::ptrdiff_t>(layer.in_blocks) * kBlock;
  auto* steps = reinterpret_cast<std::ptrdiff_t*>(task.scratch);
  float* products = task.scratch + 2 * ((layer.in_blocks + kBlock - 1) / kBlock * kBlock);
  for (int block = 0; block < layer.in_blocks; ++block) steps[block] = static_cast<std::ptrdiff_t>(block) * tiles * kBlock;
  const int rows = balanced_rows(tiles);
  for (int tile = task.column_tile_begin; tile < task.column_tile_end; ++tile) {
    const int width = tile_width(layer.columns, tile);
    const float* weights =
        layer.weights + (static_cast<std::ptrdiff_t>(task.group) * layer.columns + tile * kColumns) * depth * positions;
    for (int position = 0; position < positions; ++position, weights += depth * width)
      for (int t = 0; t < tiles; t += rows) {
        const int count = std::min(rows, tiles - t);
        const float* a = task.transformed + position * depth * tiles + static_cast<std::ptrdiff_t>(t) * kBlock;
        float* c = products + (static_cast<std::ptrdiff_t>(position) * tiles + t) * width;
        register_tile_for<float>(count, width)(a, steps, layer.in_blocks, weights, c, false);
      }
    put_tiles<F>(task, products, tile * kColumns, width);
  }
}

inline void winograd_transform(const ConvolutionTask& task) {
  if (task.layer->kernel == 2) {
    transform_tiles<Winograd32>(task);
  } else {
    transform_tiles<Winograd43>(task);
  }
}

inline void winograd_multiply(const ConvolutionTask& task) {
  if (task.layer->kernel == 2) {
    multiply_tiles<Winograd32>(task);
  } else if (task.layer->kernel == 3) {
    multiply_tiles<Winograd43>(task);
  } else {
    multiply_tiles<Winograd25>(task);
  }
}

}  // namespace deepsim::kernels::DEEPSIM_ISA
