// What happens to the sums of a product: bias and activation, then where they go.
#pragma once

#include "device.h"
#include "layers.h"

namespace deepsim::cuda {

enum class Store {
  blocks,     // window (p, q) is pixel (p, q)
  shuffle,    // columns (channels / 16, phase (a, b), channel % 16): window (p, q) gives pixel (2p - a, 2q - b)
  connected,  // a fully connected layer: rows are images, columns (channels / 16, pixel, channel % 16)
  pixels,     // uint8 RGB; columns (phase, channel)
  partial,    // sums of one split, which add_splits sums and stores as one of the first three
};

// The window of a row of the product.
struct Window {
  int row, image, p, q;
  bool kept;

  DEEPSIM_DEVICE Window(const ShiftGemm& layer, int r) : row(r) {
    image = divide(r, layer.image_rows);
    const int rest = r - image * layer.image_rows.value;
    p = divide(rest, layer.grid_pitch);
    q = rest - p * layer.grid_pitch.value;
    kept = r < layer.rows && p < layer.windows_down && q < layer.windows_across;
  }
};

DEEPSIM_DEVICE float activate(float value, float slope) { return value > 0.0f ? value : value * slope; }

// The bias of two neighbouring columns, the first even; zero where there are none, or where it is added later.
template <Store kStore>
DEEPSIM_DEVICE Pair bias_of(const ShiftGemm& layer, int group, int column) {
  if (kStore == Store::partial || column >= layer.columns) return {0.0f, 0.0f};
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

// Store two neighbouring channels of a pixel, the first even.
template <class Element>
DEEPSIM_DEVICE void put(const Place& place, int image, int channel, int y, int x, Pair values) {
  auto* row = reinterpret_cast<typename Element::Two*>(row_of<Element>(place, image, channel, y, x));
  row[channel % kPlane<Element> / 2] = pack<Element>(values.low, values.high);
}

// Store two neighbouring columns of a fully connected layer: (channels / 16, pixel, channel % 16).
template <class Element>
DEEPSIM_DEVICE void put_connected(const Place& place, Divisor pixels, Divisor width, int image, int column, Pair values) {
  const int sixteen = column / kColumns, block = divide(sixteen, pixels), pixel = sixteen - block * pixels.value;
  const int y = divide(pixel, width), x = pixel - y * width.value;
  put<Element>(place, image, block * kColumns + column % kColumns, y, x, values);
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
  const bool inside = y >= 0 && y < levels.height && x >= 0 && x < levels.width && down >= 0 &&
                      down < levels.crop_side && across >= 0 && across < levels.crop_side;
  if (!inside) return;
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

// Two neighbouring columns of a row, to where the layer wants them.
template <Store kStore, class Element>
DEEPSIM_DEVICE void store(const ShiftGemm& layer, const Window& window, int group, int split, int column, Pair sum, Pair bias,
                          unsigned char* shared, int first_row) {
  if (!window.kept || column >= layer.columns) return;
  if (kStore == Store::partial) {
    partial_sum(layer, split, group, window.row, column) = sum;
    return;
  }
  const int all = group * layer.columns + column;
  const Pair value = finish(bias, layer.slope, sum);
  if (kStore == Store::pixels) {
    keep_levels(layer, window.row - first_row, column, value, shared);
  } else if (kStore == Store::blocks) {
    put<Element>(layer.out, window.image, all, window.p, window.q, value);
  } else if (kStore == Store::shuffle) {
    const int phase = all / kColumns % 4, y = 2 * window.p - phase / 2, x = 2 * window.q - phase % 2;
    const bool inside = y >= 0 && y < layer.out.height && x >= 0 && x < layer.out.width;
    const int channel = all / (4 * kColumns) * kColumns + all % kColumns;
    if (inside) put<Element>(layer.out, window.image, channel, y, x, value);
  } else {
    put_connected<Element>(layer.out, layer.out_pixels, layer.out_width, window.row, all, value);
  }
}

}  // namespace deepsim::cuda
