// Each operation by itself against its float64 twin, with every instruction set and with one thread and several.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <random>

#include "deviation.h"
#include "footprint.h"
#include "lowering.h"
#include "operation.h"

using namespace deepsim::runtime::detail;
using namespace deepsim::tests;
using deepsim::kernels::blocks_of;
using deepsim::kernels::kBlock;
using deepsim::kernels::reference::Image;

namespace {

Machine machine_of(const std::string& isa, int threads) {
  Machine machine;
  machine.kernels = kernels_named(isa);
  machine.pool = std::make_shared<ThreadPool>(threads);
  return machine;
}

// Run an operation on so many images, with just the scratch that it asks for.
std::vector<float> run(const Operation& operation, Machine* machine, const void* in, int images) {
  machine->scratch_floats = (operation.scratch_floats(*machine, images) + 15) / 16 * 16;
  machine->scratch = Buffer(machine->scratch_floats * static_cast<std::size_t>(machine->pool->threads()) * sizeof(float));
  machine->panel = Buffer(operation.panel_floats(*machine, images) * sizeof(float));
  std::vector<float> out(operation.out_bytes() / sizeof(float) * static_cast<std::size_t>(images), -7.0f);
  operation.run(*machine, in, out.data(), images);
  return out;
}

std::vector<float> random_values(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(random() % 2001) / 1000.0f - 1.0f;
  return values;
}

Image random_image(const Shape& shape, unsigned seed) {
  Image image(shape.channels, shape.height, shape.width);
  const std::vector<float> values = random_values(image.values.size(), seed);
  std::copy(values.begin(), values.end(), image.values.begin());
  return image;
}

std::size_t place(const Image& image, int c, int y, int x) {
  return static_cast<std::size_t>(((c / kBlock * image.height + y) * image.width + x) * kBlock + c % kBlock);
}

// [C / 16][H][W][16], and back.
std::vector<float> blocked(const Image& image) {
  std::vector<float> values(static_cast<std::size_t>(blocks_of(image.channels) * kBlock * image.height * image.width));
  for (int c = 0; c < image.channels; ++c)
    for (int y = 0; y < image.height; ++y)
      for (int x = 0; x < image.width; ++x) values[place(image, c, y, x)] = static_cast<float>(image.at(c, y, x));
  return values;
}

// The relative error of a blocked tensor.
double error_of(const float* found, const Image& wanted) {
  Image plain = wanted;
  std::vector<float> values;
  for (int c = 0; c < wanted.channels; ++c)
    for (int y = 0; y < wanted.height; ++y)
      for (int x = 0; x < wanted.width; ++x) values.push_back(found[place(wanted, c, y, x)]);
  return relative_error(values.data(), plain.values);
}

template <class Check>
void on_every_machine(const Check& check) {
  for (const std::string& isa : instruction_sets())
    for (const int threads : {1, 3}) {
      CAPTURE(isa);
      CAPTURE(threads);
      check(machine_of(isa, threads));
    }
}

}  // namespace

TEST_CASE("convolutions, direct and by Winograd, agree with float64 on maps whose tiles do not divide them") {
  struct Case {
    int channels, outputs, kernel, padding, groups, winograd;
  };
  const Shape shapes[] = {{32, 13, 9, false}, {32, 8, 17, false}};
  for (const Case& each :
       {Case{32, 20, 3, 1, 1, 0}, Case{32, 20, 3, 1, 1, 4}, Case{32, 48, 2, 1, 1, 3}, Case{32, 16, 5, 2, 1, 2},
        Case{32, 64, 3, 0, 2, 4}, Case{32, 64, 5, 2, 2, 0}, Case{32, 7, 1, 0, 1, 0}})
    for (const Shape& shape : shapes) {
      const Layer conv =
          layer("conv", Kind::conv, each.channels, each.outputs, each.kernel, 1, each.padding, Activation::lrelu, each.groups);
      const auto weight =
          random_values(static_cast<std::size_t>(each.outputs * each.channels / each.groups * each.kernel * each.kernel), 1);
      const auto bias = random_values(static_cast<std::size_t>(each.outputs), 2);
      const Image in = random_image(shape, 3), other = random_image(shape, 4);
      Image wanted = deepsim::kernels::reference::convolve(other, weight, bias, each.kernel, 1, each.padding, each.groups);
      for (double& value : wanted.values) value = deepsim::kernels::reference::leaky_relu(value, 0.3);
      std::vector<float> both = blocked(in);
      const std::vector<float> second = blocked(other);
      both.insert(both.end(), second.begin(), second.end());
      on_every_machine([&](Machine machine) {
        CAPTURE(each.kernel);
        CAPTURE(each.winograd);
        Lowered lowered = lower_convolution(conv, shape, weight.data(), bias.data());
        lowered.layer.winograd = each.winograd;
        const int tile = machine.kernels->tile_columns;
        const Buffer packed = each.winograd > 0 ? pack_winograd(lowered.weights, tile, *machine.pool)
                                                : pack_direct(lowered.weights, tile, *machine.pool);
        lowered.layer.weights = packed.floats();
        lowered.layer.bias = lowered.bias.data();
        const std::unique_ptr<Operation> operation = convolution(lowered.layer);
        const std::vector<float> found = run(*operation, &machine, both.data(), 2);
        CHECK(error_of(found.data() + found.size() / 2, wanted) < 3e-6);
      });
    }
}

