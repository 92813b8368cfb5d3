// The kernels without a matrix product, emulated, against float64: in every order of blocks and threads, and with outputs
// that were poison before.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "emulated_kernels.h"
#include "planes.h"
#include "tile.h"

using namespace deepsim::tests;
using namespace deepsim::cuda;
using emulation::schedules;

namespace {

int divide_up(int a, int b) { return (a + b - 1) / b; }

// Run a kernel of `work` threads in every order on an output that was poison. All orders write the same, and that alone, and
// none before the kernels before are over.
template <class Layer>
std::vector<std::uint32_t> run(const char* name, const Precision& precision, Layer layer, Place Layer::* to,
                               const Planes::Shape& shape, int blocks, int threads, int shared = 0) {
  std::vector<std::uint32_t> first;
  for (const auto& schedule : schedules) {
    Planes out(shape, precision);
    layer.*to = out.place();
    const EmulatedKernel& kernel = emulated_kernel(precision.name, name);
    emulation::launch(
        {blocks, 1, 1}, threads, static_cast<std::size_t>(shared), [&] { kernel.body(&layer); }, schedule,
        [&] { CHECK(out.touched() == 0); });
    CHECK(out.touched_outside() == 0);
    if (first.empty()) first = out.interior();
    CHECK(out.interior() == first);
  }
  return first;
}

// The largest error of a value in units of rounding, beyond that of a subnormal.
double largest_error(const std::vector<std::uint32_t>& found, const Tensor& wanted, const Precision& precision) {
  REQUIRE(found.size() == wanted.values.size());
  double largest = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double error = std::fabs(precision.value(found[i]) - wanted.values[i]);
    const double unit = precision.unit() * std::fabs(wanted.values[i]) + (precision.name == "half" ? 0x1p-25 : 0x1p-140);
    largest = std::isnan(error) ? INFINITY : std::max(largest, error / unit);
  }
  return largest;
}

struct PoolCase {
  int images, channels, height, width, kernel, stride, out_height, out_width;
  double scale;  // of the activations
  bool flat;
};

const PoolCase POOLS[] = {
    {1, 16, 1, 1, 1, 1, 1, 1, 1.0, false},     {2, 96, 7, 9, 3, 2, 3, 4, 10.0, false},
    {3, 32, 6, 8, 3, 2, 3, 4, 20000.0, false},  // the last windows end at the border
    {2, 48, 5, 5, 2, 2, 3, 3, 300.0, true},    {1, 1040, 3, 3, 3, 2, 1, 1, 100.0, false},
};

// Activations after a ReLU; fp16's largest ones are among them, the squares of which are beyond its range.
Tensor activations(const PoolCase& layer, const Precision& precision, std::mt19937& random) {
  Tensor x = random_tensor(layer.images, layer.channels, layer.height, layer.width, layer.scale, precision, random);
  for (double& value : x.values) value = precision.rounded(std::clamp(value, -60000.0, 60000.0));
  return x;
}

void check_pool(const PoolCase& layer, bool normalise, const Precision& precision) {
  std::mt19937 random(1);
  const Tensor x = activations(layer, precision, random);
  Planes in({layer.images, layer.channels, layer.height, layer.width, 0}, x, precision);
  Pool pool;
  pool.in = in.place();
  pool.images = layer.images;
  pool.planes = Divisor(layer.channels / precision.plane());
  pool.area = Divisor(layer.out_height * layer.out_width);
  pool.width = Divisor(layer.out_width);
  pool.kernel = layer.kernel;
  pool.stride = layer.stride;
  pool.normalise = normalise;
  const Planes::Shape shape{layer.images, layer.channels, layer.out_height, layer.out_width, layer.flat ? 0 : 2, layer.flat};
  const int blocks = divide_up(layer.images * layer.out_height * layer.out_width, pool_pixels(pool.planes.value));
  const int shared = pool_shared_bytes(pool.planes.value, layer.channels);
  const auto found = run("pool_and_normalise", precision, pool, &Pool::out, shape, blocks, kPoolThreads, shared);
  const Tensor pooled = max_pool(x, layer.kernel, layer.stride, layer.out_height, layer.out_width);
  if (!normalise) CHECK(largest_error(found, pooled, precision) == 0);
  const double allowed = precision.name == "single" ? 5 : 1.01;  // 4.1 measured, of fp32 operations; rounding, some of those
  if (normalise) CHECK(largest_error(found, local_response_norm(pooled), precision) < allowed);
}

