// What happens to the sums of a product: bias and activation, then where they go.
#pragma once

#include "device.h"
#include "layers.h"

namespace deepsim::cuda {

DEEPSIM_DEVICE bool lies_in(int index, int count) { return static_cast<unsigned>(index) < static_cast<unsigned>(count); }

// The first row of a tile of so many rows, of those down a column of tiles.
DEEPSIM_DEVICE int first_row_of(const ShiftGemm& layer, int tile_rows, int index) {
  if (layer.by_image == 0) return index * tile_rows;
  const int image = divide(index, layer.image_tiles), tile = index - image * layer.image_tiles.value;
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
    kept = r < layer.rows && lies_in(p - layer.first_down, layer.windows_down) &&
           lies_in(q - layer.first_across, layer.windows_across);
  }
};

DEEPSIM_DEVICE float activate(float value, float slope) { return value > 0.0f ? value : value * slope; }

// The bias of neighbouring columns, the first a multiple of four.
template <int kCount>
DEEPSIM_DEVICE void load_bias(const ShiftGemm& layer, int group, int column, float (&bias)[kCount]) {
  DEEPSIM_UNROLL
  for (int first = 0; first < kCount; first += 4) {
    const Four four = load_constant(layer.bias + group * layer.columns + column + first);
    DEEPSIM_UNROLL
    for (int i = 0; i < 4; ++i) bias[first + i] = four.values[i];
  }
}

// Where the row that holds a channel of a pixel begins.
template <class Element>
DEEPSIM_DEVICE unsigned char* row_of(const Place& place, int image, int channel, int y, int x) {
  const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(channel / kColumns) * place.sixteen +
                             channel % kColumns / kPlane<Element> * place.plane +
                             static_cast<std::ptrdiff_t>(image) * place.image + y * place.y + x * place.x;
  return place.base + row * kRow;
}

// Neighbouring channels of a pixel.
template <class Element, int kCount>
struct alignas(kCount * sizeof(typename Element::Bits)) Neighbours {
  typename Element::Two twos[kCount / 2];
};

template <class Element, int kCount>
DEEPSIM_DEVICE Neighbours<Element, kCount> narrow(const float* values) {
  Neighbours<Element, kCount> packed;
  DEEPSIM_UNROLL
  for (int i = 0; i < kCount / 2; ++i) packed.twos[i] = pack<Element>(values[2 * i], values[2 * i + 1]);
  return packed;
}

// Store neighbouring channels of a pixel, in as many planes as they take.
template <class Element, int kCount>
DEEPSIM_DEVICE void put(unsigned char* at, std::ptrdiff_t plane_bytes, const float (&values)[kCount]) {
  constexpr int together = kCount < kPlane<Element> ? kCount : kPlane<Element>;
  DEEPSIM_UNROLL
  for (int first = 0; first < kCount; first += together)
    *reinterpret_cast<Neighbours<Element, together>*>(at + first / together * plane_bytes) =
        narrow<Element, together>(values + first);
}

// What network values are as grey levels, but for the mean and rounding. Without a scale there is no division, which would
// take longer than all the rest.
template <int kCount>
DEEPSIM_DEVICE void to_levels(const Levels& levels, float scale, float (&values)[kCount]) {
  if (levels.tanh255) {
    DEEPSIM_UNROLL
    for (int i = 0; i < kCount; ++i) values[i] = 255.0f * hyperbolic_tangent(values[i]);
  }
  if (levels.scaled) {
    DEEPSIM_UNROLL
    for (int i = 0; i < kCount; ++i) values[i] = quotient(values[i], scale);
  }
}

// What the encoder makes of grey level `level` of colour c of a photograph.
DEEPSIM_DEVICE float value_of_level(const PixelsIn& layer, int c, float level) {
  return (level - layer.mean[c]) * layer.scale[c];
}

