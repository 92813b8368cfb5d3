#include "products.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "../../../../kernels/cuda/tile.h"
#include "../../../../kernels/cuda/variants.h"
#include "../environment.h"
#include "../error.h"
#include "estimate.h"

namespace deepsim::runtime::detail::cuda {

namespace {

namespace kernel = deepsim::cuda;

constexpr int kParts[] = {2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64};  // of a sum, as far as it has chunks

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
  const bool in_turns = instructions == Instructions::wgmma && store != std::string_view("partial");
  return {store,
          {name, Tile::rows, Tile::columns, Tile::depth, Tile::stages, Tile::threads, Tile::planes * kernel::kRow,
           Tile::operand_bytes, Tile::all_taps, in_turns, Tile::residents, Tile::shared_bytes, instructions}};
}

// The first of several that are estimated to be as fast is taken.
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

// The tile of an entry, whatever the depth of its chunks.
std::string tile_of(const Entry& entry) {
  const std::string& kernel = entry.product.kernel;
  const std::string tile = kernel.substr(0, kernel.rfind('_'));
  return tile.size() > 2 && tile.compare(tile.size() - 2, 2, "16") == 0 ? tile.substr(0, tile.size() - 2) : tile;
}

const Entry* entry_of(const std::string& tile) {
  const auto has = [&](const Entry& entry) { return tile_of(entry) == tile; };
  const auto* found = std::find_if(std::begin(kProducts), std::end(kProducts), has);
  return found == std::end(kProducts) ? nullptr : found;
}

// By the environment; 0 without.
int images_at_once() {
  const std::string wanted = environment("DEEPSIM_CUDA_IMAGES");
  if (wanted.empty()) return 0;
  for (int images = 1; images <= kMaxChunk; images *= 2)
    if (wanted == std::to_string(images)) return images;
  throw Failure(ErrorKind::usage,
                "DEEPSIM_CUDA_IMAGES: '" + wanted + "', expected a power of two up to " + std::to_string(kMaxChunk) + ".");
}

Kernels instructions_of(const std::string& name, const DeviceFacts& facts, Precision precision) {
  const std::string wanted = !name.empty() ? name : environment("DEEPSIM_CUDA_KERNELS");
  const Entry* tile = entry_of(wanted);
  if (!wanted.empty() && wanted != "mma" && wanted != "wgmma" && tile == nullptr) {
    throw Failure(ErrorKind::usage, "kernels '" + wanted + "': unknown, expected mma or wgmma.");
  }
  if (precision == Precision::single) {
    if (wanted.empty()) return {Instructions::fma};
    throw Failure(ErrorKind::usage, "kernels '" + wanted + "': precision is fp32, expected fp16 or bf16, since they multiply " +
                                        "16-bit values.");
  }
  const bool default_wgmma = wanted.empty() && facts.architecture == 90 && has_machine_code(90);
  if (!default_wgmma && wanted != "wgmma" && (tile == nullptr || tile->product.instructions == Instructions::mma)) {
    return {Instructions::mma, tile != nullptr ? wanted : ""};
  }
  if (facts.architecture != 90) {
    throw Failure(ErrorKind::device, "kernels '" + wanted + "': " + facts.name + " is sm_" +
                                         std::to_string(facts.architecture) + ", expected sm_90. Use mma.");
  }
  if (!has_machine_code(90)) {
    throw Failure(ErrorKind::device, "kernels '" + wanted + "': this libdeepsim was built without those for sm_90. Use mma.");
  }
  return {Instructions::wgmma, tile != nullptr ? wanted : ""};
}

}  // namespace

Kernels kernels_of(const std::string& name, const DeviceFacts& facts, Precision precision) {
  Kernels kernels = instructions_of(name, facts, precision);
  kernels.images = images_at_once();
  return kernels;
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

// The best of those entries that may be considered; one without a kernel where none fits.
template <class Considered>
Choice best_of(const DeviceFacts& facts, const ProductSize& size, bool stable, const Considered& considered) {
  const Product* product = nullptr;
  Choice best;
  const auto consider = [&](const Product& candidate, int parts) {
    const int chunks = divide_up(size.chunks, parts), splits = divide_up(size.chunks, chunks);
    if (candidate.shared_bytes(size.span, size.taps, chunks) > facts.shared_bytes) return;
    const double estimate = cycles(facts, candidate, size, splits, chunks);
    if (product != nullptr && estimate >= best.cycles) return;
    product = &candidate;
    best.splits = splits;
    best.chunks_per_split = chunks;
    best.cycles = estimate;
  };
  for (const Entry& entry : kProducts) {  // those of wgmma first
    // mma.sync and wgmma add in different orders: which is faster depends on the batch, and an image's bits must not.
    if (stable && product != nullptr && entry.product.instructions != product->instructions) continue;
    if (entry.product.depth != size.depth || !considered(entry)) continue;
    if (entry.store == size.store) consider(entry.product, 1);
    if (stable || size.of_images() || entry.store != std::string_view("partial")) continue;
    for (const int parts : kParts)
      if (parts <= size.chunks) consider(entry.product, parts);
  }
  if (product != nullptr) best.product = *product;
  return best;
}

}  // namespace

Choice product_for(const DeviceFacts& facts, const ProductSize& size, bool stable, const Kernels& kernels) {
  const auto served = [&](const Entry& entry) { return serve(kernels.instructions, entry.product.instructions); };
  const auto named = [&](const Entry& entry) { return served(entry) && tile_of(entry) == kernels.tile; };
  Choice best;
  if (!kernels.tile.empty()) best = best_of(facts, size, stable, named);
  if (best.product.kernel.empty()) best = best_of(facts, size, stable, served);
  if (best.product.kernel.empty()) {
    throw Failure(ErrorKind::device, "cuda: a layer's windows reach over " + std::to_string(size.span) + " pixels, more than " +
                                         facts.name + " has shared memory for. Use backend cpu.");
  }
  return best;
}

}  // namespace deepsim::runtime::detail::cuda
