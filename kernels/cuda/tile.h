// How much of a product a block computes, and the shared memory that this takes.
#pragma once

#include "layers.h"

namespace deepsim::cuda {

// A block's tile: Rows x Columns, each warp WarpRows x WarpColumns, Depth channels to a chunk, Stages steps in flight.
template <class Element_, int Rows, int Columns, int Depth, int WarpRows, int WarpColumns, int Stages>
struct Tile {
  using Element = Element_;
  static constexpr int rows = Rows, columns = Columns, depth = Depth, warp_rows = WarpRows, warp_columns = WarpColumns;
  static constexpr int stages = Stages, planes = Depth / kPlane<Element>;
  static constexpr int warps_down = Rows / WarpRows, warps_across = Columns / WarpColumns;
  static constexpr int threads = warps_down * warps_across * 32;
  static constexpr int weight_bytes = planes * Columns * kRow;  // of one step
  static constexpr int unit = Columns < kUnit ? Columns : kUnit;
  static_assert(WarpRows % 16 == 0 && WarpColumns % 16 == 0 && Depth % 16 == 0 && Stages >= 2);
};

// Buffers for chunks of input: two suffice where a chunk's taps outlast the steps in flight.
DEEPSIM_HOST_DEVICE constexpr int input_buffers(int taps, int stages) { return taps >= stages - 1 ? 2 : stages; }

DEEPSIM_HOST_DEVICE constexpr int shared_bytes(int rows, int span, int planes, int taps, int stages, int weight_bytes) {
  return input_buffers(taps, stages) * planes * (rows + span) * kRow + stages * weight_bytes;
}

// A block's tile on Hopper: 64 rows for each warpgroup that multiplies, one warpgroup more that copies.
template <class Element_, int Rows, int Columns, int Depth, int Stages>
struct HopperTile {
  using Element = Element_;
  static constexpr int rows = Rows, columns = Columns, depth = Depth, stages = Stages, planes = Depth / kPlane<Element>;
  static constexpr int consumers = Rows / 64, threads = (consumers + 1) * 128;
  static constexpr int weight_bytes = planes * Columns * kRow;  // of one step
  static_assert(Rows % 64 == 0 && Columns % kUnit == 0 && Depth % 16 == 0 && Stages >= 2 && Stages <= 8);
};

constexpr int kBarrierBytes = 256;  // at the start of shared memory: 4 x 8 barriers

// Buffers for chunks of input there: what is being multiplied, and the chunks of as many steps as weights are ahead.
DEEPSIM_HOST_DEVICE constexpr int hopper_input_buffers(int taps, int stages) {
  const int ahead = (stages + taps - 1) / taps;
  return ahead + 1 < stages ? ahead + 1 : stages;
}

DEEPSIM_HOST_DEVICE constexpr int hopper_shared_bytes(int rows, int span, int planes, int taps, int stages, int weight_bytes) {
  return kBarrierBytes + hopper_input_buffers(taps, stages) * planes * (rows + span) * kRow + stages * weight_bytes;
}

// Threads and pixels of the kernels without a product (passes.h).
constexpr int kPassThreads = 128, kPoolThreads = 128;

// A block of the pooling kernel takes as many output pixels as its threads have planes for; shared memory holds their
// channels in fp32 with four zeros on each side.
DEEPSIM_HOST_DEVICE constexpr int pool_pixels(int planes) { return planes >= kPoolThreads ? 1 : kPoolThreads / planes; }
DEEPSIM_HOST_DEVICE constexpr int pool_shared_bytes(int planes, int channels) {
  return pool_pixels(planes) * (channels + 8) * static_cast<int>(sizeof(float));
}

}  // namespace deepsim::cuda
