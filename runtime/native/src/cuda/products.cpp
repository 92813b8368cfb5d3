#include "products.h"

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

struct Entry {
  const char* store;
  Product product;
};

#define PRODUCT(tile, kind) \
  {#kind, {#tile "_" #kind, tile##_tile::rows, tile##_tile::columns, tile##_tile::depth, tile##_tile::stages, tile##_tile::threads}},
const Entry kProducts[] = {DEEPSIM_CUDA_PRODUCTS(PRODUCT)};
#undef PRODUCT

}  // namespace

int Product::shared_bytes(int span, int taps) const {
  return kernel::shared_bytes(rows, span, depth / kernel::kPlane, taps, stages, depth * columns * 2);
}

Product product_for(const DeviceFacts& facts, const std::string& store, int depth, int rows, int columns, int groups,
                    int span, int taps) {
  const Product* fitting = nullptr;
  for (const Entry& entry : kProducts) {  // larger tiles come first
    const Product& product = entry.product;
    if (entry.store != store || product.depth != depth || product.shared_bytes(span, taps) > facts.shared_bytes) continue;
    fitting = &product;
    const bool fills = product.blocks(rows, columns) * groups >= facts.multiprocessors;
    const bool wasteful = columns % product.columns != 0 && columns % product.columns <= product.columns / 2;
    if (fills && !wasteful) break;
  }
  if (fitting == nullptr) {
    throw Failure(ErrorKind::device, "cuda: a layer's windows reach over " + std::to_string(span) + " pixels, more than " +
                                         facts.name + " has shared memory for. Use backend cpu.");
  }
  return *fitting;
}

}  // namespace deepsim::runtime::detail::cuda
