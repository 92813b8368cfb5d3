// What happens to the sums of a product: bias and activation, then where they go.
#pragma once

#include "device.h"
#include "layers.h"

namespace deepsim::cuda {

DEEPSIM_DEVICE bool lies_in(int index, int count) { return static_cast<unsigned>(index) < static_cast<unsigned>(count); }

// The first row of a block's tile of so many rows.
DEEPSIM_DEVICE int first_row_of(const ShiftGemm& layer, int tile_rows) {
  if (layer.by_image == 0) return block_x() * tile_rows;
  const int image = divide(block_x(), layer.image_tiles), tile = block_x() - image * layer.image_tiles.value;
  return image * layer.image_rows.value + layer.first_down * layer.pitch + tile * tile_rows;
}

// The window of a row of the product.
struct Window {
  int row, image, p, q;
  bool kept;

  DEEPSIM_DEVICE Window(const ShiftGemm& layer, int r) : row(r) {
    image = divide(r, layer.image_rows);
    const int rest = r - image * layer.image_rows.value;
    p = divide(rest, layer.grid_pitch);
    q = rest - p * layer.grid_pitch.value;
    kept = r < layer.rows && lies_in(p - layer.first_down, layer.windows_down) && lies_in(q - layer.first_across, layer.windows_across);
  }
};

DEEPSIM_DEVICE float activate(float value, float slope) { return value > 0.0f ? value : value * slope; }

// The bias of two neighbouring columns, the first even; zero where there are none.
DEEPSIM_DEVICE Pair bias_of(const ShiftGemm& layer, int group, int column) {
  if (column >= layer.columns) return {0.0f, 0.0f};
  return *reinterpret_cast<const Pair*>(layer.bias + group * layer.columns + column);
}

// Bias and activation of two neighbouring columns.
DEEPSIM_DEVICE Pair finish(Pair bias, float slope, Pair sum) {
  return {activate(sum.low + bias.low, slope), activate(sum.high + bias.high, slope)};
}

// Where the row that holds a channel of a pixel begins.
template <class Element>
DEEPSIM_DEVICE unsigned char* row_of(const Place& place, int image, int channel, int y, int x) {
  const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(channel / kColumns) * place.sixteen +
                             channel % kColumns / kPlane<Element> * place.plane +
                             static_cast<std::ptrdiff_t>(image) * place.image + y * place.y + x * place.x;
  return place.base + row * kRow;
}

// Store two neighbouring channels.
template <class Element>
DEEPSIM_DEVICE void put(unsigned char* at, Pair values) {
  *reinterpret_cast<typename Element::Two*>(at) = pack<Element>(values.low, values.high);
}

// One network value as a grey level.
DEEPSIM_DEVICE std::uint32_t level_of(const Levels& levels, int channel, float value) {
  if (levels.tanh255) value = 255.0f * hyperbolic_tangent(value);
  float level = quotient(value, levels.scale[channel]) + levels.mean[channel];
  level = level > 0.0f ? (level < 255.0f ? level : 255.0f) : 0.0f;
  return static_cast<std::uint32_t>(round_half_even(level));
}

// Keep two neighbouring columns as bytes in shared memory, [row of the tile][16].
DEEPSIM_DEVICE void keep_levels(const ShiftGemm& layer, int tile_row, int column, Pair value, unsigned char* shared) {
  if (column >= 3 * layer.phases) return;
  const std::uint32_t low = level_of(layer.levels, column % 3, value.low);
  const std::uint32_t high = level_of(layer.levels, (column + 1) % 3, value.high);
  shared_store(reinterpret_cast<std::uint16_t*>(shared + tile_row * kColumns + column),
               static_cast<std::uint16_t>(low | high << 8));
}

// What the encoder makes of grey level `level` of colour c of a photograph.
DEEPSIM_DEVICE float value_of_level(const PixelsIn& layer, int c, float level) { return (level - layer.mean[c]) * layer.scale[c]; }

// Hand a pixel of the crop to the encoder, as pixels_in does (passes.h). colour: 0 red, 1 green, 2 blue.
template <class Element>
DEEPSIM_DEVICE void hand_over(const PixelsIn& reader, Divisor stride, int image, int down, int across, int colour, std::uint8_t level) {
  const int c = reader.bgr ? 2 - colour : colour;
  const int y = divide(down + reader.pad, stride), x = divide(across + reader.pad, stride);
  if (y >= reader.out.height || x >= reader.out.width) return;  // pixels that no window of its first layer reaches
  const int phase = (down + reader.pad - y * stride.value) * stride.value + across + reader.pad - x * stride.value;
  const int channel = phase * 3 + c;
  auto* row = reinterpret_cast<typename Element::Bits*>(row_of<Element>(reader.out, image, channel, y, x));
  row[channel % kPlane<Element>] = static_cast<typename Element::Bits>(pack<Element>(value_of_level(reader, c, level), 0.0f));
}

// Write one byte of a pixel that lies in the crop.
template <class Element>
DEEPSIM_DEVICE void write_level(const ShiftGemm& layer, int image, int y, int x, int channel, std::uint8_t level) {
  const Levels& levels = layer.levels;
  const int down = y - levels.crop_top, across = x - levels.crop_left;
  if (!lies_in(y, levels.height) || !lies_in(x, levels.width)) return;
  if (!lies_in(down, levels.crop_side) || !lies_in(across, levels.crop_side)) return;
  const int colour = levels.red == 0 ? channel : 2 - channel;
  if (layer.reader.out.base != nullptr) {
    hand_over<Element>(layer.reader, layer.reader_stride, image, down, across, colour, level);
    return;
  }
  const std::ptrdiff_t pixel = (static_cast<std::ptrdiff_t>(image) * levels.crop_side + down) * levels.crop_side + across;
  layer.pixels[pixel * 3 + colour] = level;
}

// Write the bytes that keep_levels left: neighbouring threads write neighbouring windows of one row of pixels.
template <class Element, int Rows, int Threads>
DEEPSIM_DEVICE void write_pixels(const ShiftGemm& layer, const unsigned char* shared, int first_row) {
  const int half = layer.phases == 4 ? 2 : 1;  // rows of pixels, and pixels of a row, that a window gives
  for (int i = thread_index(); i < Rows * half; i += Threads) {
    const int tile_row = i % Rows, a = i / Rows;
    const Window window(layer, first_row + tile_row);
    if (!window.kept) continue;
    for (int pair = half * 3 - 1; pair >= 0; --pair) {  // phase b = 1 lies to the left of b = 0
      const int b = pair / 3, channel = pair % 3;
      const std::uint8_t level = shared_load(shared + tile_row * kColumns + (a * half + b) * 3 + channel);
      write_level<Element>(layer, window.image, half * window.p - a, half * window.q - b, channel, level);
    }
  }
}

// Where two neighbouring columns of a row are kept for one split.
DEEPSIM_DEVICE Pair& partial_sum(const ShiftGemm& layer, int split, int group, int row, int column) {
  const std::ptrdiff_t of_group = static_cast<std::ptrdiff_t>(split) * layer.groups + group;
  return *reinterpret_cast<Pair*>(layer.partial + (of_group * layer.rows + row) * layer.columns + column);
}

// Where the values of a row of the product go: Store::blocks, shuffle, connected.
struct RowOut {
  unsigned char* at;  // the first channel of pixel (p, q), or (2p, 2q)
  unsigned keeps;     // bit a: the pixels of row 2p - a are inside; bit 2 + b: those of column 2q - b

