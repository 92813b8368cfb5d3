// The session for a GPU, whole: the driver is stood in for, the kernels are emulated, the results compared with float64.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <thread>

#include "small_bundle.h"
#include "stand_in.h"

using deepsim::Error;
using deepsim::runtime::Inverter;
using deepsim::runtime::Options;
using deepsim::runtime::detail::Activation;
using deepsim::runtime::detail::Kind;
using namespace deepsim::tests;

namespace {

// The relative error of features, and of images in grey levels (in fp32 a few bytes are off by one).
struct Bounds {
  const char* precision;
  double features, levels;
};

const Bounds kBounds[] = {
    {"fp16", 2 * 0x1p-11, 240 * 0x1p-11},  // 1.3 and 198 measured, in units of rounding
    {"bf16", 2 * 0x1p-8, 240 * 0x1p-8},
    {"fp32", 2e-6, 5e-4},  // 6.8e-7 and 8.1e-5 measured
};

}  // namespace

TEST_CASE("the emulated GPU agrees with float64, in every precision and for both kinds of last layer") {
  for (const bool tanh : {false, true}) {
    const RandomBundle bundle(tanh);
    const std::vector<std::uint8_t> images = random_images(2, 3);
    const auto features = reference_encode(bundle, images.data() + kImage);
    const auto wanted = reference_decode(bundle, features);
    for (const Bounds& bounds : kBounds) {
      CAPTURE(tanh);
      CAPTURE(bounds.precision);
      Inverter inverter(bundle.path(), on_gpu(4, false, bounds.precision));
      CHECK(inverter.isa() == "sm_80");
      std::vector<float> found(2 * 50);
      inverter.encode(images.data(), 2, found.data());
      CHECK(relative_error(found.data() + 50, features.values) < bounds.features);
      CHECK(relative_error(found.data() + 50, features.values) > bounds.features / 200);
      std::vector<float> exact(features.values.begin(), features.values.end());
      const auto side = static_cast<std::size_t>(inverter.full_image_size());
      std::vector<std::uint8_t> whole(side * side * 3), crop(kImage);
      inverter.decode(exact.data(), 1, whole.data(), true);
      CHECK(mean_difference(whole, wanted) < bounds.levels);
      inverter.decode(exact.data(), 1, crop.data());
      const std::size_t offset = (side - kSide) / 2;
      for (std::size_t row = 0; row < kSide; ++row)
        CHECK(std::memcmp(&crop[row * kSide * 3], &whole[((row + offset) * side + offset) * 3], kSide * 3) == 0);
    }
  }
}

TEST_CASE("raw images, rounded, are those that are decoded, also from one use of a graph to the next and on the GPU itself") {
  constexpr std::size_t kImages = 3;
  for (const bool tanh : {false, true}) {
    const RandomBundle bundle(tanh);
    for (const std::string precision : {"fp16", "fp32"}) {
      CAPTURE(precision);
      Inverter inverter(bundle.path(), on_gpu(2, false, precision));
      std::vector<float> features(kImages * static_cast<std::size_t>(inverter.feature_size()));
      for (std::size_t i = 0; i < features.size(); ++i) features[i] = static_cast<float>(i * 7 % 11) * 0.4f;
      for (const bool full : {false, true}) {
        const auto side = static_cast<std::size_t>(full ? inverter.full_image_size() : inverter.image_size());
        std::vector<std::uint8_t> images(kImages * side * side * 3);
        inverter.decode(features.data(), kImages, images.data(), full);
        for (int use = 0; use < 3; ++use) {
          std::vector<float> raw(images.size());
          inverter.decode_raw(features.data(), kImages, raw.data(), full);
          CHECK(rounded(raw) == images);
        }
      }
    }
  }
}

TEST_CASE("with `stable`, an image's bits do not depend on batch, position or chunk") {
  const SmallBundle bundle;
  const std::vector<std::uint8_t> images = random_images(5, 5);
  for (const std::string precision : {"fp16", "bf16", "fp32"}) {
    std::vector<std::uint8_t> together(5 * kImage), other(5 * kImage), one(kImage);
    Inverter inverter(bundle.path(), on_gpu(8, true, precision));
    inverter.reconstruct(images.data(), 5, together.data());
    for (const std::size_t i : {0, 4}) {
      inverter.reconstruct(images.data() + i * kImage, 1, one.data());
      CHECK(std::memcmp(one.data(), together.data() + i * kImage, kImage) == 0);
    }
    Inverter(bundle.path(), on_gpu(3, true, precision)).reconstruct(images.data(), 5, other.data());
    CHECK(other == together);
  }
}