// Hand a pixel of the crop to the encoder, as pixels_in does (passes.h): red, green and blue.
template <class Element>
DEEPSIM_DEVICE void hand_over(const PixelsIn& reader, Divisor stride, int image, int down, int across,
                              const unsigned char* levels) {
  const int y = divide(down + reader.pad, stride), x = divide(across + reader.pad, stride);
  if (y >= reader.out.height || x >= reader.out.width) return;  // pixels that no window of its first layer reaches
  const int phase = (down + reader.pad - y * stride.value) * stride.value + across + reader.pad - x * stride.value;
  DEEPSIM_UNROLL
  for (int c = 0; c < 3; ++c) {
    const int channel = phase * 3 + c;
    const float value = value_of_level(reader, c, static_cast<float>(shared_load(levels + (reader.bgr ? 2 - c : c))));
    auto* row = reinterpret_cast<typename Element::Bits*>(row_of<Element>(reader.out, image, channel, y, x));
    row[channel % kPlane<Element>] = static_cast<typename Element::Bits>(pack<Element>(value, 0.0f));
  }
}

// Copy bytes from shared memory, by the lanes of a warp: whole words where they lie in global memory, whatever their address
// in shared memory is.
DEEPSIM_DEVICE void copy_bytes(std::uint8_t* to, const unsigned char* from, int count) {
  const int before = static_cast<int>(reinterpret_cast<std::uintptr_t>(to) % 4);
  for (int first = thread_index() % 32 * 4 - before; first < count; first += 32 * 4) {
    if (first >= 0 && first + 4 <= count) {
      *reinterpret_cast<std::uint32_t*>(to + first) = shared_word(from + first);
      continue;
    }
    for (int i = first < 0 ? 0 : first; i < first + 4 && i < count; ++i) to[i] = shared_load(from + i);
  }
}

// The bytes of a tile's windows lie in shared memory as pixels do in the image: rows that a window gives one after the
// other, and in each the windows' pixels side by side. pixel: of a row of the image, 0 that of column 0.
struct StagedRow {
  const unsigned char* pixels;  // of pixel 0, were it in the tile
  int image, y, begin, end;     // of the crop; pixels that are in the tile and in the crop

  // The windows of row `line` of all images' grids, which give `half` rows of pixels; of these number a.
  template <int kRows>
  DEEPSIM_DEVICE static StagedRow of(const ShiftGemm& layer, const unsigned char* shared, int first_row, int line, int a,
                                     int half) {
    const Levels& levels = layer.levels;
    const int image = divide(line, layer.image_lines), p = line - image * layer.image_lines.value;
    const int before = line * layer.grid_pitch.value - first_row;  // windows of the tile before the line's first
    int q = -before, last = kRows - before;  // the tile's windows of this line
    q = q < layer.first_across ? layer.first_across : q;
    last = last > layer.first_across + layer.windows_across ? layer.first_across + layer.windows_across : last;
    StagedRow row;
    row.image = image;
    row.y = half * p - a - levels.crop_top;
    row.begin = half * (q - 1) + 1 - levels.crop_left;
    row.end = half * (last - 1) + 1 - levels.crop_left;
    row.pixels = shared + 3 * (a * kRows * half + half - 1 + half * before + levels.crop_left);
    if (row.begin < 0) row.begin = 0;
    if (row.end > levels.crop_side) row.end = levels.crop_side;
    const bool kept = line * layer.grid_pitch.value < layer.rows && lies_in(p - layer.first_down, layer.windows_down);
    if (!kept || !lies_in(row.y, levels.crop_side)) row.end = row.begin;
    return row;
  }
};

// Write the bytes that stage_pixels left, each warp some rows.
template <class Element, int kRows, int kThreads>
DEEPSIM_DEVICE void write_pixels(const ShiftGemm& layer, const unsigned char* shared, int first_row) {
  const int half = layer.phases == 4 ? 2 : 1;  // rows of pixels, and pixels of a row, that a window gives
  const int first_line = divide(first_row, layer.grid_pitch);
  const int rows = half * (divide(first_row + kRows - 1, layer.grid_pitch) - first_line + 1), side = layer.levels.crop_side;
  for (int i = thread_index() / 32; i < rows; i += kThreads / 32) {
    const int a = half == 2 ? i % 2 : 0;
    const auto row = StagedRow::of<kRows>(layer, shared, first_row, first_line + i / half, a, half);
    if (layer.reader.out.base != nullptr) {
      for (int x = row.begin + thread_index() % 32; x < row.end; x += 32)
        hand_over<Element>(layer.reader, layer.reader_stride, row.image, row.y, x, row.pixels + 3 * x);
    } else if (row.begin < row.end) {
      const std::ptrdiff_t pixel = (static_cast<std::ptrdiff_t>(row.image) * side + row.y) * side + row.begin;
      copy_bytes(layer.pixels + 3 * pixel, row.pixels + 3 * row.begin, 3 * (row.end - row.begin));
    }
  }
}

