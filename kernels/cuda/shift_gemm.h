// The matrix product behind every layer with weights (see layers.h): tiles of rows x columns, the input copied once for a
// chunk of channels with the rows that its taps reach, the weights once for each tap (or for all), both some steps ahead.
#pragma once

#include "epilogue.h"
#include "layers.h"
#include "tile.h"

namespace deepsim::cuda {

struct alignas(kRow) Four {
  float values[4];
};

// What may be broken on purpose, to see that the checks notice.
struct Correct {
  static constexpr bool barrier = true;
  static constexpr int lax = 0;              // groups of copies too many that may be under way
  static constexpr int missing_buffers = 0;  // of the input
  static constexpr bool barrier_before_staging = true, barrier_after_staging = true;  // of pixels
  static constexpr int early = 0;  // parts of a sum that are not waited for
};

// A thread's share of a warp's sums, as mma.m16n8k16 spreads them: sums[i][j][2 h + n] is row 16 i + 8 h + lane / 4, column
// 8 j + lane % 4 * 2 + n.
template <class T>
using Sums = float[T::warp_rows / 16][T::warp_columns / 8][4];

// sums += a b on tensor cores. a, b: a warp's first row and column in shared memory, plane by plane; a_rows: of a plane.
template <class T>
DEEPSIM_DEVICE void multiply_matrices(const unsigned char* a, int a_rows, const unsigned char* b, Sums<T>& sums) {
  const int lane = thread_index() % 32;
  a += (lane / 16 * a_rows + lane % 16) * kRow;
  b += (lane / 8 % 2 * T::columns + lane % 8 + lane / 16 * 8) * kRow;
  DEEPSIM_UNROLL
  for (int k = 0; k < T::planes; k += 2) {
    std::uint32_t left[T::warp_rows / 16][4], right[T::warp_columns / 16][4];
    DEEPSIM_UNROLL
    for (int i = 0; i < T::warp_rows / 16; ++i) load_matrices(left[i], a + (k * a_rows + i * 16) * kRow);
    DEEPSIM_UNROLL
    for (int j = 0; j < T::warp_columns / 16; ++j) load_matrices(right[j], b + (k * T::columns + j * 16) * kRow);
    DEEPSIM_UNROLL
    for (int i = 0; i < T::warp_rows / 16; ++i)
      DEEPSIM_UNROLL
      for (int j = 0; j < T::warp_columns / 8; ++j)
        multiply_add<typename T::Element>(sums[i][j], left[i], right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);
  }
}

// The same in fp32: each thread computes its own sums, channel by channel. Of eight lanes, which read 16 bytes each at once,
// four read the same row of a, the others its neighbour; and two each the same column of b, every second one of eight: all
// from different banks.
template <class T>
DEEPSIM_DEVICE void multiply_values(const unsigned char* a, int a_rows, const unsigned char* b, Sums<T>& sums) {
  const int lane = thread_index() % 32;
  a += lane / 4 * kRow;
  b += lane % 4 * 2 * kRow;
  DEEPSIM_NO_UNROLL  // or the operands of several planes fill the registers beside the sums
  for (int k = 0; k < T::planes; ++k) {
    Four left[T::warp_rows / 8];
    DEEPSIM_UNROLL
    for (int i = 0; i < T::warp_rows / 8; ++i)
      left[i] = shared_load(reinterpret_cast<const Four*>(a + (k * a_rows + i * 8) * kRow));
    DEEPSIM_UNROLL
    for (int j = 0; j < T::warp_columns / 4; ++j) {
      const Four right = shared_load(reinterpret_cast<const Four*>(b + (k * T::columns + j / 2 * 8 + j % 2) * kRow));
      DEEPSIM_UNROLL
      for (int i = 0; i < T::warp_rows / 8; ++i) {
        float& sum = sums[i / 2][j / 2][i % 2 * 2 + j % 2];
        DEEPSIM_UNROLL
        for (int c = 0; c < 4; ++c) sum = multiply_add(left[i].values[c], right.values[c], sum);
      }
    }
  }
}

// The steps of a product in order, chunk by chunk and tap by tap: where a step's input and weights are in shared memory.
// Where a step takes all taps of a chunk, `kernel` is 1 here.
struct Cursor {
  int left;                // steps
  int chunk, row, column;  // tap (row, column)
  int input, stage;        // buffers

