// The CPU kernels as the session sees them: plain structs that describe a layer, and one table of functions for each
// instruction set. kernels.cpp is compiled once per set; nothing here depends on which.
//
// Activations are fp32 in blocked layout, one image after the other: [C/16][H][W][16], channels padded with zeros to a
// multiple of 16. A feature vector is the same with H = W = 1, that is, plain.
#pragma once

#include <cstddef>
#include <cstdint>

namespace deepsim::kernels {

constexpr int kBlock = 16;      // channels that lie together
constexpr int kDepthBlocks = 16;  // blocks of inputs in a piece of a fully connected layer
constexpr int kMaxWinograd = 6;  // side of the largest Winograd tile

// Winograd's algorithm with tiles of 6 interpolates at 0, these two with either sign, and infinity. Their squares and the
// squares' products are exact in float32, and the error is less than half of that of the customary 1 and 2.
constexpr float kWinogradPoints[2] = {0.625f, 1.5f};

inline int blocks_of(int channels) { return (channels + kBlock - 1) / kBlock; }

// How the columns of a convolution's matrix product become an output.
enum class Store {
  blocks,   // column = output channel; window (p, q) is pixel (p, q)
  shuffle,  // column = (channel block, a, b, channel % 16); window (p, q) writes pixel (2p + sign a, 2q + sign b)
  pixels,   // columns 0..11 = (a, b, channel); RGB, see Pixels
};

// Network values to uint8 RGB: value / scale + mean, rounded half to even, clipped. Window (p, q) with phase (a, b) is
// pixel (2p + sign a, 2q + sign b) of the whole image; the crop [offset, offset + side) of it is written.
struct Pixels {
  float mean[3], scale[3];  // in the network's channel order
  bool bgr = false;         // the network's channel order is BGR
  bool tanh255 = false;     // apply 255 tanh(x) first
  bool raw = false;         // write fp32, neither rounded nor clipped, instead of uint8
  int height = 0, width = 0;       // of the whole image
  int crop_top = 0, crop_left = 0;  // first pixel that is written
  int crop_side = 0;               // written rows and columns; also the pitch of the result in pixels
};

// A stride-1 convolution in blocked layout, or what was rewritten into one: up-convolutions (Store::shuffle),
// space-to-depth convolutions, the last layer (Store::pixels; window_stride 2 when it stacks 2x2 pixels).
struct Convolution {
  int groups = 1;
  int in_blocks = 0;  // per group
  int in_height = 0, in_width = 0;
  int kernel = 1;         // k x k taps
  int pad = 0;            // zeros above and left of the input; below and right as the windows need
  int window_stride = 1;  // 1 or 2
  int columns = 0;        // per group, a multiple of 16
  int row_begin = 0, row_end = 0;        // windows that are computed (the others' outputs are left as they are)
  int column_begin = 0, column_end = 0;  // the same, across
  const float* weights = nullptr;        // packed, see pack.h
  const float* bias = nullptr;           // groups * columns
  float slope = 1;                       // of the activation below zero: 1 none, 0 ReLU, 0.3 or 0.2 LeakyReLU
  Store store = Store::blocks;
  int sign = 0;  // where a window gives 2x2 outputs: 1 when they begin at (2p, 2q), -1 when they end there; else 0
  int out_blocks = 0, out_height = 0, out_width = 0;  // of the whole output, all groups
  int winograd = 0;  // 0: direct; else the outputs m of F(m x m, k x k) per tile
  Pixels pixels{};

  int windows_down() const { return row_end - row_begin; }
  int windows_across() const { return column_end - column_begin; }
  std::ptrdiff_t in_image() const { return static_cast<std::ptrdiff_t>(groups) * in_blocks * in_height * in_width * kBlock; }
  std::ptrdiff_t out_image() const { return static_cast<std::ptrdiff_t>(out_blocks) * out_height * out_width * kBlock; }
};

// What one thread computes of a convolution at a time. Direct: the windows of rows [row_begin, row_end) of `images`
// images. Winograd: tiles [tile_begin, tile_end) of those of all images, in row-major order per image.
struct ConvolutionTask {
  const Convolution* layer = nullptr;
  const float* in = nullptr;
  void* out = nullptr;  // float, or uint8 with Store::pixels unless raw
  int image_begin = 0, images = 0;
  int row_begin = 0, row_end = 0;
  int tile_begin = 0, tile_end = 0;
  int block_begin = 0, block_end = 0;  // of 16 input channels, for winograd_transform
  float* transformed = nullptr;        // Winograd: [position][block][tile][16] of the task's tiles
  int group = 0;
  int column_tile_begin = 0, column_tile_end = 0;  // of KernelTable::tile_columns columns each
  float* scratch = nullptr;
};

// y = activation(W x + b) for a batch, weights packed as [columns / tile][inputs / 16][16][tile].
struct FullyConnected {
  int in_blocks = 0;
  int columns = 0;  // a multiple of 16
  const void* weights = nullptr;  // float or, with `half`, IEEE binary16
  bool half = false;
  const float* bias = nullptr;
  float slope = 1;
};

struct FullyConnectedTask {
  const FullyConnected* layer = nullptr;
  const float* panel = nullptr;  // [inputs / 16][rows][16]
  float* out = nullptr;          // [rows][columns]
  int rows = 0;
  int column_tile_begin = 0, column_tile_end = 0;
  float* scratch = nullptr;
};

// Max-pooling without padding, then optionally local response normalisation over 5 channels.
struct Pool {
  int blocks = 0, channels = 0;
  int in_height = 0, in_width = 0, out_height = 0, out_width = 0;
  int kernel = 1, stride = 1;
  bool normalise = false;
};

struct PoolTask {
  const Pool* layer = nullptr;
  const float* in = nullptr;  // of one image
  float* out = nullptr;
  int row_begin = 0, row_end = 0;
  float* scratch = nullptr;
};

struct KernelTable {
  const char* name;
  int tile_columns;  // columns of a register tile: the unit of packed weights
  int tile_rows;     // its largest number of rows
  int lanes;         // floats of a vector
  void (*convolve)(const ConvolutionTask&);
  void (*winograd_transform)(const ConvolutionTask&);
  void (*winograd_multiply)(const ConvolutionTask&);
  void (*fully_connected)(const FullyConnectedTask&);
  void (*pool)(const PoolTask&);
  float (*multiply_add)(long rounds);  // `chains` vectors a round
  int chains;
};

// Scratch in floats that a task needs.
std::size_t convolve_scratch(const KernelTable&, const Convolution&, int images, int rows);
std::size_t winograd_scratch(const KernelTable&, const Convolution&, int tiles);
std::size_t winograd_transformed(const Convolution&, int tiles);  // floats of ConvolutionTask::transformed
std::size_t fully_connected_scratch(const KernelTable&, int rows);
std::size_t pool_scratch(const Pool&);

// Winograd's tiles of one image: down and across, anchored at window 0 whatever part is computed.
struct TileRange {
  int row_begin, row_end, column_begin, column_end;
  int count() const { return (row_end - row_begin) * (column_end - column_begin); }
};
TileRange tile_range(const Convolution&);

// The instruction sets that this library was built with and that this processor has, best first; ends in nullptr.
const KernelTable* const* available_kernels();

}  // namespace deepsim::kernels
