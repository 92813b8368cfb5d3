#include "pack.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "error.h"

namespace deepsim::runtime::detail {

using kernels::kBlock;

namespace {

std::size_t size(std::int64_t count) { return static_cast<std::size_t>(count); }

int tiles_of(int columns, int tile_columns) { return (columns + tile_columns - 1) / tile_columns; }

// Winograd's transform of the weights, g -> G g, for the points of kernels/cpu/winograd.h.
struct Transform {
  int tile;
  double matrix[kernels::kMaxWinograd][5];
};

constexpr Transform kF32 = {4, {{1, 0, 0}, {0.5, 0.5, 0}, {0.5, -0.5, 0}, {0, 1, 0}}};

// F(4, 3) and F(2, 5): a row for each point p holds p^i / product of (p - q) over the other points q; the last one is
// that of infinity.
constexpr Transform transform_of(int kernel) {
  constexpr double a = kernels::kWinogradPoints[0], b = kernels::kWinogradPoints[1];
  constexpr double points[] = {0, a, -a, b, -b};
  Transform transform = {kernels::kMaxWinograd, {}};
  for (int row = 0; row < kernels::kMaxWinograd - 1; ++row) {
    double value = 1;
    for (int other = 0; other < kernels::kMaxWinograd - 1; ++other)
      if (other != row) value /= points[row] - points[other];
    for (int i = 0; i < kernel; ++i, value *= points[row]) transform.matrix[row][i] = value;
  }
  transform.matrix[kernels::kMaxWinograd - 1][kernel - 1] = 1;
  return transform;
}

constexpr Transform kF43 = transform_of(3), kF25 = transform_of(5);

// G g G^T of one kernel in float64, rounded once: result[position * step].
void transform_kernel(const Transform& t, const DenseWeights& weights, int group, int column, int channel, float* result,
                      std::size_t step) {
  const int k = weights.kernel;
  double rows[kernels::kMaxWinograd][5] = {};
  for (int i = 0; i < t.tile; ++i)
    for (int s = 0; s < k; ++s)
      for (int r = 0; r < k; ++r) rows[i][s] += t.matrix[i][r] * weights.at(group, column, channel, r, s);
  for (int i = 0; i < t.tile; ++i)
    for (int j = 0; j < t.tile; ++j) {
      double sum = 0;
      for (int s = 0; s < k; ++s) sum += t.matrix[j][s] * rows[i][s];
      result[size(i * t.tile + j) * step] = static_cast<float>(sum);
    }
}

}  // namespace

std::uint16_t to_half(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const std::uint32_t sign = bits >> 16 & 0x8000u;
  const float magnitude = std::fabs(value);
  if (!(magnitude < 65520.0f)) return static_cast<std::uint16_t>(sign | 0x7c00u);
  if (magnitude < 6.103515625e-05f) {  // below the normal range: multiples of 2^-24
    return static_cast<std::uint16_t>(sign | static_cast<std::uint32_t>(std::nearbyint(magnitude * 16777216.0f)));
  }
  bits &= 0x7fffffffu;
  bits += 0xfffu + (bits >> 13 & 1u);
  return static_cast<std::uint16_t>(sign | ((bits >> 13) - (112u << 10)));
}

DenseWeights::DenseWeights(int group_count, int column_count, int channel_count, int side)
    : groups(group_count),
      columns(kernels::blocks_of(column_count) * kBlock),
      channels(kernels::blocks_of(channel_count) * kBlock),
      kernel(side),
      values(size(groups) * size(columns) * size(channels) * size(kernel * kernel)) {}

float& DenseWeights::at(int group, int column, int channel, int r, int s) {
  return values[((size(group) * size(columns) + size(column)) * size(channels) + size(channel)) * size(kernel * kernel) +
                size(r * kernel + s)];
}

float DenseWeights::at(int group, int column, int channel, int r, int s) const {
  return const_cast<DenseWeights*>(this)->at(group, column, channel, r, s);
}

Buffer pack_direct(const DenseWeights& weights, int tile_columns, ThreadPool& pool) {
  Buffer packed(weights.values.size() * sizeof(float));
  const int tiles = tiles_of(weights.columns, tile_columns), taps = weights.kernel * weights.kernel;
  const std::size_t depth = size(weights.channels) * size(taps);
  pool.run(weights.groups * tiles, [&](int task, int) {
    const int group = task / tiles, first = task % tiles * tile_columns;
    const int width = std::min(tile_columns, weights.columns - first);
    float* to = packed.floats() + (size(group) * size(weights.columns) + size(first)) * depth;
    for (int block = 0; block < weights.channels; block += kBlock)
      for (int tap = 0; tap < taps; ++tap)
        for (int k = 0; k < kBlock; ++k)
          for (int j = 0; j < width; ++j)
            *to++ = weights.at(group, first + j, block + k, tap / weights.kernel, tap % weights.kernel);
  });
  return packed;
}

Buffer pack_winograd(const DenseWeights& weights, int tile_columns, ThreadPool& pool) {
  const Transform& transform = weights.kernel == 2 ? kF32 : weights.kernel == 3 ? kF43 : kF25;
  const std::size_t positions = size(transform.tile * transform.tile), channels = size(weights.channels);
  Buffer packed(size(weights.groups) * size(weights.columns) * channels * positions * sizeof(float));
  const int tiles = tiles_of(weights.columns, tile_columns);
  pool.run(weights.groups * tiles, [&](int task, int) {
    const int group = task / tiles, first = task % tiles * tile_columns;
    const int width = std::min(tile_columns, weights.columns - first);
    float* tile = packed.floats() + (size(group) * size(weights.columns) + size(first)) * channels * positions;
    for (int channel = 0; channel < weights.channels; ++channel)
      for (int j = 0; j < width; ++j)
        transform_kernel(transform, weights, group, first + j, channel, tile + size(channel) * size(width) + size(j),
                         channels * size(width));
  });
  return packed;
}

Buffer pack_fully_connected(const float* weight, std::int64_t inputs, const std::vector<int>& row_of,
                            const std::vector<int>& input_of, bool half, int tile_columns, ThreadPool& pool) {
  const int columns = static_cast<int>(row_of.size()), depth = static_cast<int>(input_of.size());
  Buffer packed(size(columns) * size(depth) * (half ? sizeof(std::uint16_t) : sizeof(float)));
  std::atomic<bool> too_large{false};
  pool.run(tiles_of(columns, tile_columns), [&](int task, int) {
    const int first = task * tile_columns, width = std::min(tile_columns, columns - first);
    const std::size_t start = size(first) * size(depth);
    for (int block = 0; block < depth; block += kBlock)  // 16 inputs at a time: whole cache lines of every row
      for (int j = 0; j < width; ++j) {
        const int row = row_of[size(first + j)];
        for (int k = block; k < block + kBlock; ++k) {
          const int input = input_of[size(k)];
          const float value = row < 0 || input < 0 ? 0.0f : weight[row * inputs + input];
          const std::size_t at = start + size(k) * size(width) + size(j);
          if (half) {
            packed.as<std::uint16_t>()[at] = to_half(value);
            if (!(std::fabs(value) < 65520.0f)) too_large = true;
          } else {
            packed.floats()[at] = value;
          }
        }
      }
  });
  if (too_large) {
    throw Failure(ErrorKind::numeric,
                  "half_fc_weights: a weight is beyond 65504, which fp16 cannot hold. "
                  "Load this bundle without it.");
  }
  return packed;
}

}  // namespace deepsim::runtime::detail
