// The emulated GPU operations against independent arithmetic: numbers, matrices, schedules, shared memory that is used well.
// What is used badly: test_emulation_rules.cpp.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "device.h"

using namespace deepsim::cuda;
using emulation::launch;
using emulation::schedules;

namespace {

struct Format {
  int mantissa_bits, bias;
  std::uint32_t infinity;
};

Format format_of(Half) { return {10, 15, 0x7c00u}; }
Format format_of(Brain) { return {7, 127, 0x7f80u}; }

// A finite value from its definition.
double value_of(std::uint32_t bits, Format format) {
  const int exponent = static_cast<int>((bits & 0x7fffu) >> format.mantissa_bits);
  const double fraction = std::ldexp(bits & ((1u << format.mantissa_bits) - 1u), -format.mantissa_bits);
  const int power = std::max(exponent, 1) - format.bias;
  const double magnitude = std::ldexp(exponent == 0 ? fraction : 1 + fraction, power);
  return (bits & 0x8000u) != 0 ? -magnitude : magnitude;
}

template <class Element>
int wrong_unpacks() {
  const Format format = format_of(Element{});
  int wrong = 0;
  for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const Pair found = unpack<Element>(bits | 0xabcdu << 16);
    const std::uint32_t magnitude = bits & 0x7fffu;
    const double value = static_cast<double>(found.low);
    const bool right = magnitude > format.infinity    ? std::isnan(found.low)
                       : magnitude == format.infinity ? std::isinf(found.low)
                                                      : value == value_of(bits, format);
    const bool sign_right = magnitude > format.infinity || std::signbit(found.low) == ((bits & 0x8000u) != 0);
    const bool high_right = static_cast<double>(found.high) == value_of(0xabcdu, format);
    wrong += !(right && sign_right && high_right);
  }
  return wrong;
}

template <class Element>
bool packs_to(float value, std::uint32_t bits) {
  return pack<Element>(value, -value) == (bits | (bits | 0x8000u) << 16);
}

// Each value, the middle to the next one, and that middle's neighbours in fp32.
template <class Element>
int wrong_packs() {
  const Format format = format_of(Element{});
  int wrong = 0;
  for (std::uint32_t bits = 0; bits + 1 < format.infinity; ++bits) {
    const float value = static_cast<float>(value_of(bits, format));
    const float middle = static_cast<float>((value_of(bits, format) + value_of(bits + 1, format)) / 2);
    const std::uint32_t even = bits % 2 == 0 ? bits : bits + 1;
    wrong += !packs_to<Element>(value, bits);
    wrong += !packs_to<Element>(middle, even);
    wrong += !packs_to<Element>(std::nextafter(middle, 0.f), bits);
    wrong += !packs_to<Element>(std::nextafter(middle, std::numeric_limits<float>::infinity()), bits + 1);
  }
  return wrong;
}

// Matrices as the PTX ISA spreads them over a warp for mma.m16n8k16: element i of a lane's fragment.
struct Place {
  int row, column;
};
Place place_in_left(int lane, int i) {
  const bool upper = i == 0 || i == 1 || i == 4 || i == 5;
  return {lane / 4 + (upper ? 0 : 8), lane % 4 * 2 + i % 2 + (i >= 4 ? 8 : 0)};
}
Place place_in_right(int lane, int i) { return {lane % 4 * 2 + i % 2 + (i >= 2 ? 8 : 0), lane / 4}; }
Place place_in_sums(int lane, int i) { return {lane / 4 + (i >= 2 ? 8 : 0), lane % 4 * 2 + i % 2}; }

using Bits = std::uint16_t;

template <class Element>
float widened(Bits bits) {
  return unpack<Element>(bits).low;
}

template <class Element>
struct Product {
  alignas(16) Bits left[16][16], right[8][16];  // row, k; column, k
  float start[16][8], wanted[16][8];

  explicit Product(unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    const auto draw = [&] { return static_cast<Bits>(pack<Element>(normal(random), 0.f)); };
    for (auto& row : left) std::generate_n(row, 16, draw);
    for (auto& column : right) std::generate_n(column, 16, draw);
    for (int row = 0; row < 16; ++row) {
      for (int column = 0; column < 8; ++column) {
        float sum = start[row][column] = normal(random);
        for (int k = 0; k < 16; ++k) sum += widened<Element>(left[row][k]) * widened<Element>(right[column][k]);
        wanted[row][column] = sum;
      }
    }
  }

