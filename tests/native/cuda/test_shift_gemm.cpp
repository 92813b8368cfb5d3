// The matrix product behind every layer with weights, emulated, against float64: every kernel, in every order of blocks
// and threads. What is broken on purpose: test_shift_gemm_faults.cpp.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "product_case.h"

using namespace deepsim::tests;
using deepsim::cuda::emulation::schedules;

namespace {

ProductCase blocks(int images, int channels, int outputs, int height, int width, int kernel, int pad, int groups = 1) {
  ProductCase layer{"blocks", images, channels, outputs, height, width, kernel, pad, groups};
  layer.out_pad = (kernel + pad) % 3;
  return layer;
}

ProductCase shuffle(int images, int channels, int outputs, int height, int width, int out_pad) {
  ProductCase layer{"shuffle", images, channels, outputs, height, width};
  layer.out_pad = out_pad;
  return layer;
}

// Of kernel 5 instead of 4.
ProductCase wide(ProductCase layer) {
  layer.kernel = 3;
  return layer;
}

ProductCase connected(int images, int channels, int height, int width, int outputs, int out_height, int out_width) {
  ProductCase layer{"connected", images, channels, outputs, height, width, 1, 0};
  layer.out_height = out_height;
  layer.out_width = out_width;
  layer.out_pad = 1;
  return layer;
}

ProductCase pixels(int images, int channels, int side, bool up, int kernel, int pad, bool bgr, bool tanh255, int crop) {
  ProductCase layer{"pixels", images, channels, 3, side, side, kernel, pad};
  layer.up = up;
  layer.slope = 1.0f;
  layer.bgr = bgr;
  layer.tanh255 = tanh255;
  layer.crop = crop;
  return layer;
}

ProductCase scaled(ProductCase layer) {
  layer.scaled = true;
  return layer;
}

ProductCase raw(ProductCase layer) {
  layer.store = "levels";
  return layer;
}

ProductCase flat(ProductCase layer) {
  layer.flat = true;
  return layer;
}

ProductCase split(ProductCase layer, int splits) {
  layer.splits = splits;
  return layer;
}

ProductCase with_slope(ProductCase layer, float slope) {
  layer.slope = slope;
  return layer;
}

// Sizes that are no multiples of anything, the smallest, and more rows and columns than a tile has.
const std::vector<ProductCase> CASES = {
    blocks(1, 16, 16, 1, 1, 1, 0),
    blocks(1, 16, 16, 1, 1, 3, 1),
    blocks(3, 32, 48, 3, 5, 2, 1),
    blocks(2, 48, 80, 7, 9, 3, 1),
    blocks(2, 64, 144, 7, 9, 3, 0),
    blocks(1, 96, 64, 3, 5, 5, 2),
    blocks(2, 64, 32, 7, 9, 5, 2, 2),
    blocks(2, 32, 96, 3, 5, 3, 1, 2),
    blocks(2, 32, 16, 3, 5, 3, 2),
    blocks(2, 16, 48, 5, 3, 2, 0),
    with_slope(blocks(9, 32, 144, 5, 3, 1, 0), 1.0f),
    flat(with_slope(blocks(4, 64, 80, 5, 3, 3, 1), 0.0f)),
    shuffle(1, 16, 16, 1, 1, 0),
    shuffle(2, 32, 48, 3, 5, 1),
    shuffle(3, 48, 16, 7, 9, 2),
    shuffle(1, 64, 32, 7, 9, 1),
    flat(shuffle(2, 96, 16, 3, 5, 0)),
    connected(1, 16, 1, 1, 16, 1, 1),
    connected(5, 64, 1, 1, 144, 1, 1),
    connected(70, 48, 3, 5, 80, 1, 1),
    connected(3, 32, 3, 5, 16 * 15, 3, 5),
    flat(connected(130, 96, 1, 1, 48 * 3, 1, 3)),
    split(connected(1, 16, 1, 1, 16, 1, 1), 1),
    split(connected(5, 64, 3, 5, 144, 1, 1), 4),
    split(connected(16, 48, 7, 9, 80, 1, 1), 7),
    split(connected(17, 32, 3, 5, 32 * 15, 3, 5), 3),
    flat(split(connected(3, 96, 1, 1, 48 * 3, 3, 1), 2)),
    split(blocks(1, 16, 16, 1, 1, 3, 1), 1),
    split(blocks(2, 96, 80, 7, 9, 3, 1), 3),
    split(blocks(2, 128, 32, 3, 5, 5, 2, 2), 2),
    split(blocks(2, 160, 96, 5, 3, 3, 1, 2), 4),
    flat(split(with_slope(blocks(4, 64, 80, 5, 3, 3, 1), 0.0f), 2)),
    split(shuffle(2, 64, 48, 3, 5, 1), 2),
    split(shuffle(1, 192, 32, 7, 9, 1), 5),
    flat(split(shuffle(2, 96, 16, 3, 5, 0), 3)),
    pixels(1, 16, 1, true, 2, 1, false, false, 0),
    pixels(2, 32, 9, true, 2, 1, true, false, 0),
    pixels(2, 48, 9, true, 2, 1, true, false, 15),
    pixels(1, 64, 7, true, 2, 1, false, true, 11),
    pixels(3, 16, 21, true, 2, 1, false, false, 31),
    pixels(2, 16, 7, false, 3, 1, false, true, 0),
    pixels(1, 96, 15, false, 3, 1, true, true, 11),
    pixels(2, 32, 7, false, 5, 2, true, false, 3),
    pixels(1, 32, 7, false, 1, 0, false, false, 0),
    scaled(pixels(2, 16, 9, true, 2, 1, true, false, 13)),
    scaled(pixels(1, 32, 7, false, 3, 1, false, true, 5)),
    raw(pixels(2, 32, 9, true, 2, 1, true, false, 0)),
    raw(pixels(3, 48, 21, true, 2, 1, true, true, 31)),
    raw(pixels(1, 16, 7, false, 3, 1, false, false, 0)),
    raw(scaled(pixels(2, 64, 7, false, 5, 2, true, false, 3))),
    wide(shuffle(1, 16, 16, 1, 1, 0)),
    wide(shuffle(3, 48, 32, 7, 9, 1)),
    flat(wide(shuffle(2, 64, 16, 3, 5, 0))),
    wide(split(shuffle(2, 128, 32, 3, 5, 1), 3)),
    pixels(2, 32, 9, true, 3, 1, true, false, 0),
    pixels(3, 16, 21, true, 3, 1, false, true, 31),
    raw(scaled(pixels(2, 32, 9, true, 3, 1, true, false, 15))),
};

// The sums are fp32. Their partial sums walk at random, so that a sum's error is about 0.3 2^-24 times the magnitudes that
// were added, whatever their number. Every value must be within this many 2^-24 (0.7 measured); outputs are rounded on top.
constexpr double kSumErrors = 1.5;

struct Errors {
  double relative = 0, largest = 0;  // in units of rounding; largest: in units of what one value may have
};

Errors errors_of(const ProductRun& run, const Written& written, const Precision& precision) {
  double difference = 0, norm = 0;
  Errors errors;
  for (std::size_t i = 0; i < written.values.size(); ++i) {
    const double wanted = run.wanted().values[i], error = std::fabs(precision.value(written.values[i]) - wanted);
    const double sums = kSumErrors * 0x1p-24 * run.added().values[i];
    const double least = precision.name == "half" ? 0x1p-25 : 0;  // half of a subnormal's unit
    const double allowed = precision.unit() * (std::fabs(wanted) + sums) + sums + least;
    errors.largest = std::isnan(error) ? INFINITY : std::max(errors.largest, error / allowed);
    difference += error * error;
    norm += wanted * wanted;
  }
  errors.relative = std::sqrt(difference / norm) / precision.unit();
  return errors;
}

// The level of a value before it is rounded to a byte.
double level_of(const ProductCase& layer, double value, int channel) {
  const double mean[3] = {104, 117, 123};
  const double scale = layer.scaled ? static_cast<double>(kScales[channel]) : 1;
  const double level = layer.tanh255 ? 255 * std::tanh(value) / scale : value / scale + mean[channel];
  return layer.store == "levels" ? level : std::clamp(level, 0.0, 255.0);
}

// How far images are from the levels, beyond the half that rounding to bytes takes, in units of what fp32 sums may add.
double level_error(const ProductRun& run, const Written& written) {
  const ProductCase& layer = run.layer();
  const bool raw = layer.store == "levels";
  const Tensor& wanted = run.wanted();
  const int side = layer.crop > 0 ? layer.crop : wanted.height, first = (wanted.height - side) / 2;
  double largest = 0;
  std::size_t next = 0;
  for (int n = 0; n < layer.images; ++n)
    for (int y = first; y < first + side; ++y)
      for (int x = first; x < first + side; ++x)
        for (int c = 0; c < 3; ++c) {
          const int channel = layer.bgr ? 2 - c : c;
          const double level = level_of(layer, wanted.at(n, channel, y, x), channel);
          const double sums = kSumErrors * 0x1p-24 * run.added().at(n, channel, y, x) * (layer.tanh255 ? 255 : 1) /
                              (layer.scaled ? static_cast<double>(kScales[channel]) : 1);
          // tanh, the mean, a division: fp32 operations on the level
          const double allowed = sums + 4 * 0x1p-24 * std::max(255.0, std::fabs(level));
          const std::uint32_t bits = written.values[next++];
          const double found = raw ? Precision{"single"}.value(bits) : bits;
          largest = std::max(largest, (std::fabs(found - level) - (raw ? 0 : 0.5)) / allowed);
        }
  CHECK(next == written.values.size());
  return largest;
}

void check_values(const ProductRun& run, const Written& written, const Precision& precision) {
  CHECK(written.touched_outside == 0);
  if (run.layer().makes_images()) {
    CHECK(level_error(run, written) <= (run.layer().store == "levels" ? 2 : 1));  // of levels, 1.2 measured
    return;
  }
  REQUIRE(written.values.size() == run.wanted().values.size());
  const Errors errors = errors_of(run, written, precision);
  CHECK(errors.relative > 0.2);
  if (precision.name == "single") {  // the sums' errors alone, larger where the sum itself is
    CHECK(errors.largest <= 3);      // 2.4 measured
    CHECK(errors.relative <= 10);    // 0.6 to 5.7 measured, 3.4e-7
    return;
  }
  CHECK(errors.largest <= 1);
  // Rounding alone: uniform up to one unit at a mantissa of 1 (0.58 in the mean square), to half of it at 2.
  if (written.values.size() >= 100) CHECK(errors.relative <= 0.46);  // 0.39 to 0.44 measured
}

void check_case(const ProductCase& layer, const Precision& precision, std::set<std::string>& done) {
  ProductRun run(layer, precision);
  std::vector<std::pair<int, Written>> first;  // of each depth
  for (const TileFacts& tile : tiles_for(layer.product_store(), layer.channels / layer.groups, precision)) {
    const std::string text = layer.text() + ", " + tile.name + ", " + precision.name;
    CAPTURE(text);
    const Written written = run.run(tile);
    check_values(run, written, precision);
    for (int order = 1; order < 4; ++order) CHECK(run.run(tile, schedules[order]) == written);  // the first was taken
    for (const auto& [depth, other] : first)
      if (depth == tile.depth) CHECK(written == other);
    first.emplace_back(tile.depth, written);
    done.insert(tile.name + "_" + layer.product_store());
  }
}

}  // namespace