// Where neighbouring columns of a row are kept for one split.
DEEPSIM_DEVICE Four* partial_sums(const ShiftGemm& layer, int split, int group, int row, int column) {
  const std::ptrdiff_t of_group = static_cast<std::ptrdiff_t>(split) * layer.groups + group;
  return reinterpret_cast<Four*>(layer.partial + (of_group * layer.rows + row) * layer.columns + column);
}

// Where the values of a row of the product go: Store::blocks, shuffle, connected.
struct RowOut {
  int row;            // that holds the first channel of pixel (p, q), or (2p, 2q), in a plane of the first 16 channels
  unsigned keeps;     // bit a: the pixels of row 2p - a are inside; bit 2 + b: those of column 2q - b

  template <Store kStore>
  DEEPSIM_DEVICE static RowOut of(const ShiftGemm& layer, const Window& window) {
    constexpr int size = kStore == Store::shuffle ? 2 : 1;
    const Place& out = layer.out;
    const int y = size * window.p, x = size * window.q;
    unsigned keeps = window.kept ? 0xf : 0;
    if (kStore == Store::shuffle && window.kept)
      keeps = (lies_in(y, out.height) ? 1 : 0) | (lies_in(y - 1, out.height) ? 2 : 0) | (lies_in(x, out.width) ? 4 : 0) |
              (lies_in(x - 1, out.width) ? 8 : 0);
    return {window.image * out.image + y * out.y + x * out.x, keeps};
  }
};

// Where 16 columns go, the index-th ones of all groups: they are 16 channels of a pixel.
struct SixteenOut {
  int rows;        // from RowOut::row
  unsigned needs;  // bits of RowOut::keeps

  template <Store kStore>
  DEEPSIM_DEVICE static SixteenOut of(const ShiftGemm& layer, int index) {
    const Place& out = layer.out;
    if (kStore == Store::shuffle) {
      const int a = index / 2 % 2, b = index % 2;
      return {index / 4 * out.sixteen - a * out.y - b * out.x, 1u << a | 4u << b};
    }
    if (kStore == Store::connected) {
      const int block = divide(index, layer.out_pixels), pixel = index - block * layer.out_pixels.value;
      const int y = divide(pixel, layer.out_width), x = pixel - y * layer.out_width.value;
      return {block * out.sixteen + y * out.y + x * out.x, 1};
    }
    return {index * out.sixteen, 1};
  }
};

// Where an even one of 16 channels lies, in bytes from the first.
template <class Element>
DEEPSIM_DEVICE std::ptrdiff_t offset_of(const Place& place, int channel) {
  return static_cast<std::ptrdiff_t>(channel / kPlane<Element>) * place.plane * kRow +
         channel % kPlane<Element> * static_cast<int>(sizeof(typename Element::Bits));
}

// Pairs of neighbouring columns that a thread has side by side, a run: eight columns of every 32 (layers.h, column_at), or
// four where its warp has but 16.
template <int kPairs>
constexpr int kRun = kPairs < 4 ? kPairs : 4;

// What a thread's sums are of: runs that begin at `column` + 32 i of the group; the pairs of the bytes of an image begin at
// `column` + 8 i.
struct Share {
  int group, split, column;
};

// The chunks of a part of a sum.
DEEPSIM_DEVICE int chunks_of(const ShiftGemm& layer, int split) {
  const int left = layer.chunks - split * layer.chunks_per_split;
  return left < layer.chunks_per_split ? left : layer.chunks_per_split;
}

