// Bundles of any square side and any place in the generator's output, and bundles without an encoder that the library runs.
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>

#include "deviation.h"

using deepsim::Error;
using deepsim::runtime::Inverter;
using deepsim::runtime::Options;
using deepsim::runtime::detail::Activation;
using deepsim::runtime::detail::Display;
using deepsim::runtime::detail::EncoderKind;
using deepsim::runtime::detail::Kind;
using namespace deepsim::tests;

namespace {

// An encoder whose first layer has stride 1, as VGG's has, to 6 maps of a quarter of the side.
std::vector<Layer> small_encoder() {
  return {layer("conv1_1", Kind::conv, 3, 20, 3, 1, 1, Activation::relu),
          layer("pool1", Kind::pool, 0, 0, 2, 2, 0, Activation::none),
          layer("conv2_1", Kind::conv, 20, 6, 3, 1, 1, Activation::relu),
          layer("pool2", Kind::pool, 0, 0, 2, 2, 0, Activation::none)};
}

// The ends that a generator may have, each from 6 maps to an image of four times the side: an up-convolution, a convolution.
std::vector<Layer> small_generator(bool convolves) {
  std::vector<Layer> layers = {layer("conv2", Kind::conv, 6, 32, 3, 1, 1, Activation::lrelu),
                               layer("deconv1", Kind::deconv, 32, 16, 4, 2, 1, Activation::lrelu)};
  if (!convolves) {
    layers.push_back(layer("deconv0", Kind::deconv, 16, 3, 4, 2, 1, Activation::none));
    return layers;
  }
  layers.push_back(layer("deconv0", Kind::deconv, 16, 5, 4, 2, 1, Activation::lrelu));
  layers.push_back(layer("conv0", Kind::conv, 5, 3, 3, 1, 1, Activation::tanh255));
  return layers;
}

// From 4 maps to an image of eight times the side by up-convolutions of kernel 5, as Dosovitskiy & Brox 2015 have them.
std::vector<Layer> wide_generator() {
  return {wide_upconvolution(layer("deconv3", Kind::deconv, 4, 40, 4, 2, 1, Activation::lrelu02)),
          wide_upconvolution(layer("deconv2", Kind::deconv, 40, 16, 4, 2, 1, Activation::lrelu02)),
          wide_upconvolution(layer("deconv1", Kind::deconv, 16, 3, 4, 2, 1, Activation::none))};
}

void check(const Recipe& recipe) {
  const RandomBundle bundle(recipe);
  for (const std::string& isa : instruction_sets()) {
    CAPTURE(recipe.side);
    CAPTURE(recipe.offset);
    CAPTURE(isa);
    Options options;
    options.isa = isa;
    options.threads = 2;
    const Deviation found = deviation_of(bundle, options);
    CHECK(found.features < 2e-6);
    CHECK(found.levels < 2e-3);
    CHECK(found.part);
    CHECK(found.iterates);
  }
}

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    CHECK(error.kind() == "UsageError");
    CHECK(error.exit_code() == 2);
    return error.what();
  }
  return "done";
}

}  // namespace

TEST_CASE("an encoder takes squares of any side, also where rows and columns are left over") {
  for (const int side : {8, 33, 50, 64}) {
    const int full = side / 2 / 2 * 4;
    for (const bool convolves : {false, true})
      if (full == side) check({small_encoder(), small_generator(convolves), side, 0, convolves});
    std::vector<Layer> wider = small_generator(false);  // two rows and columns more on every side
    wider.front().padding = 2;
    if (full + 8 >= side) check({small_encoder(), wider, side, (full + 8 - side) / 2});
  }
}

TEST_CASE("an image lies where the geometry says, from one edge of the whole one to the other") {
  for (const int offset : {0, 1, 4, 7, 8}) {
    std::vector<Layer> wider = small_generator(false), convolving = small_generator(true);
    wider.front().padding = convolving.front().padding = 2;
    check({small_encoder(), wider, 24, offset});
    check({small_encoder(), convolving, 24, offset, true});
  }
  // All that a part's windows in the second layer read is zeros around the first.
  const Recipe zeros{{},
                     {layer("first", Kind::conv, 4, 6, 3, 1, 1, Activation::lrelu),
                      layer("second", Kind::conv, 6, 5, 1, 1, 2, Activation::lrelu),
                      layer("image", Kind::conv, 5, 3, 1, 1, 0, Activation::none)},
                     1,
                     0,
                     false,
                     1,
                     EncoderKind::none,
                     {4, 5, 5, false}};
  check(zeros);
  const Recipe pixel{{}, small_generator(false), 1, 13, false, 1, EncoderKind::none, {6, 4, 4, false}};
  check(pixel);
}