TEST_CASE("every product agrees with float64, in every order, on every tile, and writes nothing else") {
  std::set<std::string> done;
  for (const ProductCase& layer : CASES) check_case(layer, {"half"}, done);
  CHECK(done == product_names({"half"}));
}

TEST_CASE("in fp32 every product agrees with float64, in every order, on every tile, and writes nothing else") {
  std::set<std::string> done;
  for (const ProductCase& layer : CASES) check_case(layer, {"single"}, done);
  CHECK(done == product_names({"single"}));
}

TEST_CASE("bfloat16 products agree with float64") {
  std::set<std::string> done;
  for (const int index : {3, 12, 21, 24, 29}) check_case(CASES[static_cast<std::size_t>(index)], {"brain"}, done);
  CHECK(done.size() >= 6);
}

TEST_CASE("an image's bits do not depend on its place in a batch, nor on who is beside it") {
  for (const Precision& precision : {Precision{"half"}, Precision{"single"}})
    for (const ProductCase& layer : CASES) {
      if (layer.images == 1) continue;
      const std::string text = layer.text() + ", " + precision.name;
      CAPTURE(text);
      ProductRun together(layer, precision);
      ProductRun last = together.alone(layer.images - 1), first = together.alone(0);
      const TileFacts tile = tiles_for(layer.product_store(), layer.channels / layer.groups, precision).front();
      const std::vector<std::uint32_t> all = together.run(tile).values;
      const auto size = static_cast<std::ptrdiff_t>(all.size()) / layer.images;
      CHECK(first.run(tile).values == std::vector<std::uint32_t>(all.begin(), all.begin() + size));
      CHECK(last.run(tile).values == std::vector<std::uint32_t>(all.end() - size, all.end()));
    }
}

