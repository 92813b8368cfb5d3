#include "products.h"

#include <cstdlib>

#include "../../../../kernels/cuda/tile.h"
#include "../../../../kernels/cuda/variants.h"
#include "../error.h"

namespace deepsim::runtime::detail::cuda {

namespace {

namespace kernel = deepsim::cuda;

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
  return {store, {name, Tile::rows, Tile::columns, Tile::depth, Tile::planes, Tile::stages, Tile::threads, Tile::weight_bytes,
                  instructions}};
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
  return Instructions::wgmma;
}

int Product::shared_bytes(int span, int taps) const {
  const auto bytes = instructions == Instructions::wgmma ? kernel::hopper_shared_bytes : kernel::shared_bytes;
  return bytes(rows, span, planes, taps, stages, weight_bytes);
}

Product product_for(const DeviceFacts& facts, const std::string& store, int depth, int rows, int columns, int groups,
                    int span, int taps, Instructions instructions) {
  const Product* fitting = nullptr;
  for (const Entry& entry : kProducts) {
    const Product& product = entry.product;
    if (entry.store != store || product.depth != depth || !serve(instructions, product.instructions)) continue;
    if (product.shared_bytes(span, taps) > facts.shared_bytes) continue;
    const bool fills = product.blocks(rows, columns) * groups >= facts.multiprocessors;
    const bool wasteful = columns % product.columns != 0 && columns % product.columns <= product.columns / 2;
    if (fills && !wasteful) return product;
    if (product.instructions != Instructions::wgmma) fitting = &product;
  }
  if (fitting == nullptr) {
    throw Failure(ErrorKind::device, "cuda: a layer's windows reach over " + std::to_string(span) + " pixels, more than " +
                                         facts.name + " has shared memory for. Use backend cpu.");
  }
  return *fitting;
}

}  // namespace deepsim::runtime::detail::cuda