TEST_CASE("layers in groups as small as the cache is, from one iteration into the next, give the bits of single images") {
  constexpr std::size_t kImages = 5;
  const std::vector<std::uint8_t> images = random_images(kImages, 6);
  const StandIn slow("MEMORY_BITS", "8");  // so that finding values in the cache is worth launches
  for (const bool larger : {false, true}) {
    const SmallBundle bundle(larger);
    std::vector<std::uint8_t> wanted(kImages * kImage), together(kImages * kImage);
    Inverter(bundle.path(), on_gpu(1, true)).reencode(images.data(), kImages, 2, {2}, wanted.data());
    long launches = 0;
    for (const char* cache : {"40000000", "1600000", "900000"}) {
      CAPTURE(larger);
      CAPTURE(std::string(cache));
      const StandIn size("CACHE", cache);
      Inverter inverter(bundle.path(), on_gpu(8, true));
      deepsim_stand_in_count_anew();
      inverter.reencode(images.data(), kImages, 2, {2}, together.data());
      CHECK(together == wanted);
      CHECK(deepsim_stand_in_calls("cuLaunchKernel") > launches);
      launches = deepsim_stand_in_calls("cuLaunchKernel");
    }
  }
}

TEST_CASE("sums that are split for few images stay close to whole ones") {
  const RandomBundle bundle(false);
  const std::vector<std::uint8_t> images = random_images(1, 7);
  const StandIn many("MULTIPROCESSORS", "132");
  std::vector<float> features[2] = {std::vector<float>(50), std::vector<float>(50)};
  bool split[2];
  for (const bool stable : {false, true}) {
    (void)deepsim_stand_in_launched();
    Inverter(bundle.path(), on_gpu(4, stable)).encode(images.data(), 1, features[stable].data());
    split[stable] = std::string(deepsim_stand_in_launched()).find("_partial") != std::string::npos;
  }
  CHECK(split[0]);
  CHECK(!split[1]);
  const std::vector<double> whole(features[1].begin(), features[1].end());
  CHECK(relative_error(features[0].data(), whole) < 0.5 / 2048);  // most round to the same; where not, by one unit
}

TEST_CASE("re-encoding is reconstructing repeatedly; interpolation ends at both features") {
  const SmallBundle bundle;
  const std::vector<std::uint8_t> images = random_images(2, 8);
  Inverter inverter(bundle.path(), on_gpu());
  std::vector<std::uint8_t> kept(2 * 2 * kImage), once(2 * kImage), twice(2 * kImage), thrice(2 * kImage);
  inverter.reencode(images.data(), 2, 3, {1, 3}, kept.data());
  inverter.reconstruct(images.data(), 2, once.data());
  inverter.reconstruct(once.data(), 2, twice.data());
  inverter.reconstruct(twice.data(), 2, thrice.data());
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(std::memcmp(&kept[2 * i * kImage], &once[i * kImage], kImage) == 0);
    CHECK(std::memcmp(&kept[(2 * i + 1) * kImage], &thrice[i * kImage], kImage) == 0);
  }
  std::vector<float> features(2 * kFeatures);
  inverter.encode(images.data(), 2, features.data());
  std::vector<std::uint8_t> line(5 * kImage);
  inverter.interpolate(features.data(), features.data() + kFeatures, 5, line.data());
  CHECK(std::memcmp(line.data(), once.data(), kImage) == 0);
  CHECK(std::memcmp(line.data() + 4 * kImage, once.data() + kImage, kImage) == 0);
}

