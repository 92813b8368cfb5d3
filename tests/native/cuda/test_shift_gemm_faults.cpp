// Products that are broken on purpose: each fault is noticed, by a broken rule of shared memory or by a wrong result, and
// the same run without it passes. So the checks of test_shift_gemm.cpp are able to fail.
#include <doctest/doctest.h>

#include <functional>
#include <set>
#include <utility>

#include "product_case.h"
#include "shift_gemm.h"
#include "variants.h"

using namespace deepsim::tests;
using namespace deepsim::cuda;
using emulation::Rule;
using emulation::schedules;

namespace {

#define TILE(name, rows, columns, depth, warp_rows, warp_columns, stages) \
  template <class Element>                                                \
  using name##_tile = Tile<Element, rows, columns, depth, warp_rows, warp_columns, stages>;
DEEPSIM_CUDA_TILES(TILE)
#undef TILE

struct NoBarrier : Correct {
  static constexpr bool barrier = false;
};
struct LaxWait : Correct {
  static constexpr int lax = 1;
};
struct MissingBuffer : Correct {
  static constexpr int missing_buffers = 1;
};
struct NoBarrierBeforeStaging : Correct {
  static constexpr bool barrier_before_staging = false;
};
struct NoBarrierAfterStaging : Correct {
  static constexpr bool barrier_after_staging = false;
};

struct EarlySum : Correct {
  static constexpr int early = 1;
};

// As on 8.0 to 8.9.
struct InOrder : Correct {
  static constexpr bool weights_first = false;
};
struct NeverWaits : Correct {
  static constexpr bool waits_for_earlier = false;
};
struct WaitsLate : Correct {
  static constexpr bool waits_late = true;
};

// As on compute capability 7.5, where no copy goes on beside the computation and no kernel starts early.
struct ThroughRegisters : Correct {
  static constexpr bool through_registers = true, weights_first = false;
};
struct NoBarrierThroughRegisters : ThroughRegisters {
  static constexpr bool barrier = false;
};

template <class T, Store kStore, class Policy>
EmulatedKernel kernel() {
  return {sizeof(ShiftGemm), [](const void* argument) {
            shift_gemm<T, kStore, Policy>(*static_cast<const ShiftGemm*>(argument), emulation::position.shared);
          }};
}

const Precision kHalf{"half"}, kSingle{"single"};

const Precision& precision_of(Half) { return kHalf; }
const Precision& precision_of(Single) { return kSingle; }

TileFacts tile_named(const std::string& name, const ProductCase& layer, const Precision& precision) {
  for (const TileFacts& tile : tiles_for(layer.product_store(), layer.channels / layer.groups, precision))
    if (tile.name == name) return tile;
  throw std::out_of_range(name);
}

// Two chunks at the least, and more steps than are in flight.
ProductCase convolution(int kernel, int channels) {
  ProductCase layer{"blocks", 2, channels, 80, 5, 7, kernel, kernel / 2};
  layer.out_pad = 1;
  return layer;
}

// The last of an odd number of chunks, three of 32 channels or five of 16, is where pixels are staged.
ProductCase last_layer(int channels = 96) {
  ProductCase layer{"pixels", 2, channels, 3, 7, 7};
  layer.up = true;
  layer.slope = 1.0f;
  return layer;
}

ProductCase fully_connected() {
  ProductCase layer{"connected", 5, 64, 80, 3, 5, 1, 0};
  layer.splits = 2;
  return layer;
}

// In how many orders the kernel breaks a rule (one of these) or gives another result.
int orders_that_notice(const ProductCase& layer, const std::string& tile, const Precision& precision,
                       const EmulatedKernel& broken, const std::set<Rule>& rules) {
  ProductRun run(layer, precision);
  const TileFacts facts = tile_named(tile, layer, precision);
  const Written right = run.run(facts);
  int noticed = 0;
  for (const auto& schedule : schedules) {
    try {
      noticed += !(run.run(facts, schedule, &broken) == right);
    } catch (const emulation::Violation& violation) {
      const std::string what = violation.what();
      CAPTURE(what);
      CHECK(rules.count(violation.rule) == 1);
      ++noticed;
    }
  }
  return noticed;
}

template <class T, Store kStore, class Policy>
void check_on(const std::string& tile, const ProductCase& layer, const std::set<Rule>& rules) {
  const Precision& precision = precision_of(typename T::Element{});
  CAPTURE(tile);
  CAPTURE(precision.name);
  CHECK(orders_that_notice(layer, tile, precision, kernel<T, kStore, Policy>(), rules) == 4);
  CHECK(orders_that_notice(layer, tile, precision, kernel<T, kStore, Correct>(), {}) == 0);
}

// What older GPUs do gives the same bits in every order.
template <class T, Store kStore>
void check_older(const std::string& tile, const ProductCase& layer) {
  CAPTURE(tile);
  const Precision& precision = precision_of(typename T::Element{});
  CHECK(orders_that_notice(layer, tile, precision, kernel<T, kStore, InOrder>(), {}) == 0);
  CHECK(orders_that_notice(layer, tile, precision, kernel<T, kStore, ThroughRegisters>(), {}) == 0);
}

template <class Element, class Policy>
void check_deep_16(const std::set<Rule>& rules) {
  check_on<large16_tile<Element>, Store::blocks, Policy>("large16", convolution(2, 48), rules);
  check_on<small16_tile<Element>, Store::blocks, Policy>("small16", convolution(1, 144), rules);
  check_on<skinny16_tile<Element>, Store::partial, Policy>("skinny16", fully_connected(), rules);
  check_on<image16_tile<Element>, Store::pixels, Policy>("image16", last_layer(), rules);
}

// In every order, on each tile: what is broken is noticed, and the policy without faults is not.
template <class Policy>
void check_noticed(const std::set<Rule>& rules) {
  check_on<large_tile<Half>, Store::blocks, Policy>("large", convolution(3, 64), rules);
  check_on<small_tile<Half>, Store::blocks, Policy>("small", convolution(3, 64), rules);
  check_on<skinny_tile<Half>, Store::partial, Policy>("skinny", fully_connected(), rules);
  check_on<image_tile<Half>, Store::pixels, Policy>("image", last_layer(), rules);
  check_deep_16<Half, Policy>(rules);
  check_deep_16<Single, Policy>(rules);
}

// A run that is told something wrong of its layer gives another result, or reads what was never written.
bool changes_result(const ProductCase& layer, const Precision& precision, const std::function<void(ProductRun&)>& fault) {
  ProductRun right(layer, precision), wrong(layer, precision);
  fault(wrong);
  const TileFacts tile = tiles_for(layer.store, layer.channels, precision).front();
  return !(right.run(tile) == wrong.run(tile));
}

}  // namespace

