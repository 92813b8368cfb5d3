// How much of a product a block computes, and the shared memory that this takes.
#pragma once

#include "layers.h"

namespace deepsim::cuda {

DEEPSIM_HOST_DEVICE constexpr int smaller(int a, int b) { return a < b ? a : b; }

// A block's tile: Rows x Columns, each warp WarpRows x WarpColumns, Depth channels to a chunk, Stages steps in flight.
// A step is one tap of a chunk; where columns are so few that all of a chunk's weights are small, all its taps.
template <class Element_, int Rows, int Columns, int Depth, int WarpRows, int WarpColumns, int Stages>
struct Tile {
  using Element = Element_;
  static constexpr int rows = Rows, columns = Columns, depth = Depth, warp_rows = WarpRows, warp_columns = WarpColumns;
  static constexpr int stages = Stages, planes = Depth / kPlane<Element>;
  static constexpr int warps_down = Rows / WarpRows, warps_across = Columns / WarpColumns;
  static constexpr int threads = warps_down * warps_across * 32, residents = 1;  // blocks of a multiprocessor, at the least
  static constexpr bool all_taps = Columns == kColumns;  // in a step
  static constexpr int unit = all_taps ? kColumns : kUnit;  // of packed weights
  static constexpr bool matrices = sizeof(typename Element::Bits) == 2;  // multiplied by tensor cores
  static constexpr int weight_bytes = planes * Columns * kRow;  // of one tap
  // What all warps read of a tap's operands; in fp32, where lanes share what they read, half of what they get.
  static constexpr int warp_reads =
      planes == Depth / 8 ? (WarpRows + WarpColumns) * kRow : (WarpRows / 8 + WarpColumns / 4) * 16 * kRow;
  static constexpr int operand_bytes = warps_down * warps_across * planes * warp_reads;
  static_assert(WarpRows % 16 == 0 && WarpColumns % 16 == 0 && Depth % 16 == 0 && Stages >= 2);

  DEEPSIM_HOST_DEVICE static constexpr int steps(int taps) { return all_taps ? 1 : taps; }  // of a chunk
  // Buffers for chunks of input: two suffice where a chunk's steps outlast those in flight; and for the weights of steps.
  DEEPSIM_HOST_DEVICE static constexpr int input_buffers(int taps, int chunks) {
    return smaller(steps(taps) >= Stages - 1 ? 2 : Stages, chunks);
  }
  DEEPSIM_HOST_DEVICE static constexpr int weight_buffers(int taps, int chunks) {
    return smaller(Stages, steps(taps) * chunks);
  }
  DEEPSIM_HOST_DEVICE static constexpr int shared_bytes(int span, int taps, int chunks) {
    return input_buffers(taps, chunks) * planes * (Rows + span) * kRow +
           weight_buffers(taps, chunks) * (all_taps ? taps : 1) * weight_bytes;
  }
};

constexpr int kBarrierBytes = 256;  // at the start of shared memory on Hopper: 4 x 8 barriers

// A block's tile on Hopper: one or two warpgroups that multiply, 64 or 128 rows each, and a warp that copies. So few
// registers are left to a thread that several blocks share a multiprocessor, and one stores while another multiplies;
// for the tallest tile that is what its sums leave no room for.
template <class Element_, int Rows, int Columns, int Depth, int Stages>
struct HopperTile {
  using Element = Element_;
  static constexpr int rows = Rows, columns = Columns, depth = Depth, stages = Stages, planes = Depth / kPlane<Element>;
  static constexpr int matrices = Rows == 64 ? 1 : 2, consumers = Rows / 64 / matrices;  // of 64 rows, of a warpgroup
  static constexpr int threads = consumers * 128 + 32, residents = Rows == 64 ? 3 : Rows == 128 ? 2 : 1;
  static constexpr int weight_bytes = planes * Columns * kRow;  // of one step
  static constexpr int operand_bytes = Rows / 64 * (64 + Columns) * planes * kRow;  // of one step, of all warpgroups
  static constexpr bool all_taps = false;
  static_assert(Rows == 64 * matrices * consumers && Columns == kUnit && Depth % 16 == 0 && Stages >= 2 && Stages <= 8);

  // Buffers for chunks of input: what is being multiplied, and the chunks of as many steps as weights are ahead.
  DEEPSIM_HOST_DEVICE static constexpr int input_buffers(int taps, int chunks) {
    return smaller(smaller((Stages + taps - 1) / taps + 1, Stages), chunks);
  }
  DEEPSIM_HOST_DEVICE static constexpr int shared_bytes(int span, int taps, int chunks) {
    return kBarrierBytes + input_buffers(taps, chunks) * planes * (Rows + span) * kRow + Stages * weight_bytes;
  }
};

// Threads and pixels of the kernels without a product (passes.h).
constexpr int kPassThreads = 128, kPoolThreads = 128;

// A block of the pooling kernel takes as many output pixels as its threads have planes for; shared memory holds their
// channels in fp32 with four zeros on each side.
DEEPSIM_HOST_DEVICE constexpr int pool_pixels(int planes) { return planes >= kPoolThreads ? 1 : kPoolThreads / planes; }
DEEPSIM_HOST_DEVICE constexpr int pool_shared_bytes(int planes, int channels) {
  return pool_pixels(planes) * (channels + 8) * static_cast<int>(sizeof(float));
}

}  // namespace deepsim::cuda
