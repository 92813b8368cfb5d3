// The emulated multiplication of a warpgroup against its definition in float64.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <random>

#include "hopper.h"

using namespace deepsim::cuda;
using emulation::launch;
using emulation::schedules;

namespace {

// Operands with gaps, as bits of the values: row, k; column, k. 16 bytes for eight values of a row.
template <class Element>
struct Operands {
  static constexpr int columns = 24, left_stride = 160, left_leading = 8 * 160 + 16;
  static constexpr int right_stride = 144, right_leading = 3 * 144;
  static constexpr int left_size = 2 * left_leading, right_size = 2 * right_leading;
  float left[64][16], right[columns][16];
  alignas(16) std::array<std::uint16_t, (left_size + right_size) / 2> packed{};

  explicit Operands(unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    const auto fill = [&](float* values, int rows, int first, int stride, int leading) {
      for (int row = 0; row < rows; ++row)
        for (int k = 0; k < 16; ++k) {
          const std::uint32_t bits = pack<Element>(normal(random), 0.f);
          values[row * 16 + k] = unpack<Element>(bits).low;
          const int at = first + row / 8 * stride + row % 8 * 16 + k / 8 * leading + k % 8 * 2;
          packed[static_cast<std::size_t>(at / 2)] = static_cast<std::uint16_t>(bits);
        }
    };
    fill(left[0], 64, 0, left_stride, left_leading);
    fill(right[0], columns, left_size, right_stride, right_leading);
  }

  double sum(int row, int column) const {
    double sum = 0;
    for (int k = 0; k < 16; ++k) sum += static_cast<double>(left[row][k]) * static_cast<double>(right[column][k]);
    return sum;
  }
};

// To shared memory from byte 256.
void bring(unsigned char* shared, const void* from, int bytes) {
  auto* const barrier = reinterpret_cast<Barrier*>(shared);
  if (thread_index() == 0) {
    init_barrier(barrier, 1);
    publish_barriers();
    arrive_expecting(barrier, bytes);
    bulk_copy(shared + 256, from, bytes, barrier);
  }
  sync_block();
  wait_phase(barrier, 0);
}

// Two multiplications one after the other, the second added; then one more that is not.
template <class Element>
void check_numbers() {
  using Both = Operands<Element>;
  const Both both(3);
  constexpr int bytes = Both::left_size + Both::right_size;
  double largest = 0;
  for (const auto& schedule : schedules) {
    launch(
        {}, 128, 256 + bytes,
        [&] {
          unsigned char* const shared = emulation::position.shared;
          bring(shared, both.packed.data(), bytes);
          const std::uint64_t left = describe_operand(shared_address(shared + 256), Both::left_leading, Both::left_stride);
          const std::uint64_t right =
              describe_operand(shared_address(shared + 256 + Both::left_size), Both::right_leading, Both::right_stride);
          float twice[Both::columns / 2], once[Both::columns / 2];
          fence_multiplies();
          multiply_warpgroup<Element>(twice, left, right, false);
          multiply_warpgroup<Element>(twice, left, right, true);
          commit_multiplies();
          fence_multiplies();
          multiply_warpgroup<Element>(once, left, right, false);
          commit_multiplies();
          CHECK((std::isnan(twice[0]) && std::isnan(once[0])));
          wait_multiplies<1>();
          CHECK((!std::isnan(twice[0]) && std::isnan(once[0])));
          wait_multiplies<0>();
          // PTX ISA, "Register Fragments" of wgmma, for D.
          for (int i = 0; i < Both::columns / 2; ++i) {
            const int row = thread_index() / 32 * 16 + thread_index() % 32 / 4 + 8 * (i / 2 % 2);
            const int column = i / 4 * 8 + thread_index() % 4 * 2 + i % 2;
            const double sum = both.sum(row, column);
            largest = std::max(largest, std::fabs(static_cast<double>(once[i]) - sum));
            largest = std::max(largest, std::fabs(static_cast<double>(twice[i]) - 2 * sum) / 2);
          }
        },
        schedule);
  }
  CHECK(largest < 2e-6);
  CHECK(largest > 0);
}

}  // namespace

TEST_CASE("a multiplication by its definition, with the strides of its descriptors; its sums are seen after the wait") {
  check_numbers<Half>();
  check_numbers<Brain>();
}
