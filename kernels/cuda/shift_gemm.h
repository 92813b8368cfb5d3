// The matrix product behind every layer with weights (see layers.h): tiles of rows x columns, the input copied once for a
// chunk of channels with the rows that its taps reach, the weights once for each tap (or for all), both some steps ahead.
#pragma once

#include "epilogue.h"
#include "layers.h"
#include "tile.h"

namespace deepsim::cuda {

// What may be broken on purpose, to see that the checks notice.
struct Correct {
  static constexpr bool barrier = true;
  static constexpr int lax = 0;              // groups of copies too many that may be under way
  static constexpr int missing_buffers = 0;  // of the input
  static constexpr bool barrier_before_staging = true, barrier_after_staging = true;  // of pixels
  static constexpr int early = 0;  // parts of a sum that are not waited for
  static constexpr bool waits_for_earlier = true, waits_late = false;  // late: when the first input is already read
  static constexpr bool weights_first = kStartsEarly;  // before any input, see fetch_first
  static constexpr bool through_registers = !kCopiesBeside;  // weights, where no copy goes on beside the computation
};

// A thread's share of a warp's sums, as mma.m16n8k16 spreads them: sums[i][j][2 h + n] is row 16 i + 8 h + lane / 4, column
// 8 j + lane % 4 * 2 + n.
template <class T>
using Sums = float[T::warp_rows / 16][T::warp_columns / 8][4];

// Bytes from a warp's first row, or first column, in shared memory to where this thread begins to read; a_rows: of a plane.
template <class T>
DEEPSIM_DEVICE int left_of_lane(int a_rows) {
  const int lane = thread_index() % 32;
  return (T::matrices ? lane / 16 * a_rows + lane % 16 : lane / 4) * kRow;
}
template <class T>
DEEPSIM_DEVICE int right_of_lane() {
  const int lane = thread_index() % 32;
  return (T::matrices ? lane / 8 % 2 * T::columns + lane % 8 + lane / 16 * 8 : lane % 4 * 2) * kRow;
}

// sums += a b on tensor cores, plane by plane from where this thread begins.
template <class T>
DEEPSIM_DEVICE void multiply_matrices(SharedBytes a, int a_rows, SharedBytes b, Sums<T>& sums) {
  DEEPSIM_UNROLL
  for (int k = 0; k < T::planes; k += 2) {
    std::uint32_t left[T::warp_rows / 16][4], right[T::warp_columns / 16][4];
    DEEPSIM_UNROLL
    for (int i = 0; i < T::warp_rows / 16; ++i) load_matrices(left[i], a + (k * a_rows + i * 16) * kRow);
    DEEPSIM_UNROLL
    for (int j = 0; j < T::warp_columns / 16; ++j) load_matrices(right[j], b + (k * T::columns + j * 16) * kRow);
    DEEPSIM_UNROLL
    for (int i = 0; i < T::warp_rows / 16; ++i) DEEPSIM_UNROLL
    for (int j = 0; j < T::warp_columns / 8; ++j)
      multiply_add<typename T::Element>(sums[i][j], left[i], right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);
  }
}

// The same in fp32: each thread computes its own sums, channel by channel. Of eight lanes, which read 16 bytes each at once,
// four read the same row of a, the others its neighbour; and two each the same column of b, every second one of eight: all
// from different banks.
template <class T>
DEEPSIM_DEVICE void multiply_values(SharedBytes a, int a_rows, SharedBytes b, Sums<T>& sums) {
  DEEPSIM_NO_UNROLL  // or the operands of several planes fill the registers beside the sums
      for (int k = 0; k < T::planes; ++k) {
    Four left[T::warp_rows / 8];
    DEEPSIM_UNROLL
    for (int i = 0; i < T::warp_rows / 8; ++i) left[i] = load_four(a + (k * a_rows + i * 8) * kRow);
    DEEPSIM_UNROLL
    for (int j = 0; j < T::warp_columns / 4; ++j) {
      const Four right = load_four(b + (k * T::columns + j / 2 * 8 + j % 2) * kRow);
      DEEPSIM_UNROLL
      for (int i = 0; i < T::warp_rows / 8; ++i) {
        float& sum = sums[i / 2][j / 2][i % 2 * 2 + j % 2];
        DEEPSIM_UNROLL
        for (int c = 0; c < 4; ++c) sum = multiply_add(left[i].values[c], right.values[c], sum);
      }
    }
  }
}

// What a thread copies next, chunk by chunk and tap by tap: where from, and to which of the buffers.
struct Next {
  int left, taps;  // steps; those of the chunk whose input is copied
  int input, stage;
  const unsigned char *input_from, *weights_from;
};

// Addresses are kept and moved on from step to step: to compute them anew would take longer than a step's multiplications.
template <class T, class Policy>
struct Product {
  const ShiftGemm& layer;
  SharedBytes shared;
  int first_row, column_tile, group, split;
  int steps_of_chunk, taps_of_step, input_rows, input_count, stages_at;
  int left_at, right_at;  // where this thread begins to read the buffers of a step