TEST_CASE("a missing barrier between copying and reading is noticed in every order") {
  check_noticed<NoBarrier>({Rule::unsynchronised_read, Rule::in_flight, Rule::unwritten});
}

TEST_CASE("weights that come in order, or through registers, give the same bits; they need the barrier too") {
  check_older<large_tile<Half>, Store::blocks>("large", convolution(3, 64));
  check_older<small_tile<Half>, Store::blocks>("small", convolution(2, 96));
  check_older<skinny_tile<Half>, Store::partial>("skinny", fully_connected());
  check_older<image_tile<Half>, Store::pixels>("image", last_layer());
  check_older<narrow16_tile<Half>, Store::blocks>("narrow16", convolution(1, 144));
  check_older<large16_tile<Single>, Store::blocks>("large16", convolution(2, 48));
  check_older<skinny16_tile<Single>, Store::partial>("skinny16", fully_connected());
  const std::set<Rule> rules = {Rule::unsynchronised_read, Rule::in_flight, Rule::unwritten, Rule::overwritten_read};
  check_on<large_tile<Half>, Store::blocks, NoBarrierThroughRegisters>("large", convolution(3, 64), rules);
  check_on<skinny_tile<Half>, Store::partial, NoBarrierThroughRegisters>("skinny", fully_connected(), rules);
}

