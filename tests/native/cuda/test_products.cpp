// Which kernels the engine takes for a product: its tile by the size of the GPU, its sum in parts where no tile fills it.
#include <doctest/doctest.h>

#include <string>

#include "cuda/products.h"
#include "error.h"

using deepsim::runtime::detail::Failure;
using namespace deepsim::runtime::detail::cuda;

namespace {

const DeviceFacts kLarge{"a GPU with 132 multiprocessors", 90, 132, 232448};
const DeviceFacts kSmall{"a GPU with 40 multiprocessors", 75, 40, 65536};

// An up-convolution's product, 256 channels of 8x8 to 16x16, 2x2 taps.
ProductSize upconvolution(int images) { return {"shuffle", 32, images * 9 * 9, 4 * 256, 1, 8, 4, 10}; }

ProductSize connected(int images) { return {"connected", 32, images, 4096, 1, 128, 1, 0}; }

// "kernel parts x chunks"
std::string chosen(const ProductSize& size, bool stable = false, const DeviceFacts& facts = kLarge) {
  const Choice choice = product_for(facts, size, stable);
  return choice.product.kernel + " " + std::to_string(choice.splits) + " x " + std::to_string(choice.chunks_per_split);
}

}  // namespace

TEST_CASE("a product that fills the GPU is one sum, on the largest tile that does") {
  CHECK(chosen(upconvolution(32)) == "large_shuffle 1 x 8");
  CHECK(chosen(upconvolution(16)) == "small_shuffle 1 x 8");
  CHECK(chosen(connected(1024)) == "large_connected 1 x 128");
  CHECK(chosen(connected(256)) == "small_connected 1 x 128");
  CHECK(chosen(connected(32), false, kSmall) == "small_connected 1 x 128");
}

TEST_CASE("where no tile fills the GPU, the sum is split: about two blocks for each multiprocessor, eight steps at the least") {
  CHECK(chosen(upconvolution(1)) == "small_partial 4 x 2");  // 32 blocks; 2 chunks of 4 taps are 8 steps
  CHECK(chosen(upconvolution(4)) == "small_partial 3 x 3");  // 96 blocks: three parts; 3 + 3 + 2 chunks
  CHECK(chosen(connected(64)) == "small_partial 5 x 26");
  const ProductSize grouped{"blocks", 32, 14 * 15, 192, 2, 6, 9, 32};
  CHECK(chosen(grouped) == "small_partial 6 x 1");  // 24 blocks of both groups, but six chunks
  const ProductSize one_chunk{"blocks", 16, 28 * 28, 256, 1, 1, 25, 100};
  CHECK(chosen(one_chunk) == "small16_blocks 1 x 1");
}

TEST_CASE("few rows are split too where they would fill the GPU") {
  CHECK(chosen(connected(1)) == "skinny_partial 5 x 26");
  CHECK(chosen(connected(16), false, kSmall) == "skinny_partial 2 x 64");
  CHECK(chosen(connected(17), false, kSmall) == "small_connected 1 x 128");
}

TEST_CASE("a stable plan splits nothing, nor do the bytes of an image") {
  CHECK(chosen(upconvolution(1), true) == "small_shuffle 1 x 8");
  CHECK(chosen(connected(1), true) == "small_connected 1 x 128");
  CHECK(chosen({"pixels", 32, 65 * 65, 16, 1, 8, 4, 66}) == "image_pixels 1 x 8");
}

// The last layer of the generator of fc6, 129 x 129 windows, of which 114 rows and columns give the crop.
TEST_CASE("tiles start anew in each image where that leaves out rows beyond the crop") {
  ProductSize last{"pixels", 32, 16 * 129 * 129, 16, 1, 1, 4, 130};
  last.images = 16;
  last.image_rows = 114 * 129;
  const Product image = product_for(kLarge, last, false).product;
  CHECK(image.image_tiles(last) == 115);
  CHECK(image.row_tiles(last) == 16 * 115);  // of 2081
  last.image_rows = 129 * 129;
  CHECK(image.image_tiles(last) == 0);
  CHECK(image.row_tiles(last) == 2081);
  ProductSize early{"shuffle", 32, 16 * 5 * 5, 1024, 1, 8, 4, 6, 16, 25};  // 16 tiles of one image each, instead of 4
  CHECK(product_for(kSmall, early, true).product.image_tiles(early) == 0);
}

// The last layer of the largest images, 3x3 over 256x256 of 16 channels; in 16 bits it takes half as much.
TEST_CASE("64 KB of shared memory hold the windows of every published network in fp32") {
  const ProductSize last{"pixels", 16, 258 * 258, 16, 1, 1, 9, 516};
  const Product image = product_for(kSmall, last, false, Instructions::fma).product;
  CHECK(image.kernel == "image16_pixels");
  CHECK(image.shared_bytes(last.span, last.taps, last.chunks) == 50432);
}

TEST_CASE("windows that reach over more rows than shared memory holds are refused") {
  const ProductSize wide{"blocks", 32, 100 * 4000, 256, 1, 8, 9, 8000};
  CHECK_THROWS_WITH_AS(chosen(wide),
                       "cuda: a layer's windows reach over 8000 pixels, more than a GPU with 132 multiprocessors has shared "
                       "memory for. Use backend cpu.",
                       Failure);
}