TEST_CASE("up-convolutions of kernel 5 agree with float64, whole and any part of an image, by Winograd and without") {
  for (const int extent : {1, 3, 4, 9})
    for (const auto& [side, offset] : {std::pair{8 * extent, 0}, std::pair{8 * extent - 3, 1}, std::pair{1, 8 * extent - 1}})
      check({{}, wide_generator(), side, offset, false, 1, EncoderKind::none, {4, extent, extent, false}});
}

TEST_CASE("images that must be enlarged are refused, and whole ones are not") {
  Recipe recipe{small_encoder(), small_generator(false), 20, 0};
  recipe.generator.pop_back();
  recipe.generator.push_back(layer("image", Kind::conv, 16, 3, 3, 1, 1, Activation::none));  // 10 pixels
  recipe.generated_side = 10;
  const RandomBundle bundle(recipe);
  Inverter inverter(bundle.path());
  CHECK(inverter.image_size() == 20);
  CHECK(inverter.full_image_size() == 10);
  CHECK(inverter.generated_size() == 10);
  const std::vector<std::uint8_t> image = random_images(1, 5, 20);
  std::vector<float> features(static_cast<std::size_t>(inverter.feature_size())), raw(10 * 10 * 3);
  std::vector<std::uint8_t> made(2 * 20 * 20 * 3), whole(10 * 10 * 3);
  inverter.encode(image.data(), 1, features.data());
  inverter.decode(features.data(), 1, whole.data(), true);
  inverter.decode_raw(features.data(), 1, raw.data(), true);
  CHECK(rounded(raw) == whole);
  CHECK(mean_difference(whole, reference_decode(bundle, reference_encode(bundle, image.data()))) < 2e-3);
  const std::string expected =
      "geometry: this bundle's images have 10 pixels and are enlarged to 20, which libdeepsim does not do. Decode full images "
      "and enlarge them, or give arrays of the host to Python's Inverter.";
  CHECK(message_of([&] { inverter.decode(features.data(), 1, made.data()); }) == expected);
  CHECK(message_of([&] { inverter.decode_raw(features.data(), 1, raw.data()); }) == expected);
  CHECK(message_of([&] { inverter.reconstruct(image.data(), 1, made.data()); }) == expected);
  CHECK(message_of([&] { inverter.interpolate(features.data(), features.data(), 2, made.data()); }) == expected);
}

TEST_CASE("a bundle without an encoder decodes and interpolates, and says why it does not encode") {
  const RandomBundle none({{}, small_generator(false), 20, 5, false, 1, EncoderKind::none, {6, 7, 7, false}});
  const RandomBundle graph({{}, small_generator(false), 20, 5, false, 1, EncoderKind::graph, {6, 7, 7, false}});
  CHECK(none.weights.count("encoder.conv1_1.weight") == 0);
  for (const RandomBundle* bundle : {&none, &graph}) {
    check({{}, small_generator(false), 20, 5, false, 1, bundle->manifest.encoder_kind, {6, 7, 7, false}});
    Inverter inverter(bundle->path());
    CHECK_FALSE(inverter.can_encode());
    CHECK(inverter.image_size() == 20);
    CHECK(inverter.full_image_size() == 28);
    CHECK(inverter.image_offset() == 5);
    CHECK(inverter.encoder() == (bundle == &none ? "" : "random"));
    CHECK(inverter.encoder_kind() == (bundle == &none ? "none" : "graph"));
    std::vector<float> features(2 * 6 * 7 * 7, 0.5f);
    std::vector<std::uint8_t> image(20 * 20 * 3), line(3 * 20 * 20 * 3);
    inverter.decode(features.data(), 1, image.data());
    inverter.interpolate(features.data(), features.data() + 6 * 7 * 7, 3, line.data());
    CHECK(std::equal(image.begin(), image.end(), line.begin()));
    const std::string expected =
        bundle == &none ? "encoder: this bundle has none, expected a table of layers. It decodes and interpolates."
                        : "encoder: random is a graph in encoder.onnx, expected a table of layers. Encode with ONNX Runtime, "
                          "and decode here.";
    CHECK(message_of([&] { inverter.encode(image.data(), 1, features.data()); }) == expected);
    CHECK(message_of([&] { inverter.reconstruct(image.data(), 1, line.data()); }) == expected);
    CHECK(message_of([&] { inverter.reencode(image.data(), 1, 2, {1, 2}, line.data()); }) == expected);
    CHECK(message_of([&] { inverter.encode(image.data(), 0, features.data()); }) == expected);
    inverter.decode(features.data(), 1, image.data());
    CHECK(std::equal(image.begin(), image.end(), line.begin()));
  }
}

