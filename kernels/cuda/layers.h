// What the CUDA kernels are told of a layer: plain structs, passed by value. Host and device share them.
//
// Activations are in planes of as many channels as take 16 bytes, eight of 16 bits or four of fp32: [C/8][rows][8] or
// [C/4][rows][4], with a row for every pixel of the padded grids of all images. A grid is (height + pad) x (width + pad)
// with its zeros below and to the right, so the zeros to the left are the end of the row before; in front of the first
// image lies a guard of zero rows. Every tap of a convolution is then the same matrix, read at a constant shift of rows.
// Where a layer reads its input as one vector ("flat"), the channels of a pixel are planes too: with p planes to 16
// channels, plane ((C/16) pixels + pixel) p + C%16 / (16/p), one row for each image.
#pragma once

#include "types.h"

namespace deepsim::cuda {

constexpr int kRow = 16;      // bytes of a row of a plane
constexpr int kColumns = 16;  // columns come in multiples of this, as do channels
constexpr int kUnit = 128;    // columns whose packed weights lie together, or the 16 of a last layer
constexpr int kRuns = 32;     // columns in whose packed weights a thread's sums are neighbours

// The column whose weights are in a place of a unit: place 8 j + 2 t + i of every 32 is of column 8 t + 2 j + i. A matrix
// instruction gives thread t of four the sums of places 8 j + 2 t + i, so of eight columns side by side: 16 bytes of 16-bit
// values. A last layer's 16 columns are in their order.
DEEPSIM_HOST_DEVICE constexpr int column_at(int place) {
  return place / kRuns * kRuns + place % 8 / 2 * 8 + place % kRuns / 8 * 2 + place % 2;
}

// Channels that lie together.
template <class Element>
constexpr int kPlane = kRow / static_cast<int>(sizeof(typename Element::Bits));

// What happens to the sums of a product.
enum class Store {
  blocks,     // window (p, q) is pixel (p, q)
  shuffle,    // columns (channels / 16, phase (a, b), channel % 16): window (p, q) gives pixel (2p - a, 2q - b)
  connected,  // a fully connected layer: rows are images, columns (channels / 16, pixel, channel % 16)
  pixels,     // uint8 RGB; columns (phase, channel)
  levels,     // the same before they are rounded, in fp32
  partial,    // in parts, which the last block of a tile to be ready adds and stores as one of the first three
};

// Where a plane of pixel (y, x) of an image lies, in rows from `base`.
struct Place {
  unsigned char* base = nullptr;
  int sixteen = 0, plane = 0;  // rows for every 16 channels; for every plane of them
  int image = 0, y = 0, x = 0;
  int height = 0, width = 0;
};

// What network values become as uint8 RGB: value / scale + mean, rounded half to even, clipped.
struct Levels {
  float mean[3] = {}, scale[3] = {};
  int scaled = 0;          // 1: some scale is not 1
  int red = 0;             // column of a pixel that is written first: 0, or 2 for BGR
  int tanh255 = 0;         // 1: 255 tanh(value) first
  int crop_top = 0, crop_left = 0, crop_side = 0;
};

// uint8 RGB (n, side, side, 3) to network values after space-to-depth by `stride`: channel (dy stride + dx) 3 + c.
struct PixelsIn {
  const std::uint8_t* in = nullptr;
  Place out;
  int images = 0, side = 0, stride = 1, pad = 0, bgr = 0;
  float mean[3] = {}, scale[3] = {};
  Divisor planes;       // of a pixel of the result
  Divisor area, width;  // of the result
  Divisor row_channels; // of a row dy: 3 stride
};

// A matrix product: rows are windows of the padded grid (or images), columns are outputs, summed over
// chunks of channels and the taps of each.
struct ShiftGemm {
  const unsigned char* in = nullptr;       // first row of image 0, plane 0
  const unsigned char* weights = nullptr;  // [group][unit of columns][chunk][tap][plane of the chunk][place][channel]
  const float* bias = nullptr;             // [group][columns]
  Place out;                               // Store::blocks, shuffle, connected
  std::uint8_t* pixels = nullptr;          // Store::pixels; Store::levels: of fp32
  PixelsIn reader;                         // Store::pixels: where out.base is set, who reads the crop's grey levels instead
  Divisor reader_stride;
  float* partial = nullptr;                // sums of splits, [split][group][row][column]
  unsigned* ready = nullptr;               // of every tile, how many of its splits are; 0 before and after
  Levels levels;
  int in_plane = 0;      // rows of a plane
  int group_planes = 0;  // planes of a group's input
  int rows = 0;          // of the product
  int first_shift = 0;   // rows from a window's first tap to its own row, at most 0
  int span = 0;          // rows from its first tap to its last
  int pitch = 1, kernel = 1;
  int first_down = 0, first_across = 0, windows_down = 0, windows_across = 0;  // windows whose result is kept
  int by_image = 0;      // 1: tiles start anew in each image, at the first windows that are kept; 0: they run on
  Divisor image_tiles;   // of an image, where they start anew
  int chunks = 1;        // of the group's channels
  int chunks_per_split = 1, splits = 1;
  Store whole = Store::blocks;  // how the sum of splits is stored
  Divisor row_tiles, column_tiles;  // of a group
  int tiles = 1, blocks = 1;    // of all groups; that take them in turns, where a block takes more than one
  int columns = 0;       // of a group
  int groups = 1;
  int phases = 1;        // Store::pixels, levels: 4 where a window gives a 2x2 block, else 1
  float slope = 1;       // of the activation below zero
  Divisor image_rows;    // of a padded grid
  Divisor grid_pitch;
  Divisor image_lines;   // rows of windows of a padded grid
  Divisor out_pixels, out_width;  // Store::connected: of the map that the columns are
};

// Max-pooling without padding, then optionally local response normalisation over five channels.
struct Pool {
  Place in, out;
  int images = 0;
  Divisor planes;       // of a pixel
  Divisor area, width;  // of the result
  int kernel = 1, stride = 1;
  int normalise = 0;
};

// Space-to-depth by `stride`: channel (dy stride + dx) C + c, C a multiple of 16.
struct SpaceToDepth {
  Place in, out;
  int images = 0, planes = 0, stride = 1, pad = 0;
};

// fp32 (n, C, H, W) to or from planes.
struct Features {
  float* plain = nullptr;
  Place place;
  int images = 0, channels = 0;
};

// Features on the straight line from one to another: out[i] is that of step first + i.
struct Line {
  const float *start = nullptr, *end = nullptr;
  float* out = nullptr;
  int size = 0, first = 0, count = 0, steps = 2;
};

}  // namespace deepsim::cuda
