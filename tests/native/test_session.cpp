// The session against float64 twins, for every instruction set of this machine, and what it promises under load.
#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <thread>

#include "deviation.h"

#if defined(__has_feature)
#define DEEPSIM_UNDER_TSAN __has_feature(thread_sanitizer)
#elif defined(__SANITIZE_THREAD__)
#define DEEPSIM_UNDER_TSAN 1
#else
#define DEEPSIM_UNDER_TSAN 0
#endif

using deepsim::Error;
using deepsim::runtime::Inverter;
using deepsim::runtime::Options;
using namespace deepsim::tests;

namespace {

struct Agreement {
  int largest = 0;
  double share = 0;  // of values that differ
};

Agreement agreement(const std::vector<std::uint8_t>& a, const std::vector<std::uint8_t>& b) {
  Agreement found;
  for (std::size_t i = 0; i < a.size(); ++i) {
    found.largest = std::max(found.largest, std::abs(int{a[i]} - int{b[i]}));
    found.share += a[i] != b[i] ? 1.0 / static_cast<double>(a.size()) : 0.0;
  }
  return found;
}

std::string kind_of(const std::string& path, const Options& options = {}) {
  try {
    const Inverter inverter(path, options);
  } catch (const Error& error) {
    return error.kind();
  }
  return "";
}

}  // namespace

TEST_CASE("every instruction set agrees with float64, and a crop with the whole image") {
  for (const bool tanh : {false, true}) {
    const RandomBundle bundle(tanh);
    const std::vector<std::uint8_t> images = random_images(2, 3);
    const auto features = reference_encode(bundle, images.data() + kImage);
    const auto wanted = reference_decode(bundle, features);
    for (const std::string& isa : instruction_sets()) {
      CAPTURE(isa);
      Options options;
      options.isa = isa;
      Inverter inverter(bundle.path(), options);
      std::vector<float> found(2 * 50);
      inverter.encode(images.data(), 2, found.data());
      const std::vector<float> second(found.begin() + 50, found.end());
      CHECK(relative_error(second.data(), features.values) < 2e-6);
      const auto side = static_cast<std::size_t>(inverter.full_image_size());
      std::vector<std::uint8_t> whole(side * side * 3), crop(kImage);
      inverter.decode(second.data(), 1, whole.data(), true);
      const Agreement agreed = agreement(whole, wanted);
      CHECK(agreed.largest <= 1);
      CHECK(agreed.share < 2e-3);
      inverter.decode(second.data(), 1, crop.data());
      const std::size_t offset = (side - kSide) / 2;
      for (std::size_t row = 0; row < kSide; ++row)
        CHECK(std::memcmp(&crop[row * kSide * 3], &whole[((row + offset) * side + offset) * 3], kSide * 3) == 0);
    }
  }
}

TEST_CASE("raw images, rounded, are those that are decoded, with every instruction set and in batches of any size") {
  constexpr std::size_t kImages = 5;
  for (const bool tanh : {false, true}) {
    const RandomBundle bundle(tanh);
    const std::vector<std::uint8_t> photographs = random_images(kImages, 12);
    std::vector<float> features(kImages * 50);
    for (const std::string& isa : instruction_sets()) {
      CAPTURE(isa);
      Options options;
      options.isa = isa;
      options.max_batch = 2;
      Inverter inverter(bundle.path(), options);
      inverter.encode(photographs.data(), kImages, features.data());
      for (float& feature : features) feature *= 3;  // so that some levels are clipped
      for (const bool full : {false, true}) {
        const auto side = static_cast<std::size_t>(full ? inverter.full_image_size() : inverter.image_size());
        std::vector<std::uint8_t> images(kImages * side * side * 3);
        std::vector<float> raw(images.size());
        inverter.decode(features.data(), kImages, images.data(), full);
        inverter.decode_raw(features.data(), kImages, raw.data(), full);
        CHECK(rounded(raw) == images);
        CHECK(std::any_of(raw.begin(), raw.end(), [](float level) { return level < -1 || level > 256; }));
        CHECK(std::any_of(raw.begin(), raw.end(), [](float level) { return level != std::round(level); }));
      }
    }
  }
}

TEST_CASE("half-stored fully connected weights stay close, and differ") {
  const RandomBundle bundle(false);
  const std::vector<std::uint8_t> images = random_images(1, 4);
  const auto wanted = reference_encode(bundle, images.data());
  Options options;
  options.half_fc_weights = true;
  for (const std::string& isa : instruction_sets()) {
    options.isa = isa;
    std::vector<float> found(50);
    Inverter(bundle.path(), options).encode(images.data(), 1, found.data());
    const double error = relative_error(found.data(), wanted.values);
    CHECK(error < 1e-3);
    CHECK(error > 1e-6);
  }
}

TEST_CASE("an image's bits do not depend on batch, position, chunk or threads") {
  const RandomBundle bundle(false);
  const std::vector<std::uint8_t> images = random_images(9, 5);
  std::vector<std::uint8_t> together(9 * kImage), other(9 * kImage), one(kImage);
  Inverter inverter(bundle.path());
  inverter.reconstruct(images.data(), 9, together.data());
  for (std::size_t i = 0; i < 9; ++i) {
    inverter.reconstruct(images.data() + i * kImage, 1, one.data());
    CHECK(std::memcmp(one.data(), together.data() + i * kImage, kImage) == 0);
  }
  for (const auto& [max_batch, threads] : {std::pair{1, 1}, std::pair{2, 3}, std::pair{5, 4}}) {
    Options options;
    options.max_batch = max_batch;
    options.threads = threads;
    Inverter(bundle.path(), options).reconstruct(images.data(), 9, other.data());
    CHECK(other == together);
  }
}