TEST_CASE("a bundle without a generator encodes, and says why it does not decode") {
  const RandomBundle table({small_encoder(), {}, 20});
  const RandomBundle graph({{}, {}, 20, 0, false, 1, EncoderKind::graph, {6, 5, 5, false}});
  std::filesystem::remove(graph.folder / "weights.safetensors");  // nothing reads them
  const auto wanted = reference_encode(table, random_images(1, 5, 20).data());
  for (const RandomBundle* bundle : {&table, &graph}) {
    Inverter inverter(bundle->path());
    CHECK_FALSE(inverter.can_decode());
    CHECK(inverter.can_encode() == (bundle == &table));
    CHECK(inverter.layer() == (bundle == &table ? small_encoder().back().name : "fc6"));
    CHECK(inverter.image_size() == 20);
    CHECK(inverter.full_image_size() == 20);
    CHECK(inverter.image_offset() == 0);
    const std::vector<std::uint8_t> image = random_images(1, 5, 20);
    std::vector<float> features(static_cast<std::size_t>(inverter.feature_size())), raw(20 * 20 * 3);
    std::vector<std::uint8_t> made(2 * 20 * 20 * 3);
    const auto encode = [&] { inverter.encode(image.data(), 1, features.data()); };
    if (bundle == &table) {
      REQUIRE(features.size() == wanted.values.size());
      encode();
      CHECK(relative_error(features.data(), wanted.values) < 2e-6);
    } else {
      CHECK(message_of(encode).find("encoder: random is a graph in encoder.onnx") == 0);
    }
    const std::string expected = "generator: this bundle has none, expected a table of layers. It encodes only.";
    CHECK(message_of([&] { inverter.decode(features.data(), 1, made.data()); }) == expected);
    CHECK(message_of([&] { inverter.decode(features.data(), 0, made.data(), true); }) == expected);
    CHECK(message_of([&] { inverter.decode_raw(features.data(), 1, raw.data()); }) == expected);
    CHECK(message_of([&] { inverter.reconstruct(image.data(), 1, made.data()); }) == expected);
    CHECK(message_of([&] { inverter.reencode(image.data(), 1, 2, {1, 2}, made.data()); }) == expected);
    CHECK(message_of([&] { inverter.interpolate(features.data(), features.data(), 2, made.data()); }) == expected);
  }
}

TEST_CASE("pictures that are to be stretched are refused, and what they are made of is not") {
  const Recipe plain{small_encoder(), small_generator(false), 20, 0};
  Recipe recipe = plain;
  recipe.display = Display::stretch;
  const RandomBundle bundle(recipe), clipped(plain);
  Inverter inverter(bundle.path());
  CHECK(inverter.display() == "stretch");
  CHECK(Inverter(clipped.path()).display() == "clip");
  const std::vector<std::uint8_t> image = random_images(1, 5, 20);
  std::vector<float> features(static_cast<std::size_t>(inverter.feature_size())), raw(20 * 20 * 3);
  std::vector<std::uint8_t> made(2 * 20 * 20 * 3), wanted(20 * 20 * 3);
  inverter.encode(image.data(), 1, features.data());
  inverter.decode_raw(features.data(), 1, raw.data());
  Inverter(clipped.path()).decode(features.data(), 1, wanted.data());
  CHECK(rounded(raw) == wanted);
  const std::string expected =
      "display: this bundle's pictures are stretched, which libdeepsim does not do. Decode raw images and stretch them, or "
      "give arrays of the host to Python's Inverter.";
  CHECK(message_of([&] { inverter.decode(features.data(), 1, made.data()); }) == expected);
  CHECK(message_of([&] { inverter.reconstruct(image.data(), 1, made.data()); }) == expected);
  CHECK(message_of([&] { inverter.interpolate(features.data(), features.data(), 2, made.data()); }) == expected);
}

// Sanitizers watch every access: large extents meet the same code, and take them minutes.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kLargestExtent = 14;
#else
constexpr int kLargestExtent = 224;
#endif

TEST_CASE("generators without an up-convolution, of any features' extents and 3x3 convolutions of any padding") {
  for (int extent = 7; extent <= kLargestExtent; extent *= 2)
    for (const int padding : {0, 1, 2}) {
      if (extent > 28 && padding != 1) continue;  // as the generators of VGG's first layers are
      const std::vector<Layer> layers = {layer("first", Kind::conv, 4, 18, 3, 1, padding, Activation::lrelu),
                                         layer("second", Kind::deconv, 18, 5, 3, 1, 2 - padding, Activation::lrelu),
                                         layer("third", Kind::conv, 5, 6, 3, 1, 2 - padding, Activation::lrelu),
                                         layer("image", Kind::conv, 6, 3, 3, 1, padding, Activation::none)};
      const int full = extent - 4 + 4 * padding;
      check({{}, layers, full - 1, 1, false, 1, EncoderKind::none, {4, extent, extent, false}});
    }
}
