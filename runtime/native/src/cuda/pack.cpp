#include "pack.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "../../../../kernels/cuda/layers.h"
#include "../error.h"

namespace deepsim::runtime::detail::cuda {

namespace {

std::size_t size(std::int64_t count) { return static_cast<std::size_t>(count); }

std::uint16_t to_brain(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// Write a value in this precision; where the next one goes.
unsigned char* write(float value, Precision precision, unsigned char* to) {
  std::uint16_t bits = 0;
  switch (precision) {
    case Precision::single:
      return std::copy_n(reinterpret_cast<const unsigned char*>(&value), sizeof value, to);
    case Precision::half:
      bits = to_half(value);
      break;
    case Precision::brain:
      bits = to_brain(value);
      break;
  }
  return std::copy_n(reinterpret_cast<const unsigned char*>(&bits), sizeof bits, to);
}

// Fill tiles [depth / plane][tile][plane] one after the other: value(column, channel, tap) of one group, in parallel over
// tiles.
template <class Value>
void fill(unsigned char* to, int columns, int channels, int taps, int tile_columns, int depth, Precision precision,
          ThreadPool& pool, const Value& value) {
  std::atomic<bool> too_large{false};
  const int tiles = (columns + tile_columns - 1) / tile_columns, plane_channels = plane_of(precision);
  const std::size_t tile_bytes = size(channels) * size(taps) * size(tile_columns) * bytes_of(precision);
  pool.run(tiles, [&](int tile, int) {
    unsigned char* next = to + size(tile) * tile_bytes;
    for (int chunk = 0; chunk < channels; chunk += depth)
      for (int tap = 0; tap < taps; ++tap)
        for (int plane = 0; plane < depth; plane += plane_channels)
          for (int place = 0; place < tile_columns; ++place) {
            const bool in_runs = tile_columns >= deepsim::cuda::kRuns;
            const int column = tile * tile_columns + (in_runs ? deepsim::cuda::column_at(place) : place);
            for (int k = 0; k < plane_channels; ++k) {
              const float weight = column < columns ? value(column, chunk + plane + k, tap) : 0.0f;
              if (precision == Precision::half && !(std::fabs(weight) < 65520.0f)) too_large = true;
              next = write(weight, precision, next);
            }
          }
  });
  if (too_large) {
    throw Failure(ErrorKind::numeric, "cuda: a weight is beyond 65504, which fp16 cannot hold. Load with precision bf16.");
  }
}

std::size_t padded(int columns, int tile_columns) { return size((columns + tile_columns - 1) / tile_columns * tile_columns); }

}  // namespace

int plane_of(Precision precision) { return deepsim::cuda::kRow / static_cast<int>(bytes_of(precision)); }

std::vector<unsigned char> pack_convolution(const DenseWeights& weights, int tile_columns, int depth, Precision precision,
                                            ThreadPool& pool) {
  const int taps = weights.kernel * weights.kernel;
  const std::size_t row_bytes = size(weights.channels) * size(taps) * bytes_of(precision);
  const std::size_t group_size = padded(weights.columns, tile_columns) * row_bytes;
  std::vector<unsigned char> packed(size(weights.groups) * group_size);
  for (int group = 0; group < weights.groups; ++group)
    fill(packed.data() + size(group) * group_size, weights.columns, weights.channels, taps, tile_columns, depth, precision,
         pool, [&](int column, int channel, int tap) {
           return weights.at(group, column, channel, tap / weights.kernel, tap % weights.kernel);
         });
  return packed;
}

std::vector<unsigned char> pack_connected(const Connected& layer, int tile_columns, int depth, Precision precision,
                                          ThreadPool& pool) {
  const int columns = static_cast<int>(layer.row_of.size()), channels = static_cast<int>(layer.input_of.size());
  std::vector<unsigned char> packed(padded(columns, tile_columns) * size(channels) * bytes_of(precision));
  fill(packed.data(), columns, channels, 1, tile_columns, depth, precision, pool, [&](int column, int channel, int) {
    const int row = layer.row_of[size(column)], input = layer.input_of[size(channel)];
    return row < 0 || input < 0 ? 0.0f : layer.weight[row * layer.inputs + input];
  });
  return packed;
}

}  // namespace deepsim::runtime::detail::cuda