  DEEPSIM_DEVICE Product(const ShiftGemm& l, unsigned char* memory)
      : layer(l),
        shared(in_shared(memory)),
        first_row(first_row_of(l, T::rows, block_x())),
        column_tile(block_y()),
        group(block_z() / l.splits),
        split(block_z() % l.splits) {
    const int taps = l.kernel * l.kernel, warp = thread_index() / 32;
    steps_of_chunk = T::steps(taps);
    taps_of_step = T::all_taps ? taps : 1;
    input_rows = T::rows + l.span;
    const int buffers = T::input_buffers(taps, l.chunks_per_split);
    input_count = buffers - Policy::missing_buffers;
    stages_at = buffers * input_bytes();
    left_at = warp % T::warps_down * T::warp_rows * kRow + left_of_lane<T>(input_rows);
    right_at = stages_at + warp / T::warps_down * T::warp_columns * kRow + right_of_lane<T>();
  }

  DEEPSIM_DEVICE int input_bytes() const { return T::planes * input_rows * kRow; }
  DEEPSIM_DEVICE int stage_bytes() const { return taps_of_step * T::weight_bytes; }
  DEEPSIM_DEVICE int after_input(int buffer) const {
    return buffer + input_bytes() == input_count * input_bytes() ? 0 : buffer + input_bytes();
  }
  DEEPSIM_DEVICE int after_stage(int buffer) const {
    return buffer + stage_bytes() == T::stages * stage_bytes() ? 0 : buffer + stage_bytes();
  }

  DEEPSIM_DEVICE Next start() const {
    const int first = split * layer.chunks_per_split, taps = layer.kernel * layer.kernel, thread = thread_index();
    const std::ptrdiff_t plane = static_cast<std::ptrdiff_t>(layer.in_plane) * kRow;
    const unsigned char* input = layer.in + (group * layer.group_planes + first * T::planes) * plane +
                                 static_cast<std::ptrdiff_t>(first_row + layer.first_shift + thread) * kRow;
    const int units = (layer.columns + T::unit - 1) / T::unit, column = column_tile * T::columns;
    const std::ptrdiff_t chunk = static_cast<std::ptrdiff_t>(taps) * T::planes * T::unit * kRow;  // of a unit's weights
    const std::ptrdiff_t unit = group * units + column / T::unit;
    const unsigned char* weights = layer.weights + (unit * layer.chunks + first) * chunk;
    weights += T::all_taps ? thread * kRow : (column % T::unit + thread % T::columns + thread / T::columns * T::unit) * kRow;
    return {chunks_of(layer, split) * steps_of_chunk, steps_of_chunk, 0, 0, input, weights};
  }

  // A chunk's input: each thread some rows of all planes.
  DEEPSIM_DEVICE void copy_input(const unsigned char* from, SharedBytes to) const {
    const std::ptrdiff_t plane = static_cast<std::ptrdiff_t>(layer.in_plane) * kRow;
    to += thread_index() * kRow;
    DEEPSIM_NO_UNROLL
    for (int row = thread_index(); row < input_rows; row += T::threads, from += T::threads * kRow, to += T::threads * kRow)
      DEEPSIM_UNROLL
    for (int p = 0; p < T::planes; ++p) copy_async(to + p * input_rows * kRow, from + p * plane);
  }

