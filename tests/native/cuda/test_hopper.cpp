// The matrix product for Hopper, emulated, against float64: every kernel, in every order of threads, and with few buffers so
// that the phases of their barriers come round often. What is broken on purpose is noticed. The bits are those of no other
// kernel: how a multiplication adds its products is the tensor cores' own affair (and here unlike that of mma.sync).
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "product_case.h"
#include "shift_gemm_hopper.h"
#include "variants.h"

using namespace deepsim::tests;
using namespace deepsim::cuda;
using emulation::Rule;
using emulation::schedules;

namespace {

// Each kernel of variants.h, and tiles with so few buffers that each is used again at once.
template <class Element>
using two_stages = HopperTile<Element, 128, 128, 32, 2>;
template <class Element>
using three_stages = HopperTile<Element, 128, 128, 16, 3>;

constexpr int kBlocks = 2;  // so few that each takes several tiles

template <class T>
TileFacts facts(const std::string& name) {
  return {name, T::rows, T::columns, T::depth, T::threads, T::shared_bytes, kBlocks};
}

std::vector<TileFacts> hopper_tiles_for(const std::string& store, int channels) {
  std::vector<TileFacts> tiles;
#define TILE(name, rows, columns, depth, stages) \
  const TileFacts name##_facts = facts<HopperTile<Half, rows, columns, depth, stages>>(#name);
  DEEPSIM_CUDA_HOPPER_TILES(TILE)
#undef TILE
#define PRODUCT(tile, kind) \
  if (store == #kind && channels % tile##_facts.depth == 0) tiles.push_back(tile##_facts);
  DEEPSIM_CUDA_HOPPER_PRODUCTS(PRODUCT)
#undef PRODUCT
  return tiles;
}

std::set<std::string> hopper_product_names() {
#define PRODUCT(tile, kind) #tile "_" #kind,
  return {DEEPSIM_CUDA_HOPPER_PRODUCTS(PRODUCT)};
#undef PRODUCT
}

template <class T, Store kStore, class Policy = HopperCorrect>
EmulatedKernel kernel() {
  return {sizeof(ShiftGemm), [](const void* argument) {
            shift_gemm_hopper<T, kStore, Policy>(*static_cast<const ShiftGemm*>(argument), emulation::position.shared);
          }};
}

ProductCase blocks(int images, int channels, int outputs, int height, int width, int kernel, int pad, int groups = 1) {
  ProductCase layer{"blocks", images, channels, outputs, height, width, kernel, pad, groups};
  layer.out_pad = (kernel + pad) % 3;
  return layer;
}

ProductCase shuffle(int images, int channels, int outputs, int height, int width) {
  ProductCase layer{"shuffle", images, channels, outputs, height, width};
  layer.out_pad = 1;
  return layer;
}

// Of kernel 5 instead of 4.
ProductCase wide(ProductCase layer) {
  layer.kernel = 3;
  return layer;
}

ProductCase connected(int images, int channels, int height, int width, int outputs) {
  ProductCase layer{"connected", images, channels, outputs, height, width, 1, 0};
  layer.flat = true;
  return layer;
}

ProductCase split(ProductCase layer, int splits) {
  layer.splits = splits;
  return layer;
}

// One step, as many as there are buffers, and many times as many; fewer and more rows and columns than a tile has.
const std::vector<ProductCase> CASES = {
    blocks(1, 16, 16, 1, 1, 1, 0),
    blocks(1, 32, 64, 5, 3, 1, 0),
    blocks(2, 32, 144, 7, 9, 3, 1),
    blocks(3, 48, 80, 5, 9, 3, 1),
    blocks(1, 160, 272, 5, 7, 3, 1),
    blocks(2, 64, 96, 7, 9, 5, 2, 2),
    blocks(1, 288, 48, 3, 5, 2, 1, 3),
    shuffle(1, 16, 16, 1, 1),
    shuffle(3, 64, 32, 7, 9),
    shuffle(2, 224, 48, 5, 3),
    shuffle(9, 32, 32, 7, 9),  // one block takes several tiles, and keeps the weights
    shuffle(9, 64, 32, 7, 9),  // too many of them where there are six buffers
    connected(1, 16, 1, 1, 16),
    connected(70, 64, 3, 5, 80),
    connected(130, 32, 1, 1, 272),
    connected(3, 416, 1, 3, 16),
    blocks(5, 32, 32, 8, 9, 3, 1),
    split(connected(70, 64, 3, 5, 144), 1),
    split(connected(130, 160, 1, 3, 80), 4),
    split(blocks(2, 320, 80, 5, 9, 3, 1), 3),
    split(blocks(3, 128, 96, 5, 7, 3, 1, 2), 2),
    split(shuffle(2, 224, 48, 7, 9), 7),
    wide(shuffle(1, 16, 16, 1, 1)),
    wide(shuffle(3, 64, 32, 7, 9)),
    wide(split(shuffle(2, 96, 48, 5, 3), 3)),
};

// As in test_shift_gemm.cpp: outputs are rounded once, and each may be off by this many 2^-24 of what was added for it.
constexpr double kSumErrors = 1.5;

// The largest error of a value in units of what it may have; and, in units of rounding, that of all in the mean square.
std::pair<double, double> errors_of(const ProductRun& run, const Written& written, const Precision& precision) {
  double largest = 0, difference = 0, norm = 0;
  for (std::size_t i = 0; i < written.values.size(); ++i) {
    const double wanted = run.wanted().values[i], error = std::fabs(precision.value(written.values[i]) - wanted);
    const double sums = kSumErrors * 0x1p-24 * run.added().values[i];
    const double allowed = precision.unit() * (std::fabs(wanted) + sums) + sums + 0x1p-25;
    largest = std::isnan(error) ? INFINITY : std::max(largest, error / allowed);
    difference += error * error;
    norm += wanted * wanted;
  }
  return {largest, std::sqrt(difference / norm) / precision.unit()};
}

void check_values(const ProductRun& run, const Written& written, const Precision& precision) {
  CHECK(written.touched_outside == 0);
  REQUIRE(written.values.size() == run.wanted().values.size());
  const auto [largest, relative] = errors_of(run, written, precision);
  CHECK(largest <= 1);
  if (written.values.size() >= 100) CHECK(relative <= 0.46);
  CHECK(relative > 0.2);
}

void check_tile(ProductRun& run, const TileFacts& tile, const Precision& precision, const EmulatedKernel* kernel = nullptr) {
  const std::string text = run.layer().text() + ", " + tile.name + ", " + precision.name;
  CAPTURE(text);
  const Written written = run.run(tile, {}, kernel);
  check_values(run, written, precision);
  for (const auto& schedule : schedules) CHECK(run.run(tile, schedule, kernel) == written);
}

void check_all(const Precision& precision, const std::vector<ProductCase>& cases, std::set<std::string>& done) {
  for (const ProductCase& layer : cases) {
    ProductRun run(layer, precision);
    for (const TileFacts& tile : hopper_tiles_for(layer.product_store(), layer.channels / layer.groups)) {
      check_tile(run, tile, precision);
      done.insert(tile.name + "_" + layer.product_store());
    }
  }
}

}  // namespace

TEST_CASE("every product for Hopper agrees with float64, in every order, and writes nothing else") {
  std::set<std::string> done;
  check_all({"half"}, CASES, done);
  CHECK(done == hopper_product_names());
}

TEST_CASE("bfloat16 products for Hopper agree with float64") {
  std::set<std::string> done;
  check_all({"brain"}, {CASES[2], CASES[8], CASES[11], CASES[18]}, done);
  CHECK(done.size() >= 12);
}

TEST_CASE("with two or three buffers, each used many times") {
  const EmulatedKernel two = kernel<two_stages<Half>, Store::blocks>(), three = kernel<three_stages<Half>, Store::blocks>();
  for (const ProductCase& layer : CASES) {
    if (layer.product_store() != "blocks") continue;
    ProductRun run(layer, {"half"});
    if (layer.channels / layer.groups % 32 == 0) check_tile(run, facts<two_stages<Half>>("two"), {"half"}, &two);
    check_tile(run, facts<three_stages<Half>>("three"), {"half"}, &three);
  }
}

TEST_CASE("an image's bits do not depend on who is beside it") {
  for (const ProductCase& layer : {CASES[2], CASES[8], CASES[11]}) {
    ProductRun together(layer, {"half"});
    ProductRun last = together.alone(layer.images - 1);
    const TileFacts tile = hopper_tiles_for(layer.store, layer.channels / layer.groups).front();
    const std::vector<std::uint32_t> all = together.run(tile).values;
    const auto size = static_cast<std::ptrdiff_t>(all.size()) / layer.images;
    CHECK(last.run(tile).values == std::vector<std::uint32_t>(all.end() - size, all.end()));
  }
}

TEST_CASE("a change of tile or of buffers changes no bit, as long as chunks are as deep") {
  ProductRun run(CASES[4], {"half"});
  const EmulatedKernel two = kernel<two_stages<Half>, Store::blocks>();
  const std::vector<TileFacts> tiles = hopper_tiles_for("blocks", 160);
  CHECK(run.run(tiles[0]) == run.run(tiles[1]));
  CHECK(run.run(tiles[0]) == run.run(facts<two_stages<Half>>("two"), {}, &two));
}

namespace {

struct NoWaitUntilFull : HopperCorrect {
  static constexpr bool waits_until_full = false;
};
struct NoWaitUntilFree : HopperCorrect {
  static constexpr bool waits_until_free = false;
};
struct WrongFullParity : HopperCorrect {
  static constexpr unsigned full_parity = 1;
};
struct WrongFreeParity : HopperCorrect {
  static constexpr unsigned free_parity = 1;
};
struct ReleasedTooEarly : HopperCorrect {
  static constexpr int lax = 1;
};
struct KeepsTheLastBuffers : HopperCorrect {
  static constexpr bool releases_at_end = false;
};
struct ExpectsTooLittle : HopperCorrect {
  static constexpr int missing_bytes = 16;
};
struct ExpectsTooMuch : HopperCorrect {
  static constexpr int missing_bytes = -16;
};

struct NeverWaits : HopperCorrect {
  static constexpr bool waits_for_earlier = false;
};
struct WaitsLate : HopperCorrect {
  static constexpr bool waits_late = true;
};

// The rules that the fault breaks on this tile and layer, one for each order; a run that breaks none is not noticed.
template <class T, class Policy>
std::set<Rule> broken_on(const ProductCase& layer, int& noticed) {
  ProductRun run(layer, {"half"});
  const EmulatedKernel wrong = kernel<T, Store::blocks, Policy>();
  std::set<Rule> rules;
  for (const auto& schedule : schedules) {
    try {
      run.run(facts<T>("faulty"), schedule, &wrong);
    } catch (const emulation::Violation& violation) {
      rules.insert(violation.rule);
      ++noticed;
    }
  }
  return rules;
}

// In every order, on tiles of few and of many buffers.
template <class Policy>
void check_noticed(const std::set<Rule>& allowed) {
  const ProductCase layer = blocks(2, 192, 80, 5, 7, 3, 1);
  int noticed = 0;
  std::set<Rule> found = broken_on<two_stages<Half>, Policy>(layer, noticed);
  found.merge(broken_on<three_stages<Half>, Policy>(layer, noticed));
  found.merge(broken_on<HopperTile<Half, 128, 128, 32, 8>, Policy>(layer, noticed));
  CHECK(noticed == 12);
  for (const Rule rule : found) CHECK(allowed.count(rule) == 1);
}

}  // namespace

TEST_CASE("multiplying without a wait until a buffer is full is noticed in every order") {
  check_noticed<NoWaitUntilFull>({Rule::in_flight, Rule::unwritten, Rule::unsynchronised_read});
}

TEST_CASE("copying without a wait until a buffer is free is noticed in every order") {
  check_noticed<NoWaitUntilFree>({Rule::surplus, Rule::operands_in_use});
}

TEST_CASE("a wait for the wrong phase is noticed in every order") {
  check_noticed<WrongFullParity>({Rule::in_flight, Rule::unwritten});
  check_noticed<WrongFreeParity>({Rule::waits_for_ever});
}

TEST_CASE("a buffer released before its multiplications are over is noticed in every order") {
  check_noticed<ReleasedTooEarly>({Rule::operands_in_use});
}

TEST_CASE("a phase that expects fewer or more bytes than come is noticed in every order") {
  check_noticed<ExpectsTooLittle>({Rule::surplus});
  check_noticed<ExpectsTooMuch>({Rule::waits_for_ever});
}

TEST_CASE("the last buffers of a tile that are not released for the next one are noticed in every order") {
  int noticed = 0;
  const ProductCase layer = blocks(9, 96, 80, 5, 7, 3, 1);  // four tiles of 128 rows, for two blocks
  CHECK(broken_on<two_stages<Half>, KeepsTheLastBuffers>(layer, noticed) == std::set<Rule>{Rule::waits_for_ever});
  CHECK(noticed == 4);
  CHECK(broken_on<two_stages<Half>, HopperCorrect>(layer, noticed).empty());
}

TEST_CASE("a product that does not wait for the kernels before, or reads its input first, is noticed in every order") {
  check_noticed<NeverWaits>({Rule::never_waits});
  ProductRun run(blocks(2, 192, 80, 5, 7, 3, 1), {"half"});
  const EmulatedKernel late = kernel<three_stages<Half>, Store::blocks, WaitsLate>();
  const EmulatedKernel correct = kernel<three_stages<Half>, Store::blocks>();
  const Written right = run.run(facts<three_stages<Half>>("right"), {}, &correct);
  for (const auto& schedule : schedules) CHECK(!(run.run(facts<three_stages<Half>>("late"), schedule, &late) == right));
}

TEST_CASE("without faults nothing is noticed") {
  int noticed = 0;
  CHECK(broken_on<two_stages<Half>, HopperCorrect>(blocks(2, 192, 80, 5, 7, 3, 1), noticed).empty());
  CHECK(noticed == 0);
}

TEST_CASE("a span that is too short, and so shared memory, is noticed") {
  ProductRun run(CASES[2], {"half"});
  run.product().span -= 16;
  CHECK_THROWS_AS(run.run(hopper_tiles_for("blocks", 32).front()), emulation::Violation);
}
