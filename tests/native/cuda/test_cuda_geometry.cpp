// Squares of any side, anywhere in the generator's output, and bundles without an encoder, on the emulated GPU.
#include <doctest/doctest.h>

#include "../deviation.h"
#include "stand_in.h"

using deepsim::Error;
using deepsim::runtime::Inverter;
using deepsim::runtime::detail::Activation;
using deepsim::runtime::detail::EncoderKind;
using deepsim::runtime::detail::Kind;
using namespace deepsim::tests;

namespace {

// An encoder whose first layer has stride 1, as VGG's has.
std::vector<Layer> encoder() {
  return {layer("conv1_1", Kind::conv, 3, 20, 3, 1, 1, Activation::relu),
          layer("pool1", Kind::pool, 0, 0, 2, 2, 0, Activation::none),
          layer("conv2_1", Kind::conv, 20, 6, 3, 1, 1, Activation::relu)};
}

std::vector<Layer> generator(bool convolves) {
  std::vector<Layer> layers = {layer("conv2", Kind::conv, 6, 16, 3, 1, 2, Activation::lrelu)};
  layers.push_back(
      layer("deconv0", Kind::deconv, 16, convolves ? 5 : 3, 4, 2, 1, convolves ? Activation::lrelu : Activation::none));
  if (convolves) layers.push_back(layer("conv0", Kind::conv, 5, 3, 3, 1, 1, Activation::tanh255));
  return layers;
}

void check(const Recipe& recipe, const char* precision, double features, double levels) {
  CAPTURE(recipe.side);
  CAPTURE(recipe.offset);
  CAPTURE(precision);
  const Deviation found = deviation_of(RandomBundle(recipe), on_gpu(2, true, precision));
  CHECK(found.features < features);
  CHECK(found.levels < levels);
  CHECK(found.part);
  CHECK(found.iterates);
}

}  // namespace

TEST_CASE("squares of any side at any offset agree with float64 on the emulated GPU, re-encoded ones too") {
  for (const auto& [side, offset] : {std::pair{12, 0}, std::pair{14, 1}, std::pair{16, 4}, std::pair{21, 3}})
    for (const bool convolves : {false, true}) {
      check({encoder(), generator(convolves), side, offset, convolves}, "fp32", 2e-6, 5e-4);
      check({encoder(), generator(convolves), side, offset, convolves}, "fp16", 2 * 0x1p-11, 240 * 0x1p-11);
    }
}

TEST_CASE("up-convolutions of kernel 5 agree with float64 on the emulated GPU, whole and any part of an image") {
  const std::vector<Layer> layers = {
      wide_upconvolution(layer("deconv2", Kind::deconv, 4, 24, 4, 2, 1, Activation::lrelu02)),
      wide_upconvolution(layer("deconv1", Kind::deconv, 24, 16, 4, 2, 1, Activation::lrelu02)),
      wide_upconvolution(layer("deconv0", Kind::deconv, 16, 3, 4, 2, 1, Activation::none)),
  };
  for (const auto& [side, offset] : {std::pair{24, 0}, std::pair{21, 1}, std::pair{1, 23}}) {
    const Recipe recipe{{}, layers, side, offset, false, 1, EncoderKind::none, {4, 3, 3, false}};
    check(recipe, "fp32", 1e-9, 5e-4);
    check(recipe, "fp16", 1e-9, 240 * 0x1p-11);
  }
}

TEST_CASE("images that must be enlarged are encoded and decoded whole on the emulated GPU, and refused else") {
  Recipe recipe{encoder(), {layer("image", Kind::conv, 6, 3, 3, 1, 1, Activation::none)}, 12, 0};
  recipe.generated_side = 6;  // of photographs that take more memory than the images
  const RandomBundle bundle(recipe);
  Inverter inverter(bundle.path(), on_gpu(2, true, "fp32"));
  const std::vector<std::uint8_t> images = random_images(2, 5, 12);
  std::vector<float> features(2 * 6 * 6 * 6);
  std::vector<std::uint8_t> made(2 * 6 * 6 * 3), refused(2 * 12 * 12 * 3);
  inverter.encode(images.data(), 2, features.data());
  inverter.decode(features.data(), 2, made.data(), true);
  for (std::size_t image = 0; image < 2; ++image) {
    const auto wanted = reference_encode(bundle, images.data() + image * 12 * 12 * 3);
    CHECK(relative_error(features.data() + image * 216, wanted.values) < 2e-6);
    const std::vector<std::uint8_t> own(made.begin() + static_cast<std::ptrdiff_t>(image) * 108,
                                        made.begin() + static_cast<std::ptrdiff_t>(image + 1) * 108);
    CHECK(mean_difference(own, reference_decode(bundle, wanted)) < 5e-3);
  }
  CHECK_THROWS_AS(inverter.decode(features.data(), 2, refused.data()), Error);
  CHECK_THROWS_AS(inverter.reconstruct(images.data(), 2, refused.data()), Error);
}