  DEEPSIM_DEVICE bool first_tap() const { return row == 0 && column == 0; }
  DEEPSIM_DEVICE void advance(int kernel, int input_count, int stages) {
    --left;
    stage = stage + 1 == stages ? 0 : stage + 1;
    if (++column < kernel) return;
    column = 0;
    if (++row < kernel) return;
    row = 0;
    ++chunk;
    input = input + 1 == input_count ? 0 : input + 1;
  }
};

template <class T, class Policy>
struct Product {
  const ShiftGemm& layer;
  unsigned char* shared;
  int first_row, column_tile, group, split;
  int input_rows, input_bytes, input_count;
  const unsigned char* weights;  // of the next step, in the group's first unit of columns
  std::ptrdiff_t unit_size;
  int units;  // of a group

  DEEPSIM_DEVICE Product(const ShiftGemm& l, unsigned char* memory)
      : layer(l), shared(memory), first_row(first_row_of(l, T::rows)), column_tile(block_y()),
        group(block_z() / l.splits), split(block_z() % l.splits) {
    const int taps = l.kernel * l.kernel;
    input_rows = T::rows + l.span;
    input_bytes = T::planes * input_rows * kRow;
    input_count = T::input_buffers(taps, l.chunks_per_split) - Policy::missing_buffers;
    weights = l.weights + first_chunk() * taps * tap_size();
    unit_size = static_cast<std::ptrdiff_t>(l.chunks) * taps * tap_size();
    units = (l.columns + T::unit - 1) / T::unit;
  }

  DEEPSIM_DEVICE static constexpr int tap_size() { return T::planes * T::unit * kRow; }
  DEEPSIM_DEVICE int taps_of_step() const { return T::all_taps ? layer.kernel * layer.kernel : 1; }
  DEEPSIM_DEVICE void advance(Cursor& step) const { step.advance(T::all_taps ? 1 : layer.kernel, input_count, T::stages); }

  DEEPSIM_DEVICE int first_chunk() const { return split * layer.chunks_per_split; }
  DEEPSIM_DEVICE int chunk_count() const {
    const int left = layer.chunks - first_chunk();
    return left < layer.chunks_per_split ? left : layer.chunks_per_split;
  }
  DEEPSIM_DEVICE Cursor start() const {
    return {chunk_count() * T::steps(layer.kernel * layer.kernel), first_chunk(), 0, 0, 0, 0};
  }
  DEEPSIM_DEVICE unsigned char* input_at(int buffer) const { return shared + buffer * input_bytes; }
  DEEPSIM_DEVICE unsigned char* weights_at(int stage) const {
    return shared + (input_count + Policy::missing_buffers) * input_bytes + stage * taps_of_step() * T::weight_bytes;
  }

  DEEPSIM_DEVICE void copy_input(int chunk, unsigned char* to) const {
    const std::ptrdiff_t plane = group * layer.group_planes + chunk * T::planes;
    const unsigned char* from = layer.in + (plane * layer.in_plane + first_row + layer.first_shift) * kRow;
    DEEPSIM_UNROLL
    for (int p = 0; p < T::planes; ++p)
      for (int row = thread_index(); row < input_rows; row += T::threads)
        copy_async(to + (p * input_rows + row) * kRow, from + (static_cast<std::ptrdiff_t>(p) * layer.in_plane + row) * kRow);
  }

  // Where the layer has no more units of columns, the last one's are copied and never stored.
  DEEPSIM_DEVICE void copy_weights(unsigned char* to) const {
    if constexpr (T::all_taps) {  // a unit's lie together
      for (int i = thread_index(); i < taps_of_step() * T::weight_bytes / kRow; i += T::threads)
        copy_async(to + i * kRow, weights + group * units * unit_size + i * kRow);
    } else {
      DEEPSIM_UNROLL
      for (int i = thread_index(); i < T::weight_bytes / kRow; i += T::threads) {
        const int plane = i / T::columns, column = column_tile * T::columns + i % T::columns;
        const int unit = group * units + (column / T::unit < units ? column / T::unit : units - 1);
        copy_async(to + i * kRow, weights + unit * unit_size + (plane * T::unit + column % T::unit) * kRow);
      }
    }
  }

  // Start the copies of one step, and a group of copies whether there is a step left or not.
  DEEPSIM_DEVICE void fetch(Cursor& next) {
    if (next.left > 0) {
      if (next.first_tap()) copy_input(next.chunk, input_at(next.input));
      copy_weights(weights_at(next.stage));
      weights += taps_of_step() * tap_size();
      advance(next);
    }
    commit_copies();
  }