  // A step's weights: each thread a column of some planes; where they lie together, as they come.
  static constexpr int planes_at_once = T::threads / T::columns;
  DEEPSIM_DEVICE bool copies_weights() const {
    static_assert(T::threads % T::columns == 0 && T::unit % T::columns == 0);
    return planes_at_once <= T::planes || thread_index() / T::columns < T::planes;
  }
  DEEPSIM_DEVICE void copy_weights(const unsigned char* from, SharedBytes to) const {
    to += thread_index() * kRow;
    if constexpr (T::all_taps) {
      constexpr int all = T::threads * kRow;
      DEEPSIM_NO_UNROLL
      for (int at = thread_index() * kRow; at < stage_bytes(); at += all, from += all, to += all) copy_async(to, from);
    } else if (copies_weights()) {
      DEEPSIM_UNROLL
      for (int p = 0; p < T::planes; p += planes_at_once) copy_async(to + p * T::columns * kRow, from + p * T::unit * kRow);
    }
  }

  DEEPSIM_DEVICE void fetch_weights(Next& next) const {
    copy_weights(next.weights_from, shared + stages_at + next.stage);
    to_next_weights(next);
  }
  DEEPSIM_DEVICE void to_next_weights(Next& next) const {
    next.weights_from += taps_of_step * T::planes * T::unit * kRow;
    next.stage = after_stage(next.stage);
  }

  // What a step needs beside its weights, if it is the first of a chunk.
  DEEPSIM_DEVICE void fetch_input(Next& next) const {
    if (next.taps == steps_of_chunk) {
      copy_input(next.input_from, shared + next.input);
      next.input_from += static_cast<std::ptrdiff_t>(T::planes) * layer.in_plane * kRow;
      next.input = after_input(next.input);
      next.taps = 0;
    }
    ++next.taps;
    --next.left;
  }

  // Start the copies of one step, and a group of copies whether there is a step left or not.
  DEEPSIM_DEVICE void fetch(Next& next) const {
    if (next.left > 0) {
      fetch_weights(next);
      fetch_input(next);
    }
    commit_copies();
  }

  // The weights of a step on their way through registers: loaded before another step's multiplications, which take longer,
  // and stored behind them.
  struct Held {
    Sixteen pieces[(T::planes + planes_at_once - 1) / planes_at_once];
    SharedBytes to;
    bool any;
  };

  // fetch, but for what is held.
  DEEPSIM_DEVICE Held fetch_held(Next& next) const {
    Held held;
    held.any = next.left > 0 && copies_weights();
    held.to = shared + stages_at + next.stage + thread_index() * kRow;
    if (held.any) {
      DEEPSIM_UNROLL
      for (int p = 0; p < T::planes; p += planes_at_once)
        held.pieces[p / planes_at_once] = load_sixteen(next.weights_from + p * T::unit * kRow);
    }
    if (next.left > 0) {
      to_next_weights(next);
      fetch_input(next);
    }
    commit_copies();
    return held;
  }
  DEEPSIM_DEVICE void land(const Held& held) const {
    if (!held.any) return;
    DEEPSIM_UNROLL
    for (int p = 0; p < T::planes; p += planes_at_once)
      store_sixteen(held.to + p * T::columns * kRow, held.pieces[p / planes_at_once]);
  }

  // The same of the steps that are ahead when the first one is multiplied. Where kernels start early, the weights of all come
  // before any input, while the kernel before is still at work.
  DEEPSIM_DEVICE void fetch_first(Next& next) const {
    DEEPSIM_UNROLL
    for (int ahead = 0; ahead < T::stages - 1; ++ahead)
      if (Policy::weights_first && ahead < next.left) fetch_weights(next);
    if (Policy::waits_for_earlier && !Policy::waits_late) wait_for_earlier();
    let_later_start();
    DEEPSIM_UNROLL
    for (int ahead = 0; ahead < T::stages - 1; ++ahead) {
      if (!Policy::weights_first && next.left > 0) fetch_weights(next);
      if (next.left > 0) fetch_input(next);
      commit_copies();
    }
    if (Policy::waits_late) wait_for_earlier();
  }

  // sums += the input from a tap's first row on times the tap's weights.
  DEEPSIM_DEVICE void multiply_tap(SharedBytes left, SharedBytes right, Sums<T>& sums) const {
    if constexpr (T::matrices) {
      multiply_matrices<T>(left, input_rows, right, sums);
    } else {
      multiply_values<T>(left, input_rows, right, sums);
    }
  }

