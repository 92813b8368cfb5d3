// The session on a Hopper GPU (stood in for, its kernels emulated): which products it takes, and that they are right.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>

#include "../random_bundle.h"
#include "cuda/products.h"
#include "deepsim/inverter.h"
#include "error.h"
#include "small_bundle.h"
#include "stand_in.h"

using deepsim::runtime::Inverter;
using deepsim::runtime::detail::Failure;
using namespace deepsim::runtime::detail::cuda;
using namespace deepsim::tests;

namespace {

// Set for as long as it lives.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
  ~Variable() { unsetenv(name_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
};

DeviceFacts hopper() { return {"a Hopper", 90, 132, 232448, 50 << 20, 1900}; }

std::string chosen(const std::string& store, int depth, int rows, int columns, Instructions instructions, bool stable = false,
                   const char* tile = "") {
  const ProductSize size{store, depth, rows, columns, 1, 8, store == "connected" ? 1 : 9, 130};
  return product_for(hopper(), size, stable, {instructions, tile}).product.kernel;
}

// The image of these features; with one multiprocessor, which the smallest product fills.
std::vector<std::uint8_t> image_with(const RandomBundle& bundle, const std::vector<float>& features, const char* kernels) {
  const StandIn architecture("ARCHITECTURE", "90"), few("MULTIPROCESSORS", "1");
  const Variable wanted("DEEPSIM_CUDA_KERNELS", kernels);
  Inverter inverter(bundle.path(), on_gpu(1));
  CHECK(inverter.isa() == "sm_90");
  const auto side = static_cast<std::size_t>(inverter.full_image_size());
  std::vector<std::uint8_t> image(side * side * 3);
  inverter.decode(features.data(), 1, image.data(), true);
  return image;
}

}  // namespace

TEST_CASE("wgmma is taken where the GPU has it and it is estimated to be faster; mma.sync otherwise") {
  const Instructions mma = Instructions::mma, wgmma = Instructions::wgmma;
  CHECK(chosen("blocks", 32, 32 * 33 * 33, 128, mma) == "large_blocks");
  CHECK(chosen("blocks", 32, 32 * 33 * 33, 128, wgmma) == "wgmma_square_blocks");
  CHECK(chosen("shuffle", 32, 32 * 33 * 33, 512, wgmma) == "wgmma_tall_shuffle");
  CHECK(chosen("shuffle", 32, 2 * 33 * 33, 512, wgmma) == "wgmma_square_shuffle");
  CHECK(chosen("shuffle", 32, 33 * 33, 256, wgmma) == "wgmma_short_partial");
  CHECK(chosen("connected", 16, 1024, 4096, wgmma) == "wgmma_tall16_connected");
  CHECK(chosen("connected", 32, 64, 4096, wgmma) == "small_connected");
  CHECK(chosen("blocks", 32, 32 * 33 * 33, 64, wgmma) == "narrow_blocks");
  CHECK(chosen("blocks", 32, 32 * 33 * 33, 128, wgmma, true) ==
        "wgmma_square_blocks");  // as a single image's, whatever its speed
  CHECK(chosen("blocks", 32, 33 * 33, 128, wgmma, true) == "wgmma_short_blocks");
  CHECK(chosen("connected", 32, 1, 4096, wgmma, true) == "wgmma_short_connected");
  CHECK(chosen("pixels", 32, 129 * 129, 16, wgmma, true) == "image_pixels");
  CHECK(chosen("pixels", 32, 32 * 129 * 129, 16, wgmma) == "images_pixels");
  CHECK(chosen("blocks", 16, 256 * 33 * 33, 128, Instructions::fma) == "narrow16_blocks");
  CHECK(chosen("connected", 16, 64, 4096, Instructions::fma, true) == "small16_connected");
  const DeviceFacts small{"a GPU with less shared memory", 90, 132, 101376, 50 << 20, 1900};  // too little for the widest tile
  const ProductSize size{"blocks", 32, 32 * 33 * 33, 256, 1, 8, 9, 70};
  CHECK(product_for(small, size, false, {wgmma}).product.kernel == "wgmma_square_blocks");
}

TEST_CASE("a tile that is named is taken as far as it has kernels") {
  const Instructions mma = Instructions::mma, wgmma = Instructions::wgmma;
  CHECK(chosen("blocks", 32, 32 * 33 * 33, 128, mma, false, "small") == "small_blocks");
  CHECK(chosen("blocks", 32, 32 * 33 * 33, 128, mma, false, "skinny") == "skinny_partial");
  CHECK(chosen("blocks", 32, 33 * 33, 512, wgmma, true, "wgmma_tall") == "wgmma_tall_blocks");
  CHECK(chosen("blocks", 16, 33 * 33, 512, wgmma, true, "wgmma_tall") == "wgmma_tall16_blocks");
  CHECK(chosen("pixels", 32, 32 * 129 * 129, 16, wgmma, false, "wgmma_tall") == "images_pixels");
  const Kernels tall = kernels_of("wgmma_tall", hopper(), Precision::half),
                small = kernels_of("small", hopper(), Precision::half);
  CHECK(tall.instructions == wgmma);
  CHECK(tall.tile == "wgmma_tall");
  CHECK(small.instructions == mma);
  CHECK(small.tile == "small");
  CHECK(kernels_of("wgmma", hopper(), Precision::half).tile.empty());
  CHECK_THROWS_AS(kernels_of("small16", hopper(), Precision::half), Failure);
}

TEST_CASE("the choice of instructions by name") {
  DeviceFacts ampere{"an A100", 80, 108, 166912, 40 << 20, 1100};
  CHECK(kernels_of("", hopper(), Precision::half).instructions == Instructions::wgmma);
  CHECK(kernels_of("wgmma", hopper(), Precision::half).instructions == Instructions::wgmma);
  CHECK(kernels_of("mma", ampere, Precision::half).instructions == Instructions::mma);
  CHECK_THROWS_WITH_AS(kernels_of("wgmma", ampere, Precision::half),
                       "kernels 'wgmma': an A100 is sm_80, expected sm_90. Use mma.", Failure);
  CHECK(kernels_of("", ampere, Precision::single).instructions == Instructions::fma);
  CHECK_THROWS_WITH_AS(kernels_of("wgmma", hopper(), Precision::single),
                       "kernels 'wgmma': precision is fp32, expected fp16 or bf16, since they multiply 16-bit values.",
                       Failure);
  CHECK_THROWS_AS(kernels_of("mma", hopper(), Precision::single), Failure);
  CHECK_THROWS_WITH_AS(kernels_of("hmma", hopper(), Precision::half), "kernels 'hmma': unknown, expected mma or wgmma.",
                       Failure);
  const Variable variable("DEEPSIM_CUDA_KERNELS", "wgmma");
  CHECK(kernels_of("", hopper(), Precision::half).instructions == Instructions::wgmma);
  CHECK(kernels_of("mma", hopper(), Precision::half).instructions == Instructions::mma);
  CHECK_THROWS_AS(kernels_of("", ampere, Precision::half), Failure);
  CHECK_THROWS_AS(kernels_of("", hopper(), Precision::single), Failure);
}

TEST_CASE("the images that convolutions take at once may be named") {
  const SmallBundle bundle;
  const StandIn idle("IDLE", "1");
  const std::vector<std::uint8_t> images = random_images(8, 1);
  std::vector<std::uint8_t> found(8 * kImage);
  const auto launches = [&](const char* at_once) {
    const Variable named("DEEPSIM_CUDA_IMAGES", at_once);
    Inverter inverter(bundle.path(), on_gpu(8));
    deepsim_stand_in_count_anew();
    inverter.reconstruct(images.data(), 8, found.data());
    return deepsim_stand_in_calls("cuLaunchKernel");
  };
  const long whole = launches("8");
  CHECK(launches("64") == whole);
  CHECK(launches("4") > whole);
  CHECK(launches("1") - whole == 7 * (launches("4") - whole));  // each of these layers eight times instead of twice, or once
  for (const char* wrong : {"3", "2048", "all"}) {
    const Variable named("DEEPSIM_CUDA_IMAGES", wrong);
    CHECK_THROWS_WITH_AS(kernels_of("", hopper(), Precision::half),
                         ("DEEPSIM_CUDA_IMAGES: '" + std::string(wrong) + "', expected a power of two up to 1024.").c_str(),
                         Failure);
  }
}

TEST_CASE("images by wgmma are as close to float64 as those by mma.sync, and not the same") {
  const RandomBundle bundle(false);
  const auto features = reference_encode(bundle, random_images(1, 3).data());
  const auto wanted = reference_decode(bundle, features);
  const std::vector<float> exact(features.values.begin(), features.values.end());
  const auto mma = image_with(bundle, exact, "mma"), wgmma = image_with(bundle, exact, "wgmma");
  MESSAGE("levels off: mma " << mean_difference(mma, wanted) << ", wgmma " << mean_difference(wgmma, wanted));
  CHECK(mean_difference(mma, wanted) < 0.2);
  CHECK(mean_difference(wgmma, wanted) < 0.2);
  CHECK(mma != wgmma);
}

TEST_CASE("on Hopper, wgmma is what a default session takes; with `stable`, no image's bits depend on who is beside it") {
  const StandIn architecture("ARCHITECTURE", "90"), few("MULTIPROCESSORS", "2");
  const SmallBundle bundle;
  const std::vector<std::uint8_t> images = random_images(5, 5);
  std::vector<std::uint8_t> together(5 * kImage), other(5 * kImage), one(kImage), loop(kImage);
  Inverter inverter(bundle.path(), on_gpu(8, true));
  inverter.reconstruct(images.data(), 5, together.data());
  CHECK(std::string(deepsim_stand_in_launched()).find("wgmma") != std::string::npos);
  for (const std::size_t i : {0, 4}) {
    inverter.reconstruct(images.data() + i * kImage, 1, one.data());
    CHECK(std::memcmp(one.data(), together.data() + i * kImage, kImage) == 0);
  }
  Inverter(bundle.path(), on_gpu(3, true)).reconstruct(images.data(), 5, other.data());
  CHECK(other == together);
  inverter.reencode(images.data(), 1, 2, {2}, loop.data());
  inverter.reconstruct(images.data(), 1, one.data());
  inverter.reconstruct(one.data(), 1, other.data());
  CHECK(std::memcmp(loop.data(), other.data(), kImage) == 0);
}

namespace {

// What an Inverter gives for one image and another: at first by kernel after kernel, then by graphs.
std::vector<std::uint8_t> several_times(const RandomBundle& bundle, const std::string& precision) {
  Inverter inverter(bundle.path(), on_gpu(1, false, precision));
  std::vector<std::uint8_t> all;
  for (const unsigned seed : {7u, 8u, 9u}) {
    const std::vector<std::uint8_t> image = random_images(1, seed);
    std::vector<std::uint8_t> found(2 * kImage);
    inverter.reencode(image.data(), 1, 3, {1, 3}, found.data());  // of these two in one graph, the first handed to the next
    all.insert(all.end(), found.begin(), found.end());
  }
  return all;
}

long early_edges() { return deepsim_stand_in_calls("cuGraphAddDependencies_v2"); }

}  // namespace

TEST_CASE("in graphs on Hopper, kernels start before the ones before are over, and wait for them") {
  const StandIn architecture("ARCHITECTURE", "90"), few("MULTIPROCESSORS", "2");
  for (const std::string precision : {"fp16", "fp32"}) {
    CAPTURE(precision);
    const SmallBundle bundle(precision == "fp32");
    std::vector<std::uint8_t> one_by_one;
    {
      const Variable overlap("DEEPSIM_CUDA_OVERLAP", "0");
      deepsim_stand_in_count_anew();
      one_by_one = several_times(bundle, precision);
      CHECK(early_edges() == 0);
    }
    const long kernels = deepsim_stand_in_calls("cuGraphAddKernelNode_v2"), graphs = deepsim_stand_in_calls("cuGraphCreate");
    CHECK(several_times(bundle, precision) == one_by_one);
    CHECK(early_edges() == kernels - graphs);  // to all but the first of each
    CHECK(early_edges() > 8);
  }
}

TEST_CASE("kernels do not start early on older GPUs, nor those that were compiled for older ones") {
  const SmallBundle bundle;
  const std::vector<std::uint8_t> images = random_images(1, 1);
  std::vector<std::uint8_t> found(kImage);
  const auto edges = [&] {
    deepsim_stand_in_count_anew();
    Inverter inverter(bundle.path(), on_gpu(1));
    for (int i = 0; i < 2; ++i) inverter.reconstruct(images.data(), 1, found.data());
    CHECK(deepsim_stand_in_calls("cuGraphLaunch") > 0);
    return early_edges();
  };
  CHECK(edges() == 0);  // 8.0
  const StandIn architecture("ARCHITECTURE", "120");
  CHECK(edges() > 0);
  const StandIn compiled("COMPILED_FOR", "80");
  CHECK(edges() == 0);
}

TEST_CASE("an overlap that is neither on nor off is refused") {
  const SmallBundle bundle;
  const Variable overlap("DEEPSIM_CUDA_OVERLAP", "off");
  CHECK_THROWS_WITH_AS(Inverter(bundle.path(), on_gpu(1)), "DEEPSIM_CUDA_OVERLAP: 'off', expected 0 or 1.", deepsim::Error);
}