TEST_CASE("a bundle without an encoder decodes on the emulated GPU, and says why it does not encode") {
  for (const EncoderKind kind : {EncoderKind::none, EncoderKind::graph}) {
    const Recipe recipe{{}, generator(false), 10, 3, false, 1, kind, {6, 5, 5, false}};
    check(recipe, "fp32", 1e-9, 5e-4);
    const RandomBundle bundle(recipe);
    Inverter inverter(bundle.path(), on_gpu());
    CHECK_FALSE(inverter.can_encode());
    std::vector<float> features(6 * 5 * 5, 0.5f);
    std::vector<std::uint8_t> image(10 * 10 * 3), again(10 * 10 * 3);
    inverter.decode(features.data(), 1, image.data());
    CHECK_THROWS_AS(inverter.encode(image.data(), 1, features.data()), Error);
    CHECK_THROWS_AS(inverter.reconstruct(image.data(), 1, again.data()), Error);
    CHECK_THROWS_AS(inverter.encode(deepsim::runtime::DeviceMemory(std::uint64_t{8}), 1,
                                    deepsim::runtime::DeviceMemory(std::uint64_t{8}), nullptr),
                    Error);
    inverter.decode(features.data(), 1, again.data());
    CHECK(again == image);
  }
}

TEST_CASE("an encoder alone encodes on the emulated GPU, and says why it does not decode") {
  const RandomBundle table({encoder(), {}, 12});
  Inverter inverter(table.path(), on_gpu(1, true, "fp32"));
  const std::vector<std::uint8_t> image = random_images(1, 5, 12);
  const auto wanted = reference_encode(table, image.data());
  std::vector<float> features(wanted.values.size());
  inverter.encode(image.data(), 1, features.data());
  CHECK(relative_error(features.data(), wanted.values) < 2e-6);
  std::vector<std::uint8_t> made(12 * 12 * 3);
  CHECK_THROWS_AS(inverter.decode(features.data(), 1, made.data()), Error);
  CHECK_THROWS_AS(inverter.reconstruct(image.data(), 1, made.data()), Error);
  const RandomBundle graph({{}, {}, 12, 0, false, 1, EncoderKind::graph, {6, 5, 5, false}});
  CHECK_FALSE(Inverter(graph.path(), on_gpu()).can_encode());
}

TEST_CASE("photographs of 224 pixels through 3x3 convolutions of stride 1 agree with float64 on the emulated GPU") {
  const Recipe recipe{{layer("conv1_1", Kind::conv, 3, 8, 3, 1, 1, Activation::relu),
                       layer("pool1", Kind::pool, 0, 0, 2, 2, 0, Activation::none),
                       layer("conv2_1", Kind::conv, 8, 8, 3, 1, 1, Activation::relu),
                       layer("pool2", Kind::pool, 0, 0, 2, 2, 0, Activation::none),
                       layer("pool3", Kind::pool, 0, 0, 2, 2, 0, Activation::none)},
                      {layer("deconv2", Kind::deconv, 8, 8, 4, 2, 1, Activation::lrelu),
                       layer("deconv1", Kind::deconv, 8, 4, 4, 2, 1, Activation::lrelu),
                       layer("deconv0", Kind::deconv, 4, 3, 4, 2, 1, Activation::none)},
                      224,
                      0};
  const RandomBundle bundle(recipe);
  const std::vector<std::uint8_t> image = random_images(1, 3, 224);
  const auto features = reference_encode(bundle, image.data());
  std::vector<float> found(features.values.size());
  Inverter inverter(bundle.path(), on_gpu(1, true, "fp32"));
  inverter.encode(image.data(), 1, found.data());
  CHECK(relative_error(found.data(), features.values) < 2e-6);
  std::vector<std::uint8_t> decoded(224 * 224 * 3);
  inverter.decode(found.data(), 1, decoded.data());
  CHECK(mean_difference(decoded, reference_decode(bundle, features)) < 5e-4);
}