TEST_CASE("re-encoding is reconstructing repeatedly; interpolation ends at both features") {
  const RandomBundle bundle(true);
  const std::vector<std::uint8_t> images = random_images(2, 6);
  Inverter inverter(bundle.path());
  std::vector<std::uint8_t> kept(2 * 2 * kImage), once(2 * kImage), twice(2 * kImage), thrice(2 * kImage);
  inverter.reencode(images.data(), 2, 3, {1, 3}, kept.data());
  inverter.reconstruct(images.data(), 2, once.data());
  inverter.reconstruct(once.data(), 2, twice.data());
  inverter.reconstruct(twice.data(), 2, thrice.data());
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(std::memcmp(&kept[2 * i * kImage], &once[i * kImage], kImage) == 0);
    CHECK(std::memcmp(&kept[(2 * i + 1) * kImage], &thrice[i * kImage], kImage) == 0);
  }
  std::vector<float> features(100);
  inverter.encode(images.data(), 2, features.data());
  std::vector<std::uint8_t> line(5 * kImage);
  inverter.interpolate(features.data(), features.data() + 50, 5, line.data());
  CHECK(std::memcmp(line.data(), once.data(), kImage) == 0);
  CHECK(std::memcmp(line.data() + 4 * kImage, once.data() + kImage, kImage) == 0);
}

TEST_CASE("threads that share an inverter, and several inverters, get equal bytes") {
  const RandomBundle bundle(false);
  const std::vector<std::uint8_t> images = random_images(2, 7);
  Inverter first(bundle.path()), second(bundle.path());
  std::vector<std::uint8_t> wanted(2 * kImage);
  first.reconstruct(images.data(), 2, wanted.data());
  std::vector<int> different(8);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      for (int call = 0; call < 5; ++call) {
        std::vector<std::uint8_t> found(2 * kImage);
        (t % 2 == 0 ? first : second).reconstruct(images.data(), 2, found.data());
        different[t] += found != wanted;
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(different == std::vector<int>(8));
}

#if !DEEPSIM_UNDER_TSAN  // which does not follow a fork of several threads
TEST_CASE("a forked child gets an error, may load its own, and the parent goes on") {
  const RandomBundle bundle(false);
  const std::vector<std::uint8_t> images = random_images(1, 8);
  Inverter inverter(bundle.path());
  std::vector<std::uint8_t> before(kImage), after(kImage);
  inverter.reconstruct(images.data(), 1, before.data());
  const pid_t child = fork();
  if (child == 0) {
    int status = 1;
    try {
      inverter.reconstruct(images.data(), 1, after.data());
    } catch (const Error& error) {
      status = error.kind() == "DeviceError" ? 0 : 2;
    }
    Inverter own(bundle.path());
    own.reconstruct(images.data(), 1, after.data());
    _exit(status != 0 ? status : after == before ? 0 : 3);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  inverter.reconstruct(images.data(), 1, after.data());
  CHECK(after == before);
}
#endif

#if !defined(__SANITIZE_ADDRESS__)  // which looks at memory with descriptors of its own
TEST_CASE("no descriptor for a file of the bundle is an error of the environment, not of the bundle") {
  const RandomBundle bundle(false);
  CHECK(kind_of(bundle.path()) == "");
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
  const int next = dup(0);
  close(next);
  const rlimit none{static_cast<rlim_t>(next), before.rlim_max};
  REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
  const std::string found = kind_of(bundle.path());
  REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
  CHECK(found == "DeviceError");
  CHECK(kind_of(bundle.path()) == "");
}
#endif

TEST_CASE("bad calls give a typed error and leave the inverter usable") {
  const RandomBundle bundle(false);
  const std::vector<std::uint8_t> images = random_images(1, 9);
  Inverter inverter(bundle.path());
  std::vector<float> features(50, 1.0f);
  std::vector<std::uint8_t> before(kImage), after(kImage);
  inverter.decode(features.data(), 1, before.data());
  features[7] = NAN;
  CHECK_THROWS_WITH_AS(inverter.decode(features.data(), 1, after.data()),
                       "features: NaN, expected finite float32. Look where they come from.", Error);
  features[7] = 1.0f;
  CHECK_THROWS_AS(inverter.decode(features.data(), -1, after.data()), Error);
  CHECK_THROWS_AS(inverter.decode(nullptr, 1, after.data()), Error);
  CHECK_THROWS_AS(inverter.reencode(images.data(), 1, 2, {2, 1}, after.data()), Error);
  CHECK_THROWS_AS(inverter.reencode(images.data(), 1, 2, {3}, after.data()), Error);
  CHECK_THROWS_AS(inverter.reencode(images.data(), 1, 2, {}, after.data()), Error);
  CHECK_THROWS_AS(inverter.interpolate(features.data(), features.data(), 1, after.data()), Error);
  inverter.decode(features.data(), 0, after.data());
  inverter.decode(features.data(), 1, after.data());
  CHECK(after == before);
  Options unknown;
  unknown.isa = "mmx";
  CHECK(kind_of(bundle.path(), unknown) == "DeviceError");
  CHECK(kind_of("/nowhere.deepsim") == "BundleError");
}
