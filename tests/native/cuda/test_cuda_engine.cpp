// The engine for a GPU, whole: the driver is stood in for, the kernels are emulated, the results compared with float64.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "../random_bundle.h"
#include "deepsim/inverter.h"

using deepsim::Error;
using deepsim::runtime::Inverter;
using deepsim::runtime::Options;
using namespace deepsim::tests;

namespace {

Options on_gpu(const std::string& precision = "", bool stable = false) {
  Options options;
  options.device = "cuda:0";
  options.precision = precision;
  options.stable = stable;
  options.max_batch = 4;
  return options;
}

double relative_error(const float* found, const std::vector<double>& wanted) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    difference += std::pow(static_cast<double>(found[i]) - wanted[i], 2);
    norm += wanted[i] * wanted[i];
  }
  return std::sqrt(difference / norm);
}

double mean_difference(const std::vector<std::uint8_t>& a, const std::vector<std::uint8_t>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::abs(int{a[i]} - int{b[i]});
  return sum / static_cast<double>(a.size());
}

}  // namespace

TEST_CASE("the emulated GPU agrees with float64, in both precisions and for both kinds of last layer") {
  for (const bool tanh : {false, true}) {
    const RandomBundle bundle(tanh);
    const std::vector<std::uint8_t> images = random_images(2, 3);
    const auto features = reference_encode(bundle, images.data() + kImage);
    const auto wanted = reference_decode(bundle, features);
    for (const char* precision : {"fp16", "bf16"}) {
      CAPTURE(tanh);
      CAPTURE(precision);
      const double unit = std::string(precision) == "fp16" ? 1.0 / 2048 : 1.0 / 256;  // of rounding
      Inverter inverter(bundle.path(), on_gpu(precision));
      CHECK(inverter.isa() == "sm_80");
      std::vector<float> found(2 * 50);
      inverter.encode(images.data(), 2, found.data());
      CHECK(relative_error(found.data() + 50, features.values) < 4 * unit);
      CHECK(relative_error(found.data() + 50, features.values) > unit / 100);
      std::vector<float> exact(features.values.begin(), features.values.end());
      const auto side = static_cast<std::size_t>(inverter.full_image_size());
      std::vector<std::uint8_t> whole(side * side * 3), crop(kImage);
      inverter.decode(exact.data(), 1, whole.data(), true);
      MESSAGE("features " << relative_error(found.data() + 50, features.values) / unit << " units, images " << mean_difference(whole, wanted) / unit << " units");
      CHECK(mean_difference(whole, wanted) < 400 * unit);
      inverter.decode(exact.data(), 1, crop.data());
      const std::size_t offset = (side - kSide) / 2;
      for (std::size_t row = 0; row < kSide; ++row)
        CHECK(std::memcmp(&crop[row * kSide * 3], &whole[((row + offset) * side + offset) * 3], kSide * 3) == 0);
    }
  }
}