// Bias, activation and the store of a thread's sums as values of 16 bits or fp32. row(r): the r-th row of the product;
// sums(r, j): its pair of columns j, two floats.
template <Store kStore, class Element, int kRows, int kPairs, class RowOf, class SumsOf>
DEEPSIM_DEVICE void store_values(const ShiftGemm& layer, const Share& share, const RowOf& row, const SumsOf& sums) {
  constexpr int run = kRun<kPairs>;
  RowOut rows[kRows];
  DEEPSIM_UNROLL
  for (int r = 0; r < kRows; ++r) rows[r] = RowOut::of<kStore>(layer, Window(layer, row(r)));
  unsigned char* const first = layer.out.base + offset_of<Element>(layer.out, share.column % kColumns);
  const std::ptrdiff_t plane = static_cast<std::ptrdiff_t>(layer.out.plane) * kRow;
  DEEPSIM_UNROLL
  for (int j = 0; j < kPairs; j += run) {
    const int column = share.column + j / run * kRuns;
    if (column >= layer.columns) return;
    float bias[2 * run];
    load_bias(layer, share.group, column, bias);
    const auto to = SixteenOut::of<kStore>(layer, (share.group * layer.columns + column) / kColumns);
    DEEPSIM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      if ((to.needs & ~rows[r].keeps) != 0) continue;
      float values[2 * run];
      DEEPSIM_UNROLL
      for (int i = 0; i < 2 * run; ++i) values[i] = activate(sums(r, j + i / 2)[i % 2] + bias[i], layer.slope);
      put<Element>(first + static_cast<std::ptrdiff_t>(rows[r].row + to.rows) * kRow, plane, values);
    }
  }
}

// Store a thread's part of sums to where those of the other splits are.
template <int kRows, int kPairs, class RowOf, class SumsOf>
DEEPSIM_DEVICE void store_part(const ShiftGemm& layer, const Share& share, const RowOf& row, const SumsOf& sums) {
  constexpr int run = kRun<kPairs>;
  DEEPSIM_UNROLL
  for (int r = 0; r < kRows; ++r) {
    if (!Window(layer, row(r)).kept) continue;
    Four* to = partial_sums(layer, share.split, share.group, row(r), share.column);
    DEEPSIM_UNROLL
    for (int j = 0; j < kPairs; j += run, to += kRuns / 4) {
      if (share.column + j / run * kRuns >= layer.columns) break;
      DEEPSIM_UNROLL
      for (int i = 0; i < run; i += 2) {
        const float *low = sums(r, j + i), *high = sums(r, j + i + 1);
        to[i / 2] = {{low[0], low[1], high[0], high[1]}};
      }
    }
  }
}

// A thread's sums of all parts, added in their order, whichever was ready first.
template <int kRows, int kPairs, class RowOf, class SumsOf>
DEEPSIM_DEVICE void add_parts(const ShiftGemm& layer, const Share& share, const RowOf& row, const SumsOf& sums) {
  constexpr int run = kRun<kPairs>;
  DEEPSIM_NO_UNROLL
  for (int split = 0; split < layer.splits; ++split) DEEPSIM_UNROLL
  for (int r = 0; r < kRows; ++r) {
    if (!Window(layer, row(r)).kept) continue;
    const Four* parts = partial_sums(layer, split, share.group, row(r), share.column);
    DEEPSIM_UNROLL
    for (int j = 0; j < kPairs; j += 2) {
      if (share.column + j / run * kRuns >= layer.columns) break;
      const Four part = load_fresh(parts + j / run * (kRuns / 4) + j % run / 2);
      DEEPSIM_UNROLL
      for (int i = 0; i < 4; ++i) {
        float& sum = sums(r, j + i / 2)[i % 2];
        sum = split == 0 ? part.values[i] : sum + part.values[i];
      }
    }
  }
}