TEST_CASE("pooling takes the largest of each window, cut off at the border, and normalises over five channels") {
  const Image in = random_image({21, 9, 12, false}, 5);
  for (const auto& [kernel, stride, height, width] :
       {std::array{2, 2, 4, 6}, std::array{3, 2, 4, 6}, std::array{4, 3, 3, 4}, std::array{1, 1, 9, 12}})
    for (const bool normalises : {false, true}) {
      Image wanted = deepsim::kernels::reference::max_pool(in, kernel, stride, height, width);
      for (double& value : wanted.values) value *= normalises ? 40 : 1;  // where normalising is worth something
      Image scaled = in;
      for (double& value : scaled.values) value *= normalises ? 40 : 1;
      if (normalises) wanted = deepsim::kernels::reference::local_response_norm(wanted);
      const std::vector<float> values = blocked(scaled);
      const deepsim::kernels::Pool record{blocks_of(21), 21, 9, 12, height, width, kernel, stride, normalises};
      on_every_machine([&](Machine machine) {
        const std::vector<float> found = run(*pool(record), &machine, values.data(), 1);
        CHECK(error_of(found.data(), wanted) < 1e-6);
      });
    }
}

TEST_CASE("features come in and go out in the order of their channels, padding as zeros") {
  const Image in = random_image({37, 3, 5, false}, 6);
  const std::vector<float> plain(in.values.begin(), in.values.end());
  on_every_machine([&](Machine machine) {
    const std::vector<float> inside = run(*features_in({37, 3, 5}), &machine, plain.data(), 1);
    CHECK(inside == blocked(in));
    CHECK(run(*features_out({37, 3, 5}), &machine, inside.data(), 1) == plain);
  });
}

TEST_CASE("pixels come in as network values, by stride and with zeros around, in both orders of colours") {
  const std::vector<std::uint8_t> image = random_images(1, 7, 11);
  for (const bool bgr : {false, true})
    for (const auto& [stride, pad, extent] :
         {std::array{1, 1, 13}, std::array{1, 0, 11}, std::array{2, 1, 7}, std::array{4, 2, 4}}) {
      PixelsIn record{11, stride, pad, extent, extent, bgr, {100, 110, 120}, {0.5f, 1, 2}};
      on_every_machine([&](Machine machine) {
        const std::vector<float> found = run(*pixels_in(record), &machine, image.data(), 1);
        const Image grid(3 * stride * stride, extent, extent);
        int different = 0;
        for (int y = 0; y < extent * stride; ++y)
          for (int x = 0; x < extent * stride; ++x)
            for (int c = 0; c < 3; ++c) {
              const int row = y - pad, column = x - pad, phase = y % stride * stride + x % stride;
              const bool inside = row >= 0 && column >= 0 && row < 11 && column < 11;
              const auto level =
                  inside ? image[static_cast<std::size_t>((row * 11 + column) * 3 + (bgr ? 2 - c : c))] : std::uint8_t{0};
              const float wanted = inside ? (static_cast<float>(level) - record.mean[c]) * record.scale[c] : 0.0f;
              different += found[place(grid, phase * 3 + c, y / stride, x / stride)] != wanted;
            }
        CHECK(different == 0);
      });
    }
}

TEST_CASE("what a layer was said to take in memory is what its lowered weights take") {
  const Shape photo{3, 32, 32, false}, maps{40, 10, 10, false};
  const PixelConvention pixels{true, {104, 117, 123}, {1, 1, 1}};
  const std::vector<float> ones(std::size_t{64} * 64 * 49, 1.0f);
  const auto floats = [](const Lowered& lowered) { return static_cast<double>(lowered.weights.values.size()); };
  const float* const w = ones.data();
  for (const int kernel : {1, 2, 3, 5})
    for (const int stride : {1, 2, 3}) {
      const Layer first = layer("first", Kind::conv, 3, 20, kernel, stride, 1, Activation::relu);
      CHECK(footprint_of(first, photo, first.output_shape(photo), true, false).weights ==
            floats(lower_strided(first, photo, true, w, w)));
      for (const int groups : {1, 2, 4}) {
        const Layer conv = layer("conv", Kind::conv, 40, 20, kernel, stride, 1, Activation::relu, groups);
        const Lowered lowered = stride > 1 ? lower_strided(conv, maps, false, w, w) : lower_convolution(conv, maps, w, w);
        CHECK(footprint_of(conv, maps, conv.output_shape(maps), false, false).weights == floats(lowered));
      }
    }
  const Layer wide = layer("wide", Kind::conv, 64, 64, 3, 1, 1, Activation::relu, 2);  // whose groups stay groups
  const Shape wide_maps{64, 10, 10, false};
  CHECK(footprint_of(wide, wide_maps, wide_maps, false, false).weights == floats(lower_convolution(wide, wide_maps, w, w)));
  const Layer up = layer("up", Kind::deconv, 40, 20, 4, 2, 1, Activation::lrelu),
              up_image = layer("up", Kind::deconv, 40, 3, 4, 2, 1, Activation::none);
  CHECK(footprint_of(up, maps, up.output_shape(maps), false, false).weights ==
        floats(lower_upconvolution(up, maps, true, w, w)));
  CHECK(footprint_of(up_image, maps, up_image.output_shape(maps), false, true).weights ==
        floats(lower_image(up_image, maps, pixels, true, w, w)));
  const Layer image = layer("image", Kind::conv, 40, 3, 3, 1, 1, Activation::none);
  CHECK(footprint_of(image, maps, image.output_shape(maps), false, true).weights >=
        floats(lower_image(image, maps, pixels, true, w, w)));
  CHECK(footprint_of(image, maps, image.output_shape(maps), false, true).weights >=
        floats(lower_image(image, maps, pixels, false, w, w)));
}