  template <Store kStore>
  DEEPSIM_DEVICE static RowOut of(const ShiftGemm& layer, const Window& window) {
    constexpr int size = kStore == Store::shuffle ? 2 : 1;
    const Place& out = layer.out;
    const int y = size * window.p, x = size * window.q;
    const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(window.image) * out.image + y * out.y + x * out.x;
    unsigned keeps = window.kept ? 0xf : 0;
    if (kStore == Store::shuffle && window.kept)
      keeps = (lies_in(y, out.height) ? 1 : 0) | (lies_in(y - 1, out.height) ? 2 : 0) | (lies_in(x, out.width) ? 4 : 0) |
              (lies_in(x - 1, out.width) ? 8 : 0);
    return {out.base + row * kRow, keeps};
  }
};

// Where 16 columns go, the index-th ones of all groups: they are 16 channels of a pixel.
struct SixteenOut {
  std::ptrdiff_t offset;  // bytes from RowOut::at
  unsigned needs;         // bits of RowOut::keeps

  template <Store kStore>
  DEEPSIM_DEVICE static SixteenOut of(const ShiftGemm& layer, int index) {
    const Place& out = layer.out;
    if (kStore == Store::shuffle) {
      const int a = index / 2 % 2, b = index % 2;
      const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(index / 4) * out.sixteen - a * out.y - b * out.x;
      return {row * kRow, 1u << a | 4u << b};
    }
    if (kStore == Store::connected) {
      const int block = divide(index, layer.out_pixels), pixel = index - block * layer.out_pixels.value;
      const int y = divide(pixel, layer.out_width), x = pixel - y * layer.out_width.value;
      const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(block) * out.sixteen + y * out.y + x * out.x;
      return {row * kRow, 1};
    }
    return {static_cast<std::ptrdiff_t>(index) * out.sixteen * kRow, 1};
  }
};

// Where an even one of 16 channels lies, in bytes from the first.
template <class Element>
DEEPSIM_DEVICE std::ptrdiff_t offset_of(const Place& place, int channel) {
  return static_cast<std::ptrdiff_t>(channel / kPlane<Element>) * place.plane * kRow +
         channel % kPlane<Element> * static_cast<int>(sizeof(typename Element::Bits));
}

// What a thread's sums are of: columns `column` + 8 j of the group, which is even, and the next.
struct Share {
  int group, split, column;
  int first_row;  // of the block's tile
};

// Bias, activation and the store of a thread's sums as values of 16 bits or fp32. row(r): the r-th row of the product;
// sum(r, j): its pair of columns j. Biases are loaded some columns ahead.
template <Store kStore, class Element, int kRows, int kPairs, class RowOf, class SumOf>
DEEPSIM_DEVICE void store_values(const ShiftGemm& layer, const Share& share, const RowOf& row, const SumOf& sum) {
  constexpr int ahead = kPairs < 8 ? kPairs : 8;
  RowOut rows[kRows];
  Pair next[ahead];
  DEEPSIM_UNROLL
  for (int j = 0; j < ahead; ++j) next[j] = bias_of(layer, share.group, share.column + j * 8);
  DEEPSIM_UNROLL
  for (int r = 0; r < kRows; ++r) rows[r] = RowOut::of<kStore>(layer, Window(layer, row(r)));
  const std::ptrdiff_t within = offset_of<Element>(layer.out, share.column % kColumns), eight = offset_of<Element>(layer.out, 8);
  DEEPSIM_UNROLL
  for (int j = 0; j < kPairs; j += 2) {
    const int column = share.column + j * 8;
    if (column >= layer.columns) return;
    const Pair low = next[j % ahead], high = next[j % ahead + 1];
    if (j + ahead < kPairs) next[j % ahead] = bias_of(layer, share.group, column + ahead * 8);
    if (j + ahead < kPairs) next[j % ahead + 1] = bias_of(layer, share.group, column + ahead * 8 + 8);
    const auto to = SixteenOut::of<kStore>(layer, (share.group * layer.columns + column) / kColumns);
    DEEPSIM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      if ((to.needs & ~rows[r].keeps) != 0) continue;
      unsigned char* at = rows[r].at + to.offset + within;
      put<Element>(at, finish(low, layer.slope, sum(r, j)));
      put<Element>(at + eight, finish(high, layer.slope, sum(r, j + 1)));
    }
  }
}