  int wrong(const std::array<std::array<float, 4>, 32>& found) const {
    int count = 0;
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 4; ++i) {
        const Place at = place_in_sums(lane, i);
        count += found[static_cast<std::size_t>(lane)][static_cast<std::size_t>(i)] != wanted[at.row][at.column];
      }
    }
    return count;
  }

  std::array<float, 4> start_of(int lane) const {
    std::array<float, 4> sums;
    for (int i = 0; i < 4; ++i) {
      const Place at = place_in_sums(lane, i);
      sums[static_cast<std::size_t>(i)] = start[at.row][at.column];
    }
    return sums;
  }
};

using Sums = std::array<std::array<float, 4>, 32>;

void keep(Sums& all, const float (&sums)[4]) {
  std::copy(sums, sums + 4, all[static_cast<std::size_t>(thread_index() % 32)].begin());
}

// From registers that the test fills by the layout's definition.
template <class Element>
void multiply_registers(const Product<Element>& product, Sums& found) {
  const int lane = thread_index();
  std::uint32_t left[4] = {}, right[2] = {};
  for (int i = 0; i < 8; ++i) {
    const Place at = place_in_left(lane, i);
    left[i / 2] |= std::uint32_t{product.left[at.row][at.column]} << i % 2 * 16;
  }
  for (int i = 0; i < 4; ++i) {
    const Place at = place_in_right(lane, i);
    right[i / 2] |= std::uint32_t{product.right[at.column][at.row]} << i % 2 * 16;
  }
  const auto start = product.start_of(lane);
  float sums[4] = {start[0], start[1], start[2], start[3]};
  multiply_add<Element>(sums, left, right[0], right[1]);
  keep(found, sums);
}

// From shared memory, copied by all lanes, loaded as a kernel does it.
template <class Element>
void multiply_shared(const Product<Element>& product, Sums& found) {
  DEEPSIM_SHARED_MEMORY(memory);
  const int lane = thread_index();
  copy_async(memory + lane * 16, &product.left[lane / 2][lane % 2 * 8]);
  if (lane < 16) copy_async(memory + 512 + lane * 16, &product.right[lane / 2][lane % 2 * 8]);
  commit_copies();
  wait_copies<0>();
  sync_block();
  std::uint32_t left[4], right[4];
  load_matrices(left, memory + lane % 16 * 32 + lane / 16 * 16);
  load_matrices(right, memory + 512 + lane % 8 * 32 + lane / 8 % 2 * 16);
  const auto start = product.start_of(lane);
  float sums[4] = {start[0], start[1], start[2], start[3]};
  multiply_add<Element>(sums, left, right[0], right[1]);
  keep(found, sums);
}

template <class Element>
void check_products() {
  for (unsigned seed = 0; seed < 20; ++seed) {
    const Product<Element> product(seed);
    for (const auto& schedule : schedules) {
      Sums found;
      launch({}, 32, 0, [&] { multiply_registers(product, found); }, schedule);
      CHECK(product.wrong(found) == 0);
      launch({}, 32, 768, [&] { multiply_shared(product, found); }, schedule);
      CHECK(product.wrong(found) == 0);
    }
  }
}

}  // namespace

TEST_CASE("16-bit values widen to what their bits mean") {
  CHECK(wrong_unpacks<Half>() == 0);
  CHECK(wrong_unpacks<Brain>() == 0);
}

TEST_CASE("fp32 rounds to the nearest 16-bit value, ties to the even one") {
  CHECK(wrong_packs<Half>() == 0);
  CHECK(wrong_packs<Brain>() == 0);
}

TEST_CASE("what 16 bits cannot hold becomes infinite, and every NaN the same NaN") {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float value : {65520.f, 1e6f, std::numeric_limits<float>::max(), infinity}) CHECK(packs_to<Half>(value, 0x7c00u));
  CHECK(packs_to<Half>(std::nextafter(65520.f, 0.f), 0x7bffu));
  for (const float value : {std::numeric_limits<float>::max(), infinity}) CHECK(packs_to<Brain>(value, 0x7f80u));
  CHECK(packs_to<Brain>(0x1.fefffep127f, 0x7f7fu));
  for (const float sign : {1.f, -1.f}) {
    const float nan = std::copysign(std::numeric_limits<float>::quiet_NaN(), sign);
    CHECK(pack<Half>(nan, 1.f) == 0x3c007fffu);
    CHECK(pack<Brain>(nan, 1.f) == 0x3f807fffu);
  }
}

