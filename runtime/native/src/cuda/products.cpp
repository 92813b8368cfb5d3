#include "products.h"

#include <cstdlib>

#include "../../../../kernels/cuda/tile.h"
#include "../../../../kernels/cuda/variants.h"
#include "../error.h"

namespace deepsim::runtime::detail::cuda {

namespace {

namespace kernel = deepsim::cuda;

#define TILE(name, rows, columns, depth, warp_rows, warp_columns, stages) \
  using name##_tile = kernel::Tile<kernel::Half, rows, columns, depth, warp_rows, warp_columns, stages>;
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
  return {store, {name, Tile::rows, Tile::columns, Tile::depth, Tile::stages, Tile::threads, instructions}};
}

#define PRODUCT(tile, kind) entry<tile##_tile>(#kind, #tile "_" #kind, Instructions::mma),
const Entry kProducts[] = {DEEPSIM_CUDA_PRODUCTS(PRODUCT)};
#undef PRODUCT
#define PRODUCT(tile, kind) entry<tile##_tile>(#kind, #tile "_" #kind, Instructions::wgmma),
const Entry kHopperProducts[] = {DEEPSIM_CUDA_HOPPER_PRODUCTS(PRODUCT)};
#undef PRODUCT

}  // namespace

Instructions instructions_of(const std::string& name, const DeviceFacts& facts) {
  const char* variable = std::getenv("DEEPSIM_CUDA_KERNELS");
  const std::string wanted = !name.empty() ? name : variable != nullptr && *variable != 0 ? variable : "mma";
  if (wanted == "mma") return Instructions::mma;
  if (wanted != "wgmma") {
    throw Failure(ErrorKind::usage, "kernels '" + wanted + "': unknown, expected mma or wgmma. Choose one of these.");
  }
  if (facts.architecture != 90) {
    throw Failure(ErrorKind::device, "kernels 'wgmma': " + facts.name + " is sm_" + std::to_string(facts.architecture) +
                                         ", expected sm_90. Use mma.");
  }
  return Instructions::wgmma;
}

int Product::shared_bytes(int span, int taps) const {
  const auto bytes = instructions == Instructions::wgmma ? kernel::hopper_shared_bytes : kernel::shared_bytes;
  return bytes(rows, span, depth / kernel::kPlane, taps, stages, depth * columns * 2);
}

Product product_for(const DeviceFacts& facts, const std::string& store, int depth, int rows, int columns, int groups,
                    int span, int taps, Instructions instructions) {
  const Product* fitting = nullptr;
  bool good = false;  // fills the GPU, without too many columns that nobody needs
  const auto consider = [&](const Entry& entry) {  // larger tiles come first
    const Product& product = entry.product;
    if (good || entry.store != store || product.depth != depth) return;
    if (product.shared_bytes(span, taps) > facts.shared_bytes) return;
    const bool fills = product.blocks(rows, columns) * groups >= facts.multiprocessors;
    const bool wasteful = columns % product.columns != 0 && columns % product.columns <= product.columns / 2;
    good = fills && !wasteful;
    if (good || product.instructions == Instructions::mma) fitting = &product;
  };
  if (instructions == Instructions::wgmma) {
    for (const Entry& entry : kHopperProducts) consider(entry);
  }
  for (const Entry& entry : kProducts) consider(entry);
  if (fitting == nullptr) {
    throw Failure(ErrorKind::device, "cuda: a layer's windows reach over " + std::to_string(span) + " pixels, more than " +
                                         facts.name + " has shared memory for. Use backend cpu.");
  }
  return *fitting;
}

}  // namespace deepsim::runtime::detail::cuda