  // sums += the input at a tap's shift times the tap's weights.
  DEEPSIM_DEVICE void multiply_tap(const unsigned char* input, int shift, const unsigned char* tap, Sums<T>& sums) const {
    const int warp = thread_index() / 32;
    const unsigned char* a = input + (warp % T::warps_down * T::warp_rows + shift) * kRow;
    const unsigned char* b = tap + warp / T::warps_down * T::warp_columns * kRow;
    if constexpr (sizeof(typename T::Element::Bits) == 2) {
      multiply_matrices<T>(a, input_rows, b, sums);
    } else {
      multiply_values<T>(a, input_rows, b, sums);
    }
  }

  // The taps of a step.
  DEEPSIM_DEVICE void multiply(const Cursor& step, Sums<T>& sums) const {
    const unsigned char *input = input_at(step.input), *tap = weights_at(step.stage);
    if constexpr (T::all_taps) {
      for (int row = 0; row < layer.kernel; ++row)
        for (int column = 0; column < layer.kernel; ++column, tap += T::weight_bytes)
          multiply_tap(input, row * layer.pitch + column, tap, sums);
    } else {
      multiply_tap(input, step.row * layer.pitch + step.column, tap, sums);
    }
  }
};

template <class T, Store kStore, class Policy = Correct>
DEEPSIM_DEVICE void shift_gemm(const ShiftGemm& layer, unsigned char* shared) {
  Product<T, Policy> product(layer, shared);
  Sums<T> sums;
  DEEPSIM_UNROLL
  for (int i = 0; i < T::warp_rows / 16; ++i)
    DEEPSIM_UNROLL
    for (int j = 0; j < T::warp_columns / 8; ++j)
      DEEPSIM_UNROLL
      for (int k = 0; k < 4; ++k) sums[i][j][k] = 0.0f;
  Cursor step = product.start(), next = step;
  DEEPSIM_UNROLL
  for (int ahead = 0; ahead < T::stages - 1; ++ahead) product.fetch(next);
  while (step.left > 0) {
    wait_copies<T::stages - 2 + Policy::lax>();
    if (Policy::barrier) sync_block();
    product.fetch(next);
    product.multiply(step, sums);
    product.advance(step);
  }
  const int lane = thread_index() % 32, warp = thread_index() / 32;
  const int row = product.first_row + warp % T::warps_down * T::warp_rows + lane / 4;
  const int column = product.column_tile * T::columns + warp / T::warps_down * T::warp_columns + lane % 4 * 2;
  if (kStore == Store::pixels && Policy::barrier_before_staging) sync_block();  // no copy is under way any more
  constexpr int rows = T::warp_rows / 8, pairs = T::warp_columns / 8;
  using Element = typename T::Element;
  const Share share{product.group, product.split, column, product.first_row};
  const auto row_of_share = [&](int r) { return row + r * 8; };
  const auto sum = [&](int r, int j) { return Pair{sums[r / 2][j][r % 2 * 2], sums[r / 2][j][r % 2 * 2 + 1]}; };
  store<kStore, Element, rows, pairs>(layer, share, row_of_share, sum, shared);
  if (kStore == Store::pixels) {
    if (Policy::barrier_after_staging) sync_block();
    write_pixels<Element, T::rows, T::threads>(layer, shared, product.first_row);
  }
  if constexpr (kStore == Store::partial) {
    const int tile = (product.group * layer.column_tiles + product.column_tile) * layer.row_tiles + block_x();
    if (!last_to_be_ready(layer.ready + tile, layer.splits - Policy::early)) return;
    add_parts<rows, pairs>(layer, share, row_of_share, [&](int r, int j, int split, Pair part) {
      float* own = sums[r / 2][j] + r % 2 * 2;
      own[0] = split == 0 ? part.low : own[0] + part.low;
      own[1] = split == 0 ? part.high : own[1] + part.high;
    });
    if (layer.whole == Store::blocks) store_values<Store::blocks, Element, rows, pairs>(layer, share, row_of_share, sum);
    if (layer.whole == Store::shuffle) store_values<Store::shuffle, Element, rows, pairs>(layer, share, row_of_share, sum);
    if (layer.whole == Store::connected) store_values<Store::connected, Element, rows, pairs>(layer, share, row_of_share, sum);
  }
}

}  // namespace deepsim::cuda