TEST_CASE("a wait for one group of copies too few is noticed in every order") { check_noticed<LaxWait>({Rule::in_flight}); }

TEST_CASE("one buffer of input too few is noticed in every order") {
  check_noticed<MissingBuffer>({Rule::in_flight, Rule::overwritten_read});
}

TEST_CASE("bytes that are staged before all warps have read the last input are noticed in every order") {
  check_on<image_tile<Half>, Store::pixels, NoBarrierBeforeStaging>("image", last_layer(), {Rule::overwritten_read});
  const std::set<Rule> rules = {Rule::overwritten_read, Rule::unsynchronised_read};  // lanes read on their own
  check_on<image16_tile<Single>, Store::pixels, NoBarrierBeforeStaging>("image16", last_layer(80), rules);
}

TEST_CASE("bytes that are read before all warps have staged theirs are noticed in every order") {
  const std::set<Rule> rules = {Rule::overwritten_read, Rule::unsynchronised_read};
  check_on<image_tile<Half>, Store::pixels, NoBarrierAfterStaging>("image", last_layer(), rules);
  check_on<image16_tile<Single>, Store::pixels, NoBarrierAfterStaging>("image16", last_layer(), rules);
}

TEST_CASE("a sum that is stored before its last part is ready is noticed in every order") {
  ProductCase layer = fully_connected();
  layer.splits = 3;
  check_on<skinny_tile<Half>, Store::partial, EarlySum>("skinny", layer, {});
  check_on<small16_tile<Single>, Store::partial, EarlySum>("small16", layer, {});
}

TEST_CASE("a product that does not wait for the kernels before, or reads its input first, is noticed in every order") {
  check_noticed<NeverWaits>({Rule::never_waits});
  check_noticed<WaitsLate>({});
}

TEST_CASE("phases in the wrong order change the result") {
  ProductCase layer{"shuffle", 1, 16, 16, 3, 5};
  const auto swap_phases = [](ProductRun& run) {
    Tensor& weight = run.weight();
    for (int in = 0; in < weight.images; ++in)
      for (int out = 0; out < weight.channels; ++out)
        for (int r = 0; r < 4; ++r)
          for (int s = 0; s < r; ++s) std::swap(weight.at(in, out, r, s), weight.at(in, out, s, r));
  };
  for (const Precision& precision : {kHalf, kSingle}) CHECK(changes_result(layer, precision, swap_phases));
}

TEST_CASE("a shift, a pitch, a plane or a count that is off by one changes the result") {
  const auto changes = [](const Precision& precision, const std::function<void(ShiftGemm&)>& fault) {
    return changes_result(convolution(3, 32), precision, [&](ProductRun& run) { fault(run.product()); });
  };
  for (const Precision& precision : {kHalf, kSingle}) {
    CHECK(!changes(precision, [](ShiftGemm&) {}));
    CHECK(changes(precision, [](ShiftGemm& told) { ++told.first_shift; }));
    CHECK(changes(precision, [](ShiftGemm& told) { --told.pitch; }));
    CHECK(changes(precision, [](ShiftGemm& told) { told.rows -= 2 * told.pitch; }));
    CHECK(changes(precision, [](ShiftGemm& told) { ++told.windows_across; }));
    CHECK(changes(precision, [](ShiftGemm& told) { --told.windows_down; }));
    CHECK(changes(precision, [](ShiftGemm& told) { told.slope = 0.2f; }));
    CHECK(changes(precision, [](ShiftGemm& told) { told.image_rows = Divisor(told.image_rows.value + 1); }));
  }
}

TEST_CASE("a span that is too short, and so shared memory, is noticed") {
  const auto shorten = [](ProductRun& run) { run.product().span -= 16; };
  for (const Precision& precision : {kHalf, kSingle})
    CHECK_THROWS_AS(changes_result(convolution(3, 32), precision, shorten), emulation::Violation);
}
