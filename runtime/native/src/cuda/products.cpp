#include "products.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "../../../../kernels/cuda/tile.h"
#include "../../../../kernels/cuda/variants.h"
#include "../error.h"

namespace deepsim::runtime::detail::cuda {

namespace {

namespace kernel = deepsim::cuda;

constexpr int kBlocksOfSplits = 2;  // for each multiprocessor, where a sum is split
constexpr int kLeastSteps = 8;      // of a part: taps of a chunk
constexpr int kFewRows = 16;        // so few wait for their weights alone: parts read them faster

int divide_up(int a, int b) { return (a + b - 1) / b; }

#define TILE(name, rows, columns, depth, warp_rows, warp_columns, stages) \
  template <class Element>                                                \
  using name##_tile = kernel::Tile<Element, rows, columns, depth, warp_rows, warp_columns, stages>;
DEEPSIM_CUDA_TILES(TILE)
#undef TILE
#define TILE(name, rows, columns, depth, stages) \
  using name##_tile = kernel::HopperTile<kernel::Half, rows, columns, depth, stages>;
DEEPSIM_CUDA_HOPPER_TILES(TILE)
#undef TILE

struct Entry {
  const char* store;
  Product product;
};

template <class Tile>
Entry entry(const char* store, const char* name, Instructions instructions) {
  return {store, {name, Tile::rows, Tile::columns, Tile::depth, Tile::threads, Tile::shared_bytes, instructions}};
}

// Larger tiles come first, and those of wgmma before those of mma.
const Entry kProducts[] = {
#define PRODUCT(tile, kind) entry<tile##_tile>(#kind, #tile "_" #kind, Instructions::wgmma),
    DEEPSIM_CUDA_HOPPER_PRODUCTS(PRODUCT)
#undef PRODUCT
#define PRODUCT(tile, kind) entry<tile##_tile<kernel::Half>>(#kind, #tile "_" #kind, Instructions::mma),
    DEEPSIM_CUDA_DEEP_PRODUCTS(PRODUCT) DEEPSIM_CUDA_PRODUCTS(PRODUCT)
#undef PRODUCT
#define PRODUCT(tile, kind) entry<tile##_tile<kernel::Single>>(#kind, #tile "_" #kind, Instructions::fma),
    DEEPSIM_CUDA_PRODUCTS(PRODUCT)
#undef PRODUCT
};

// Whether who wants these instructions takes a product of those.
bool serve(Instructions wanted, Instructions those) {
  return those == wanted || (wanted == Instructions::wgmma && those == Instructions::mma);
}

}  // namespace

Instructions instructions_of(const std::string& name, const DeviceFacts& facts, Precision precision) {
  const char* variable = std::getenv("DEEPSIM_CUDA_KERNELS");
  const std::string wanted = !name.empty() ? name : variable != nullptr ? variable : "";
  if (!wanted.empty() && wanted != "mma" && wanted != "wgmma") {
    throw Failure(ErrorKind::usage, "kernels '" + wanted + "': unknown, expected mma or wgmma. Choose one of these.");
  }
  if (precision == Precision::single) {
    if (wanted.empty()) return Instructions::fma;
    throw Failure(ErrorKind::usage, "kernels '" + wanted + "': precision is fp32, expected fp16 or bf16, since they multiply " +
                                        "16-bit values. Choose one of these, or leave DEEPSIM_CUDA_KERNELS unset.");
  }
  if (wanted != "wgmma") return Instructions::mma;
  if (facts.architecture != 90) {
    throw Failure(ErrorKind::device, "kernels 'wgmma': " + facts.name + " is sm_" + std::to_string(facts.architecture) +
                                         ", expected sm_90. Use mma.");
  }
  if (!has_machine_code(90)) {
    throw Failure(ErrorKind::device, "kernels 'wgmma': this libdeepsim was built without those for sm_90. Use mma.");
  }
  return Instructions::wgmma;
}

int Product::image_tiles(const ProductSize& size) const {
  const int tiles = divide_up(size.image_rows, rows);
  return size.images * tiles < divide_up(size.rows, rows) ? tiles : 0;
}

int Product::row_tiles(const ProductSize& size) const {
  const int tiles = image_tiles(size);
  return tiles > 0 ? size.images * tiles : divide_up(size.rows, rows);
}

int Product::blocks(const ProductSize& size) const { return row_tiles(size) * divide_up(size.columns, columns) * size.groups; }

namespace {

// The first kernel with this store that fills the GPU, else the one with the smallest tile; whether it fills it.
std::pair<const Product*, bool> largest_filling(const DeviceFacts& facts, const std::string& store, const ProductSize& size,
                                                Instructions instructions) {
  const Product* smallest = nullptr;
  for (const Entry& entry : kProducts) {
    const Product& product = entry.product;
    if (entry.store != store || product.depth != size.depth || !serve(instructions, product.instructions)) continue;
    if (product.shared_bytes(size.span, size.taps, size.chunks) > facts.shared_bytes) continue;
    const bool fills = product.blocks(size) >= facts.multiprocessors;
    const bool wasteful = size.columns % product.columns != 0 && size.columns % product.columns <= product.columns / 2;
    if (fills && !wasteful) return {&product, true};
    if (product.instructions != Instructions::wgmma) smallest = &product;
  }
  return {smallest, false};
}

// The smallest tile that takes all rows at once, else the largest.
const Product* splitting(const DeviceFacts& facts, const ProductSize& size, Instructions instructions) {
  const Product* chosen = nullptr;
  for (const Entry& entry : kProducts) {
    const Product& product = entry.product;
    if (std::string(entry.store) != "partial" || product.depth != size.depth || !serve(instructions, product.instructions)) continue;
    if (product.shared_bytes(size.span, size.taps, size.chunks) > facts.shared_bytes) continue;
    if (chosen == nullptr || size.rows <= product.rows) chosen = &product;
  }
  return chosen;
}

}  // namespace

Choice product_for(const DeviceFacts& facts, const ProductSize& size, bool stable, Instructions instructions) {
  // mma.sync and wgmma add in different orders: which fills the GPU depends on the batch, and an image's bits must not.
  if (stable && instructions == Instructions::wgmma) instructions = Instructions::mma;
  const auto [product, fills] = largest_filling(facts, size.store, size, instructions);
  if (product == nullptr) {
    throw Failure(ErrorKind::device, "cuda: a layer's windows reach over " + std::to_string(size.span) + " pixels, more than " +
                                         facts.name + " has shared memory for. Use backend cpu.");
  }
  const Choice whole{*product, 1, size.chunks};
  if ((fills && size.rows > kFewRows) || stable || size.store == "pixels") return whole;
  const Product* part = splitting(facts, size, instructions);
  if (part == nullptr) return whole;
  const int blocks = part->blocks(size);
  const int most = std::max(1, size.chunks * size.taps / kLeastSteps);
  const int wanted = std::min({divide_up(kBlocksOfSplits * facts.multiprocessors, blocks), most, size.chunks});
  const int chunks = divide_up(size.chunks, std::max(1, wanted));
  const Choice split{*part, divide_up(size.chunks, chunks), chunks};
  return split.split() ? split : whole;
}

}  // namespace deepsim::runtime::detail::cuda