// The grey levels, before they are rounded, of a thread's i-th column, which is of a pixel's channel.
template <int kRows, class SumsOf>
DEEPSIM_DEVICE void levels_of(const ShiftGemm& layer, int column, int i, const SumsOf& sums, float (&values)[kRows]) {
  const Levels& levels = layer.levels;
  const float bias = layer.bias[column], mean = levels.mean[column % 3];
  DEEPSIM_UNROLL
  for (int r = 0; r < kRows; ++r) values[r] = activate(sums(r, i / 2)[i % 2] + bias, layer.slope);
  to_levels(levels, levels.scale[column % 3], values);
  DEEPSIM_UNROLL
  for (int r = 0; r < kRows; ++r) values[r] += mean;
}

// Store the grey levels of a thread's sums in the crop as they are. row(r): of the product.
template <int kRows, int kPairs, class RowOf, class SumsOf>
DEEPSIM_DEVICE void store_levels(const ShiftGemm& layer, const Share& share, const RowOf& row, const SumsOf& sums) {
  const Levels& levels = layer.levels;
  const int half = layer.phases == 4 ? 2 : 1, side = levels.crop_side;
  DEEPSIM_UNROLL
  for (int i = 0; i < 2 * kPairs; ++i) {
    const int column = share.column + i / 2 * 8 + i % 2, phase = column / 3, channel = column % 3;
    if (phase >= layer.phases) continue;
    const int a = half == 2 ? phase / 2 : 0, b = half == 2 ? phase % 2 : 0;
    float values[kRows];
    levels_of(layer, column, i, sums, values);
    DEEPSIM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const Window window(layer, row(r));
      const int y = half * window.p - a - levels.crop_top, x = half * window.q - b - levels.crop_left;
      if (!window.kept || !lies_in(y, side) || !lies_in(x, side)) continue;
      const std::ptrdiff_t pixel = (static_cast<std::ptrdiff_t>(window.image) * side + y) * side + x;
      reinterpret_cast<float*>(layer.pixels)[3 * pixel + (levels.red == 0 ? channel : 2 - channel)] = values[r];
    }
  }
}

// Store the bytes of a thread's sums in shared memory, as StagedRow has them. row(r): of the tile.
template <int kTileRows, int kRows, int kPairs, class RowOf, class SumsOf>
DEEPSIM_DEVICE void stage_pixels(const ShiftGemm& layer, const Share& share, const RowOf& row, const SumsOf& sums,
                                 unsigned char* shared) {
  const Levels& levels = layer.levels;
  const int half = layer.phases == 4 ? 2 : 1;
  DEEPSIM_UNROLL
  for (int i = 0; i < 2 * kPairs; ++i) {
    const int column = share.column + i / 2 * 8 + i % 2, phase = column / 3, channel = column % 3;
    if (phase >= layer.phases) continue;
    const int a = half == 2 ? phase / 2 : 0, b = half == 2 ? phase % 2 : 0;  // b = 1 lies to the left of b = 0
    unsigned char* to = shared + 3 * (a * kTileRows * half + half - 1 - b) + (levels.red == 0 ? channel : 2 - channel);
    float values[kRows];
    levels_of(layer, column, i, sums, values);
    DEEPSIM_UNROLL
    for (int r = 0; r < kRows; ++r) shared_store(to + 3 * half * row(r), static_cast<unsigned char>(to_byte(values[r])));
  }
}

// Store the sums of all parts, when they are added, to where the layer wants them.
template <class Element, int kRows, int kPairs, class RowOf, class SumsOf>
DEEPSIM_DEVICE void store_whole(const ShiftGemm& layer, const Share& share, const RowOf& row, const SumsOf& sums) {
  if (layer.whole == Store::blocks) store_values<Store::blocks, Element, kRows, kPairs>(layer, share, row, sums);
  if (layer.whole == Store::shuffle) store_values<Store::shuffle, Element, kRows, kPairs>(layer, share, row, sums);
  if (layer.whole == Store::connected) store_values<Store::connected, Element, kRows, kPairs>(layer, share, row, sums);
}

// Where the blocks that have parts of a tile tell that theirs is ready.
DEEPSIM_DEVICE unsigned* ready_of(const ShiftGemm& layer, int group, int column_tile) {
  return layer.ready + (group * layer.column_tiles.value + column_tile) * layer.row_tiles.value + block_x();
}

}  // namespace deepsim::cuda