TEST_CASE("levels, rounded, are the bytes of the same product") {
  for (const ProductCase& levels : CASES) {
    if (levels.store != "levels") continue;
    ProductCase bytes = levels;
    bytes.store = "pixels";
    for (const Precision& precision : {Precision{"half"}, Precision{"brain"}, Precision{"single"}}) {
      ProductRun raw(levels, precision), rounded(bytes, precision);
      const TileFacts tile = tiles_for("levels", levels.channels, precision).front();
      std::vector<std::uint32_t> found = raw.run(tile).values;
      for (std::uint32_t& bits : found)
        bits = static_cast<std::uint32_t>(std::clamp(std::nearbyint(Precision{"single"}.value(bits)), 0.0, 255.0));
      CHECK(found == rounded.run(tile).values);
    }
  }
}

TEST_CASE("a product that is split into one part has the bits of one that is not") {
  for (const ProductCase& whole : CASES) {
    if (whole.splits > 0 || whole.makes_images()) continue;
    const int channels = whole.channels / whole.groups;
    for (const Precision& precision : {Precision{"half"}, Precision{"single"}}) {
      const std::string text = whole.text() + ", " + precision.name;
      CAPTURE(text);
      ProductRun run(whole, precision), in_one_part(split(whole, 1), precision);
      std::map<int, Written> wanted;  // of each depth: that tiles of one depth give the same bits is checked above
      for (const TileFacts& tile : tiles_for(whole.store, channels, precision))
        if (wanted.count(tile.depth) == 0) wanted.emplace(tile.depth, run.run(tile));
      for (const TileFacts& tile : tiles_for("partial", channels, precision))
        if (wanted.count(tile.depth) > 0) CHECK(in_one_part.run(tile) == wanted.at(tile.depth));
    }
  }
}