// Store a thread's sums to where the layer wants them; a part's where the others' are, see add_parts.
template <Store kStore, class Element, int kRows, int kPairs, class RowOf, class SumOf>
DEEPSIM_DEVICE void store(const ShiftGemm& layer, const Share& share, const RowOf& row, const SumOf& sum, unsigned char* shared) {
  if constexpr (kStore != Store::partial && kStore != Store::pixels) {
    store_values<kStore, Element, kRows, kPairs>(layer, share, row, sum);
  } else {
    DEEPSIM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      if (!Window(layer, row(r)).kept) continue;
      DEEPSIM_UNROLL
      for (int j = 0; j < kPairs; ++j) {
        const int column = share.column + j * 8;
        if (column >= layer.columns) break;
        if constexpr (kStore == Store::partial) {
          partial_sum(layer, share.split, share.group, row(r), column) = sum(r, j);
        } else {
          const Pair bias = bias_of(layer, share.group, column);
          keep_levels(layer, row(r) - share.first_row, column, finish(bias, layer.slope, sum(r, j)), shared);
        }
      }
    }
  }
}

// The parts of a thread's sums in their order, whichever was ready first: add(r, j, split, part) for every one.
template <int kRows, int kPairs, class RowOf, class Add>
DEEPSIM_DEVICE void add_parts(const ShiftGemm& layer, const Share& share, const RowOf& row, const Add& add) {
  const int columns = (layer.columns - share.column + 7) / 8;  // of this thread, at most
  bool kept[kRows];
  DEEPSIM_UNROLL
  for (int r = 0; r < kRows; ++r) kept[r] = Window(layer, row(r)).kept;
  for (int split = 0; split < layer.splits; ++split)
    DEEPSIM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      if (!kept[r]) continue;
      const Pair* parts = &partial_sum(layer, split, share.group, row(r), share.column);
      DEEPSIM_UNROLL
      for (int j = 0; j < kPairs; ++j)
        if (j < columns) add(r, j, split, load_fresh(parts + j * 4));
    }
}

}  // namespace deepsim::cuda
