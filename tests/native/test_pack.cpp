// Weights as the kernels read them: rounding to half precision, and where each number of a layer lies.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "error.h"
#include "pack.h"

using namespace deepsim::runtime::detail;
using deepsim::kernels::kBlock;

namespace {

// The value of an IEEE binary16, from its definition.
float from_half(unsigned half) {
  const unsigned exponent = half >> 10 & 31u, fraction = half & 1023u;
  const float sign = (half & 0x8000u) != 0 ? -1.0f : 1.0f;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
  if (exponent == 31) return fraction == 0 ? sign * INFINITY : NAN;
  return sign * std::ldexp(static_cast<float>(fraction + 1024), static_cast<int>(exponent) - 25);
}

// A number that tells where in a dense tensor it stands; exact in float32.
float place(int group, int column, int channel, int r, int s) {
  return static_cast<float>((((group * 40 + column) * 40 + channel) * 5 + r) * 5 + s);
}

DenseWeights placed(int groups, int columns, int channels, int kernel) {
  DenseWeights weights(groups, columns, channels, kernel);
  for (int group = 0; group < groups; ++group)
    for (int column = 0; column < columns; ++column)
      for (int channel = 0; channel < channels; ++channel)
        for (int r = 0; r < kernel; ++r)
          for (int s = 0; s < kernel; ++s) weights.at(group, column, channel, r, s) = place(group, column, channel, r, s);
  return weights;
}

}  // namespace

TEST_CASE("every half survives, and what lies between two is rounded to the nearer, halves to even") {
  for (unsigned half = 0; half < 0x7c00u; ++half) {
    const float here = from_half(half), next = from_half(half + 1);
    for (const unsigned sign : {0u, 0x8000u}) {
      const float side = sign == 0 ? 1.0f : -1.0f;
      const auto rounded = [&](float value) { return unsigned{to_half(side * value)}; };
      int wrong = rounded(here) != (sign | half);
      if (half + 1 == 0x7c00u) continue;  // the next is infinity
      const float middle = here + (next - here) / 2;
      wrong += rounded(middle) != (sign | (half % 2 == 0 ? half : half + 1));
      wrong += rounded(std::nextafter(middle, 0.0f)) != (sign | half);
      wrong += rounded(std::nextafter(middle, INFINITY)) != (sign | (half + 1));
      if (wrong > 0) {
        CAPTURE(half);
        CHECK(wrong == 0);
      }
    }
  }
  CHECK(to_half(65519.9f) == 0x7bff);
  CHECK(to_half(65520.0f) == 0x7c00);
  CHECK(to_half(-INFINITY) == 0xfc00);
  CHECK(to_half(std::numeric_limits<float>::denorm_min()) == 0);
}

TEST_CASE("dense weights have whole blocks of columns and channels, zero where the layer has none") {
  const DenseWeights weights = placed(2, 17, 3, 2);
  CHECK(weights.columns == 32);
  CHECK(weights.channels == 16);
  CHECK(weights.values.size() == 2 * 32 * 16 * 4);
  CHECK(weights.at(1, 16, 2, 1, 0) == place(1, 16, 2, 1, 0));
  double sum = 0;
  for (int column = 0; column < 32; ++column)
    for (int channel = 0; channel < 16; ++channel)
      if (column >= 17 || channel >= 3) sum += std::fabs(weights.at(1, column, channel, 1, 1));
  CHECK(sum == 0);
}

TEST_CASE("direct weights lie as [group][column tile][channel block][tap][channel][column]") {
  ThreadPool pool(2);
  for (const int tile : {8, 16, 32, 48}) {
    CAPTURE(tile);
    const DenseWeights weights = placed(2, 40, 20, 3);  // 48 columns, 32 channels
    const Buffer packed = pack_direct(weights, tile, pool);
    REQUIRE(packed.bytes() == weights.values.size() * sizeof(float));
    const float* next = packed.floats();
    int different = 0;
    for (int group = 0; group < 2; ++group)
      for (int first = 0; first < 48; first += tile)
        for (int block = 0; block < 32; block += kBlock)
          for (int tap = 0; tap < 9; ++tap)
            for (int channel = block; channel < block + kBlock; ++channel)
              for (int column = first; column < std::min(first + tile, 48); ++column)
                different += *next++ != weights.at(group, column, channel, tap / 3, tap % 3);
    CHECK(different == 0);
  }
}

// G g G^T of kernels that are 1 everywhere: the sums of G's rows, multiplied. For the point p it is the sum of p^i over the
// product of its distances.
TEST_CASE("Winograd's transform of a kernel of ones follows from its points") {
  ThreadPool pool(1);
  const double a = 0.625, b = 1.5;
  for (const int kernel : {3, 5}) {
    DenseWeights weights(1, 16, 16, kernel);
    for (float& value : weights.values) value = 1.0f;
    const Buffer packed = pack_winograd(weights, 16, pool);
    REQUIRE(packed.bytes() == std::size_t{16} * 16 * 36 * sizeof(float));
    std::vector<double> rows;
    const double points[] = {0, a, -a, b, -b};
    for (const double point : points) {
      double sum = 0, power = 1;
      for (int i = 0; i < kernel; ++i, power *= point) sum += power;
      for (const double other : points)
        if (other != point) sum /= point - other;
      rows.push_back(sum);
    }
    rows.push_back(1);  // at infinity only the last coefficient is left
    for (std::size_t i = 0; i < 6; ++i)
      for (std::size_t j = 0; j < 6; ++j)
        CHECK(packed.floats()[(i * 6 + j) * 256 + 17] == doctest::Approx(rows[i] * rows[j]).epsilon(1e-6));
  }
}

TEST_CASE("fully connected weights lie by tiles of columns, as the maps order them, zero where those are padded") {
  ThreadPool pool(2);
  constexpr int kInputs = 5, kOutputs = 3;
  std::vector<float> weight;
  for (int i = 0; i < kInputs * kOutputs; ++i) weight.push_back(static_cast<float>(i + 1));
  std::vector<int> rows(16, -1), inputs(32, -1);
  rows[2] = 2, rows[9] = 0, rows[15] = 1;
  inputs[0] = 4, inputs[7] = 1, inputs[31] = 0;
  for (const bool half : {false, true}) {
    const Buffer packed = pack_fully_connected(weight.data(), kInputs, rows, inputs, half, 8, pool);
    int different = 0;
    for (int column = 0; column < 16; ++column)
      for (int input = 0; input < 32; ++input) {
        const int row = rows[static_cast<std::size_t>(column)], from = inputs[static_cast<std::size_t>(input)];
        const float wanted = row < 0 || from < 0 ? 0.0f : weight[static_cast<std::size_t>(row * kInputs + from)];
        const int at = column / 8 * 8 * 32 + input * 8 + column % 8;
        different += (half ? from_half(packed.as<std::uint16_t>()[at]) : packed.floats()[at]) != wanted;
      }
    CHECK(different == 0);
  }
  weight[1 * kInputs + 4] = -65520.0f;
  CHECK_NOTHROW(pack_fully_connected(weight.data(), kInputs, rows, inputs, false, 8, pool));
  CHECK_THROWS_WITH_AS(pack_fully_connected(weight.data(), kInputs, rows, inputs, true, 8, pool),
                       "half_fc_weights: a weight is beyond 65504, which fp16 cannot hold. Load this bundle without it.",
                       Failure);
}