TEST_CASE("fp32 keeps its bits") {
  for (const float value : {1.f, -0.f, 0x1p-149f, 0x1.fffffep127f, std::numeric_limits<float>::infinity()}) {
    const std::uint64_t packed = pack<Single>(value, -3.5f);
    CHECK(static_cast<std::uint32_t>(packed) == emulation::bits_of(value));
    CHECK(unpack<Single>(packed).low == value);
    CHECK(unpack<Single>(packed).high == -3.5f);
  }
}

TEST_CASE("division by a known number is exact up to 2^31 - 1") {
  constexpr std::int64_t most = std::numeric_limits<int>::max();
  std::minstd_rand random(1);  // below 2^31
  int wrong = 0;
  const auto check = [&](std::int64_t n, int divisor, Divisor by) {
    if (n < 0 || n > most) return;
    wrong += divide(static_cast<int>(n), by) != n / divisor;
  };
  const auto check_divisor = [&](int divisor) {
    const Divisor by(divisor);
    for (std::int64_t n = 0; n < 20; ++n) check(n, divisor, by);
    for (std::int64_t n = most - 20; n <= most; ++n) check(n, divisor, by);
    for (int i = 0; i < 100; ++i) {
      const std::int64_t largest = most / divisor, anywhere = static_cast<std::int64_t>(random()) % (largest + 1);
      const std::int64_t multiple = (i < 30 ? i : i < 60 ? largest - (i - 30) : anywhere) * divisor;
      for (std::int64_t n = multiple - 1; n <= multiple + 1; ++n) check(n, divisor, by);
    }
  };
  for (int divisor = 1; divisor <= 5000; ++divisor) check_divisor(divisor);
  for (int shift = 13; shift < 31; ++shift) {
    for (const int around : {-1, 0, 1}) check_divisor((1 << shift) + around);
  }
  check_divisor(std::numeric_limits<int>::max());
  CHECK(wrong == 0);
  CHECK(high_product(0xffffffffu, 0xffffffffu) == 0xfffffffeu);
}

TEST_CASE("fp32 functions") {
  CHECK(multiply_add(0x1.000002p0f, 0x1.000002p0f, -1.f) == 0x1.000001p-22f);  // 2^-22 + 2^-46; unfused: 2^-22
  CHECK(square_root(2.f) == 0x1.6a09e6p0f);
  CHECK(quotient(1.f, 3.f) == 0x1.555556p-2f);
  CHECK(hyperbolic_tangent(0.5f) == doctest::Approx(0.46211715726));
  for (const float value : {0.5f, -0.5f, -3.0f, NAN, -INFINITY}) CHECK(to_byte(value) == 0);
  CHECK(to_byte(1.5f) == 2);
  CHECK(to_byte(2.5f) == 2);
  for (const float value : {254.5f, 254.4f}) CHECK(to_byte(value) == 254);
  for (const float value : {254.6f, 255.0f, 1e9f, INFINITY}) CHECK(to_byte(value) == 255);
}

TEST_CASE("multiply_add is the product of 16x16 and 16x8 matrices, its sums in the stated order") {
  check_products<Half>();
  check_products<Brain>();
}

TEST_CASE("load_matrices gives lane l the pair l % 4 of row l / 4, of rows that lie anywhere") {
  std::vector<int> places(32);
  for (int i = 0; i < 32; ++i) places[static_cast<std::size_t>(i)] = i;
  std::shuffle(places.begin(), places.end(), std::mt19937(3));
  std::vector<std::array<std::uint32_t, 4>> found(32);
  launch({}, 32, 512, [&] {
    DEEPSIM_SHARED_MEMORY(memory);
    const int lane = thread_index(), place = places[static_cast<std::size_t>(lane)];
    auto* const row = reinterpret_cast<std::uint32_t*>(memory + place * 16);
    for (int i = 0; i < 4; ++i) shared_store(row + i, static_cast<std::uint32_t>(lane * 4 + i));
    sync_block();
    std::uint32_t values[4];
    load_matrices(values, row);
    std::copy(values, values + 4, found[static_cast<std::size_t>(lane)].begin());
  });
  for (std::uint32_t lane = 0; lane < 32; ++lane) {
    for (std::uint32_t matrix = 0; matrix < 4; ++matrix) CHECK(found[lane][matrix] == (matrix * 8 + lane / 4) * 4 + lane % 4);
  }
}