TEST_CASE("a graph is recorded when a batch size comes again, used from then on, and forgotten when there are many") {
  const SmallBundle bundle;
  const std::vector<std::uint8_t> images = random_images(3, 9);
  std::vector<std::uint8_t> first(3 * kImage), again(3 * kImage), one(kImage);
  Inverter inverter(bundle.path(), on_gpu(64));
  deepsim_stand_in_count_anew();
  inverter.reconstruct(images.data(), 3, first.data());
  inverter.reconstruct(images.data(), 1, one.data());
  CHECK(deepsim_stand_in_calls("cuGraphInstantiateWithFlags") == 0);
  CHECK(std::memcmp(one.data(), first.data(), kImage) == 0);
  for (int use = 0; use < 2; ++use) {
    inverter.reconstruct(images.data(), 3, again.data());
    CHECK(first == again);
  }
  CHECK(deepsim_stand_in_calls("cuGraphInstantiateWithFlags") == 1);
  CHECK(deepsim_stand_in_calls("cuGraphLaunch") == 2);
  const StandIn idle("IDLE", "1");
  const std::vector<float> features(40 * kFeatures);
  std::vector<std::uint8_t> decoded(40 * kImage);
  for (int n = 1; n <= 40; ++n)
    for (int use = 0; use < 2; ++use) inverter.decode(features.data(), n, decoded.data());
  CHECK(deepsim_stand_in_graphs() == 2 * 32);  // each, and what it was made from
}

TEST_CASE("threads that share an inverter, and two inverters of one GPU, get equal bytes") {
#if defined(__SANITIZE_THREAD__)
  const StandIn idle("IDLE", "1");  // the session's own races; those of the emulation have tests of their own
#endif
  const SmallBundle bundle;
  const std::vector<std::uint8_t> images = random_images(2, 10);
  Inverter first(bundle.path(), on_gpu()), second(bundle.path(), on_gpu());
  std::vector<std::uint8_t> wanted(2 * kImage);
  first.reconstruct(images.data(), 2, wanted.data());
  std::vector<int> different(8);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      std::vector<std::uint8_t> found(2 * kImage);
      (t % 2 == 0 ? first : second).reconstruct(images.data(), 2, found.data());
      different[t] += found != wanted;
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(different == std::vector<int>(8));
}

#if !defined(__SANITIZE_THREAD__)
TEST_CASE("a forked child gets an error and may close, and the parent goes on") {
  const SmallBundle bundle;
  const std::vector<std::uint8_t> images = random_images(1, 11);
  auto inverter = std::make_unique<Inverter>(bundle.path(), on_gpu());
  std::vector<std::uint8_t> before(kImage), after(kImage);
  inverter->reconstruct(images.data(), 1, before.data());
  const pid_t child = fork();
  if (child == 0) {
    int status = 1;
    try {
      inverter->reconstruct(images.data(), 1, after.data());
    } catch (const Error& error) {
      status = error.kind() == "DeviceError" ? 0 : 2;
    }
    const int objects = deepsim_stand_in_objects();
    inverter.reset();  // what is on the GPU is the parent's
    _exit(status != 0 ? status : deepsim_stand_in_objects() == objects ? 0 : 3);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  inverter->reconstruct(images.data(), 1, after.data());
  CHECK(after == before);
}
#endif

TEST_CASE("networks with maps between encoder and generator, and wide padding, agree with float64") {
  const RandomBundle bundle(Recipe{{layer("conv1", Kind::conv, 3, 16, 15, 16, 1, Activation::relu),
                                    layer("conv2", Kind::conv, 16, 32, 1, 1, 1, Activation::relu),
                                    layer("conv3", Kind::conv, 32, 20, 2, 1, 2, Activation::relu)},
                                   {layer("conv4", Kind::conv, 20, 16, 3, 1, 0, Activation::lrelu),
                                    layer("deconv3", Kind::deconv, 16, 8, 4, 2, 1, Activation::lrelu),
                                    layer("deconv2", Kind::deconv, 8, 8, 4, 2, 1, Activation::lrelu),
                                    layer("deconv1", Kind::deconv, 8, 4, 4, 2, 1, Activation::lrelu),
                                    layer("deconv0", Kind::deconv, 4, 3, 4, 2, 1, Activation::none)}});
  const std::vector<std::uint8_t> images = random_images(2, 12);
  const auto features = reference_encode(bundle, images.data() + kImage);
  const std::size_t size = features.values.size();
  Inverter inverter(bundle.path(), on_gpu());
  std::vector<float> found(2 * size);
  inverter.encode(images.data(), 2, found.data());
  CHECK(relative_error(found.data() + size, features.values) < 2.0 / 2048);
  const std::vector<float> exact(features.values.begin(), features.values.end());
  const auto side = static_cast<std::size_t>(inverter.full_image_size());
  std::vector<std::uint8_t> whole(side * side * 3);
  inverter.decode(exact.data(), 1, whole.data(), true);
  CHECK(mean_difference(whole, reference_decode(bundle, features)) < 0.15);
}
