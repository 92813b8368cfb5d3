// Which kernels the session takes for a product: its tile and the parts of its sum, by an estimate of their time.
#include <doctest/doctest.h>

#include <string>

#include "cuda/estimate.h"
#include "cuda/plan.h"
#include "cuda/products.h"
#include "error.h"

using deepsim::runtime::detail::Failure;
using namespace deepsim::runtime::detail::cuda;

namespace {

const DeviceFacts kLarge{"a GPU with 132 multiprocessors", 90, 132, 232448, 50 << 20, 1900};
const DeviceFacts kSmall{"a GPU with 40 multiprocessors", 75, 40, 65536, 4 << 20, 200};

// An up-convolution's product, 256 channels of 8x8 to 16x16, 2x2 taps.
ProductSize upconvolution(int images) { return {"shuffle", 32, images * 9 * 9, 4 * 256, 1, 8, 4, 10}; }

ProductSize connected(int images) { return {"connected", 32, images, 4096, 1, 128, 1, 0}; }

// "kernel parts x chunks"
std::string chosen(const ProductSize& size, bool stable = false, const DeviceFacts& facts = kLarge) {
  const Choice choice = product_for(facts, size, stable);
  return choice.product.kernel + " " + std::to_string(choice.splits) + " x " + std::to_string(choice.chunks_per_split);
}

}  // namespace

TEST_CASE("products of many rows are one sum, on tiles as large as keep the GPU busy") {
  CHECK(chosen(upconvolution(256)) == "large_shuffle 1 x 8");
  CHECK(chosen(upconvolution(64)) == "large_shuffle 1 x 8");
  CHECK(chosen(connected(1024)) == "large_connected 1 x 128");
  CHECK(chosen({"blocks", 32, 64 * 130 * 130, 32, 1, 2, 9, 262}) == "narrow_blocks 1 x 2");
}

TEST_CASE("where blocks are few and long, the sum is split") {
  CHECK(chosen(upconvolution(1)) == "skinny_partial 4 x 2");
  CHECK(chosen(upconvolution(4)) == "small_partial 2 x 4");  // 192 blocks, where whole sums would be 96
  CHECK(chosen(connected(64)) == "small_partial 3 x 43");
  CHECK(chosen(connected(256)) == "large_partial 2 x 64");  // 64 blocks of whole sums would leave half of the GPU idle
  CHECK(chosen(connected(1)) == "skinny_partial 8 x 16");
  CHECK(chosen({"blocks", 32, 14 * 15, 192, 2, 6, 9, 32}) == "skinny_partial 3 x 2");  // both groups, six chunks
  CHECK(chosen({"blocks", 16, 28 * 28, 256, 1, 1, 25, 100}) == "narrow16_blocks 1 x 1");  // one chunk
}

TEST_CASE("a stable plan splits nothing, nor do the bytes of an image") {
  CHECK(chosen(upconvolution(1), true) == "small_shuffle 1 x 8");
  CHECK(chosen(connected(1), true) == "small_connected 1 x 128");
  CHECK(chosen({"pixels", 32, 65 * 65, 16, 1, 8, 4, 66}) == "image_pixels 1 x 8");
}

TEST_CASE("no product is estimated to be faster than the GPU multiplies, nor slower than a whole sum") {
  for (const DeviceFacts& facts : {kLarge, kSmall})
    for (const int images : {1, 3, 8, 64, 256})
      for (const ProductSize& size : {upconvolution(images), connected(images)}) {
        const Choice choice = product_for(facts, size, false);
        const double multiplications = 1.0 * size.rows * size.columns * size.chunks * size.depth * size.taps;
        const double rate = facts.architecture == 90 ? 1300 : 512;
        CHECK(choice.cycles >= multiplications / rate / facts.multiprocessors);
        CHECK(choice.cycles <= product_for(facts, size, true).cycles);
      }
}

TEST_CASE("twice the images take more cycles, but less than twice as many") {
  for (const DeviceFacts& facts : {kLarge, kSmall})
    for (int images = 1; images < 256; images *= 2) {
      const double once = product_for(facts, upconvolution(images), false).cycles;
      const double twice = product_for(facts, upconvolution(2 * images), false).cycles;
      CHECK(once <= twice);
      CHECK(twice <= 2 * once);
    }
}

// The last layer of the generator of fc6, 129 x 129 windows, of which 114 rows and columns give the crop.
TEST_CASE("tiles start anew in each image where that leaves out rows beyond the crop") {
  ProductSize last{"pixels", 32, 16 * 129 * 129, 16, 1, 1, 4, 130};
  last.images = 16;
  last.image_rows = 114 * 129;
  const Product image = product_for(kLarge, last, false).product;
  CHECK(image.rows == 256);
  CHECK(image.image_tiles(last) == 58);
  CHECK(image.row_tiles(last) == 16 * 58);  // of 1041
  last.image_rows = 129 * 129;
  CHECK(image.image_tiles(last) == 0);
  CHECK(image.row_tiles(last) == 1041);
  ProductSize early{"shuffle", 32, 16 * 5 * 5, 1024, 1, 8, 4, 6, 16, 25};  // 16 tiles of one image each, instead of 4
  CHECK(product_for(kSmall, early, true).product.image_tiles(early) == 0);
}

// The last layer of the largest images, 3x3 over 256x256 of 16 channels; in 16 bits it takes half as much.
TEST_CASE("64 KB of shared memory hold the windows of every published network in fp32") {
  const ProductSize last{"pixels", 16, 258 * 258, 16, 1, 1, 9, 516};
  const Product image = product_for(kSmall, last, false, {Instructions::fma}).product;
  CHECK(image.kernel == "images16_pixels");
  CHECK(image.shared_bytes(last.span, last.taps, last.chunks) == 58624);
}

TEST_CASE("more rows than a kernel can count do not fit") {
  Layout large{16, 2048, 2048, 1};  // two planes of 16 bytes to a pixel
  CHECK(large.fits(255));
  CHECK(!large.fits(256));
  CHECK(!large.fits(1024));  // of which 2^32 would seem to be a few
  Layout published{32, 128, 128, 1};
  published.plane = 4;
  CHECK(published.fits(1024));
}

TEST_CASE("windows that reach over more rows than shared memory holds are refused") {
  const ProductSize wide{"blocks", 32, 100 * 4000, 256, 1, 8, 9, 8000};
  CHECK_THROWS_WITH_AS(chosen(wide),
                       "cuda: a layer's windows reach over 8000 pixels, more than a GPU with 132 multiprocessors has shared "
                       "memory for. Use backend cpu.",
                       Failure);
}