TEST_CASE("blocks and threads all run once, in the order asked for") {
  std::set<std::vector<int>> block_orders, thread_orders;
  for (const auto& schedule : schedules) {
    std::vector<int> blocks, threads;
    launch(
        {3, 5, 7}, 64, 0,
        [&] {
          if (thread_index() == 0) blocks.push_back(block_x() + 3 * (block_y() + 5 * block_z()));
          if (block_x() + block_y() + block_z() == 0) threads.push_back(thread_index());
        },
        schedule);
    block_orders.insert(blocks);
    thread_orders.insert(threads);
    if (schedule.threads == emulation::Order::ascending) CHECK(std::is_sorted(blocks.begin(), blocks.end()));
    if (schedule.threads == emulation::Order::descending) CHECK(std::is_sorted(threads.rbegin(), threads.rend()));
    CHECK(std::set<int>(blocks.begin(), blocks.end()).size() == 105);
    CHECK(blocks.size() == 105);
    CHECK(std::set<int>(threads.begin(), threads.end()).size() == 64);
    CHECK(threads.size() == 64);
  }
  CHECK(block_orders.size() == std::size(schedules));
  CHECK(thread_orders.size() == std::size(schedules));
}

TEST_CASE("a shuffle is another one for another seed, and the same for the same") {
  const auto order = [](std::uint64_t seed) {
    std::vector<int> threads;
    launch({2, 1, 1}, 64, 0, [&] { threads.push_back(thread_index()); }, {{}, emulation::Order::shuffled, seed});
    return threads;
  };
  CHECK(order(1) == order(1));
  CHECK(order(1) != order(2));
}

TEST_CASE("shared memory holds NaNs when a block starts, also after another block") {
  launch({2, 1, 1}, 1, 64, [] {
    DEEPSIM_SHARED_MEMORY(memory);
    CHECK(reinterpret_cast<std::uintptr_t>(memory) % 128 == 0);
    CHECK(std::all_of(memory, memory + 64, [](unsigned char byte) { return byte == 0xff; }));
    shared_store(memory + 5, static_cast<unsigned char>(1));
  });
}

TEST_CASE("a copy reads global memory when it is waited for, or when its thread ends") {
  alignas(16) float global[8] = {1, 1, 1, 1, 1, 1, 1, 1};
  launch({}, 1, 32, [&] {
    DEEPSIM_SHARED_MEMORY(memory);
    copy_async(memory, global);
    commit_copies();
    copy_async(memory + 16, global + 4);
    commit_copies();
    global[0] = 2;
    wait_copies<1>();
    global[0] = 3;
    CHECK(shared_load(reinterpret_cast<const float*>(memory)) == 2);
    global[4] = 4;
    wait_copies<0>();
    CHECK(shared_load(reinterpret_cast<const float*>(memory) + 4) == 4);
  });
  launch({}, 2, 16, [&] {
    DEEPSIM_SHARED_MEMORY(memory);
    if (thread_index() == 0) copy_async(memory, global);
    if (thread_index() == 0) global[0] = 5;
    if (thread_index() == 1) CHECK(*reinterpret_cast<const float*>(memory) == 5);  // around the checks: thread 0 has ended
  });
}

TEST_CASE("two host threads emulate at once") {
  const Product<Half> product(7);
  Sums found[2];
  const auto work = [&](int which) {
    for (int i = 0; i < 50; ++i) launch({}, 32, 768, [&] { multiply_shared(product, found[which]); }, schedules[which]);
  };
  std::thread other(work, 1);
  work(0);
  other.join();
  CHECK(product.wrong(found[0]) == 0);
  CHECK(product.wrong(found[1]) == 0);
}