  // Wait for a step's copies, start those of a later one into buffers that all have read, and multiply.
  DEEPSIM_DEVICE void step(Next& next, SharedBytes left, int stage, Sums<T>& sums) const {
    wait_copies<T::stages - 2 + Policy::lax>();
    if (Policy::barrier) sync_block();
    SharedBytes right = shared + right_at + stage;
    if constexpr (T::all_taps) {
      fetch(next);
      DEEPSIM_NO_UNROLL
      for (int row = 0; row < layer.kernel; ++row, left += (layer.pitch - layer.kernel) * kRow) DEEPSIM_NO_UNROLL
      for (int column = 0; column < layer.kernel; ++column, left += kRow, right += T::weight_bytes)
        multiply_tap(left, right, sums);
    } else if constexpr (Policy::through_registers) {
      const Held held = fetch_held(next);
      multiply_tap(left, right, sums);
      land(held);
    } else {
      fetch(next);
      multiply_tap(left, right, sums);
    }
  }

  DEEPSIM_DEVICE void multiply(Sums<T>& sums) const {
    Next next = start();
    fetch_first(next);
    const int kernel = T::all_taps ? 1 : layer.kernel;
    int input = 0, stage = 0;
    for (int chunk = chunks_of(layer, split); chunk > 0; --chunk, input = after_input(input)) {
      SharedBytes left = shared + left_at + input;
      for (int row = 0; row < kernel; ++row, left += (layer.pitch - kernel) * kRow)
        for (int column = 0; column < kernel; ++column, left += kRow, stage = after_stage(stage)) step(next, left, stage, sums);
    }
  }

  // The first of this thread's columns (see Share).
  DEEPSIM_DEVICE int first_column(bool pixels) const {
    const int lane = thread_index() % 32, across = thread_index() / 32 / T::warps_down;
    if (pixels) return lane % 4 * 2;
    if (T::warp_columns == 16) return column_tile * T::columns + across / 2 * kRuns + across % 2 * 4 + lane % 4 * 8;
    return column_tile * T::columns + across * T::warp_columns + lane % 4 * 8;
  }
};

template <class T, Store kStore, class Policy = Correct>
DEEPSIM_DEVICE void shift_gemm(const ShiftGemm& layer, unsigned char* shared) {
  const Product<T, Policy> product(layer, shared);
  Sums<T> sums;
  DEEPSIM_UNROLL
  for (int i = 0; i < T::warp_rows / 16; ++i) DEEPSIM_UNROLL
  for (int j = 0; j < T::warp_columns / 8; ++j) DEEPSIM_UNROLL
  for (int k = 0; k < 4; ++k) sums[i][j][k] = 0.0f;
  product.multiply(sums);
  const int lane = thread_index() % 32, warp = thread_index() / 32;
  const int row = product.first_row + warp % T::warps_down * T::warp_rows + lane / 4;
  constexpr int rows = T::warp_rows / 8, pairs = T::warp_columns / 8;
  using Element = typename T::Element;
  const Share share{product.group, product.split, product.first_column(kStore == Store::pixels || kStore == Store::levels)};
  const auto row_of_share = [&](int r) { return row + r * 8; };
  const auto sums_of_share = [&](int r, int j) { return sums[r / 2][j] + r % 2 * 2; };
  if constexpr (kStore == Store::pixels) {
    if (Policy::barrier_before_staging) sync_block();  // no copy is under way any more
    stage_pixels<T::rows, rows, pairs>(
        layer, share, [&](int r) { return row + r * 8 - product.first_row; }, sums_of_share, shared);
    if (Policy::barrier_after_staging) sync_block();
    write_pixels<Element, T::rows, T::threads>(layer, shared, product.first_row);
  } else if constexpr (kStore == Store::levels) {
    store_levels<rows, pairs>(layer, share, row_of_share, sums_of_share);
  } else if constexpr (kStore == Store::partial) {
    store_part<rows, pairs>(layer, share, row_of_share, sums_of_share);
    if (!last_to_be_ready(ready_of(layer, product.group, product.column_tile), layer.splits - Policy::early)) return;
    add_parts<rows, pairs>(layer, share, row_of_share, sums_of_share);
    store_whole<Element, rows, pairs>(layer, share, row_of_share, sums_of_share);
  } else {
    store_values<kStore, Element, rows, pairs>(layer, share, row_of_share, sums_of_share);
  }
}

}  // namespace deepsim::cuda