struct PixelsCase {
  int images, side, stride, pad, height, width;
  bool bgr;
};

// What the kernel should make of bytes (n, side, side, 3): values, moved to depth, and zeros up to a multiple of 16.
Tensor depth_of(const PixelsCase& layer, const std::vector<std::uint8_t>& bytes, const PixelsIn& told) {
  Tensor x(layer.images, 3, layer.side, layer.side);
  std::size_t next = 0;
  for (int n = 0; n < layer.images; ++n)
    for (int y = 0; y < layer.side; ++y)
      for (int column = 0; column < layer.side; ++column)
        for (int byte = 0; byte < 3; ++byte) {
          const int c = layer.bgr ? 2 - byte : byte;
          x.at(n, c, y, column) = (bytes[next++] - static_cast<double>(told.mean[c])) * static_cast<double>(told.scale[c]);
        }
  Tensor depth = space_to_depth(x, layer.stride, layer.pad, layer.height, layer.width);
  Tensor padded(layer.images, divide_up(depth.channels, 16) * 16, layer.height, layer.width);
  const std::ptrdiff_t size = static_cast<std::ptrdiff_t>(depth.values.size()) / layer.images;
  const std::ptrdiff_t room = static_cast<std::ptrdiff_t>(padded.values.size()) / layer.images;
  for (int n = 0; n < layer.images; ++n) std::copy_n(depth.values.begin() + n * size, size, padded.values.begin() + n * room);
  return padded;
}

void check_pixels_in(const PixelsCase& layer, const Precision& precision) {
  std::mt19937 random(2);
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(layer.images * layer.side * layer.side * 3));
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
  PixelsIn told;
  told.in = bytes.data();
  told.images = layer.images;
  told.side = layer.side;
  told.stride = layer.stride;
  told.pad = layer.pad;
  told.bgr = layer.bgr;
  const float mean[] = {103.939f, 116.779f, 123.68f}, scale[] = {1.0f, 0.0171f, 0.5f};
  std::copy_n(mean, 3, told.mean);
  std::copy_n(scale, 3, told.scale);
  const Tensor wanted = depth_of(layer, bytes, told);
  const Planes::Shape shape{layer.images, wanted.channels, layer.height, layer.width, 1};
  told.planes = Divisor(wanted.channels / precision.plane());
  told.area = Divisor(layer.height * layer.width);
  told.width = Divisor(layer.width);
  told.row_channels = Divisor(3 * layer.stride);
  const int blocks = divide_up(layer.images * told.planes.value * told.area.value, kPassThreads);
  const auto found = run("read_pixels", precision, told, &PixelsIn::out, shape, blocks, kPassThreads);
  CHECK(largest_error(found, wanted, precision) < (precision.name == "single" ? 2 : 1.01));  // two fp32 operations; rounding
}

struct DepthCase {
  int images, channels, height, width, stride, pad, out_height, out_width;
};

void check_space_to_depth(const DepthCase& layer, const Precision& precision) {
  std::mt19937 random(3);
  const Tensor x = random_tensor(layer.images, layer.channels, layer.height, layer.width, 1.0, precision, random);
  Planes in({layer.images, layer.channels, layer.height, layer.width, 0}, x, precision);
  const SpaceToDepth told{in.place(), {}, layer.images, layer.channels / precision.plane(), layer.stride, layer.pad};
  const int channels = layer.channels * layer.stride * layer.stride;
  const Planes::Shape shape{layer.images, channels, layer.out_height, layer.out_width, 1};
  const int blocks = divide_up(layer.images * layer.out_height * layer.out_width * channels / precision.plane(), kPassThreads);
  const auto found = run("to_depth", precision, told, &SpaceToDepth::out, shape, blocks, kPassThreads);
  const Tensor wanted = space_to_depth(x, layer.stride, layer.pad, layer.out_height, layer.out_width);
  CHECK(largest_error(found, wanted, precision) == 0);
}

Planes::Shape features_shape(const Tensor& x, bool flat) {
  return {x.images, divide_up(x.channels, 16) * 16, x.height, x.width, flat ? 0 : 1, flat};
}

int features_blocks(const Tensor& x, const Precision& precision) {
  const int planes = divide_up(x.channels, 16) * 16 / precision.plane();
  return divide_up(x.images * planes * x.height * x.width, kPassThreads);
}

void check_features_in(const Tensor& x, bool flat, const Precision& precision) {
  std::vector<float> plain(x.values.begin(), x.values.end());
  const Features told{plain.data(), {}, x.images, x.channels};
  const Planes::Shape shape = features_shape(x, flat);
  const auto found =
      run("read_features", precision, told, &Features::place, shape, features_blocks(x, precision), kPassThreads);
  Tensor wanted(x.images, shape.channels, x.height, x.width);
  const std::ptrdiff_t size = x.channels * x.height * x.width, room = shape.channels * x.height * x.width;
  for (int n = 0; n < x.images; ++n) std::copy_n(x.values.begin() + n * size, size, wanted.values.begin() + n * room);
  CHECK(largest_error(found, wanted, precision) <= 1);
}

void check_features_out(const Tensor& x, bool flat, const Precision& precision) {
  Planes::Shape shape = features_shape(x, flat);
  Tensor padded(x.images, shape.channels, x.height, x.width);
  const std::ptrdiff_t size = x.channels * x.height * x.width, room = shape.channels * x.height * x.width;
  for (int n = 0; n < x.images; ++n) std::copy_n(x.values.begin() + n * size, size, padded.values.begin() + n * room);
  Planes from(shape, padded, precision);
  for (const auto& schedule : schedules) {
    std::vector<float> plain(x.values.size() + 2, NAN);
    const Features told{plain.data() + 1, from.place(), x.images, x.channels};
    const EmulatedKernel& kernel = emulated_kernel(precision.name, "write_features");
    emulation::launch({features_blocks(x, precision), 1, 1}, kPassThreads, 0, [&] { kernel.body(&told); }, schedule);
    CHECK(std::isnan(plain.front()));
    CHECK(std::isnan(plain.back()));
    int wrong = 0;
    for (std::size_t i = 0; i < x.values.size(); ++i) wrong += static_cast<double>(plain[i + 1]) != x.values[i];
    CHECK(wrong == 0);
  }
}

}  // namespace

TEST_CASE("pooling is exact, and normalisation right where fp16's squares would overflow") {
  for (const PoolCase& layer : POOLS)
    for (const bool normalise : {false, true}) {
      CAPTURE(layer.channels);
      check_pool(layer, normalise, {"half"});
      check_pool(layer, normalise, {"single"});
    }
  check_pool(POOLS[1], true, {"brain"});
}

TEST_CASE("photographs become network values, in depth, with zeros beyond the border") {
  for (const PixelsCase& layer :
       {PixelsCase{1, 1, 1, 0, 1, 1, false}, PixelsCase{2, 23, 4, 0, 5, 5, true}, PixelsCase{3, 13, 4, 2, 4, 5, false},
        PixelsCase{1, 9, 2, 3, 8, 7, true}, PixelsCase{2, 11, 1, 1, 13, 13, false}}) {
    check_pixels_in(layer, {"half"});
    check_pixels_in(layer, {"brain"});
    check_pixels_in(layer, {"single"});
  }
}

TEST_CASE("pixels become channels, with zeros beyond the border") {
  for (const DepthCase& layer : {DepthCase{1, 16, 1, 1, 1, 0, 1, 1}, DepthCase{2, 32, 7, 9, 2, 1, 4, 5},
                                 DepthCase{3, 48, 5, 3, 2, 0, 3, 2}, DepthCase{2, 16, 7, 7, 3, 2, 4, 3}})
    for (const Precision& precision : {Precision{"half"}, Precision{"single"}}) check_space_to_depth(layer, precision);
}

TEST_CASE("features go in rounded, and come out as they are") {
  std::mt19937 random(4);
  std::uniform_real_distribution<float> uniform(-2, 2);
  for (const Precision& precision : {Precision{"half"}, Precision{"brain"}, Precision{"single"}})
    for (const bool flat : {false, true})
      for (const auto& [n, c, h, w] :
           {std::array{1, 1, 1, 1}, std::array{3, 50, 1, 1}, std::array{2, 33, 3, 5}, std::array{2, 96, 7, 9}}) {
        check_features_out(random_tensor(n, c, h, w, 1.0, precision, random), flat, precision);
        Tensor unrounded(n, c, h, w);
        for (double& value : unrounded.values) value = static_cast<double>(uniform(random));
        check_features_in(unrounded, flat, precision);
      }
}
