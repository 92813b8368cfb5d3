#include "emulated_kernels.h"

#include <map>

#include "passes.h"
#include "shift_gemm.h"
#include "shift_gemm_hopper.h"
#include "variants.h"

namespace deepsim::tests {

namespace {

using namespace deepsim::cuda;
using Kernels = std::map<std::string, EmulatedKernel>;

template <class Argument, class Body>
EmulatedKernel kernel(const Body& body) {
  return {sizeof(Argument), [body](const void* argument) { body(*static_cast<const Argument*>(argument)); }};
}

unsigned char* shared() { return emulation::position.shared; }

#define TILE(name, rows, columns, depth, warp_rows, warp_columns, stages) \
  template <class Element>                                                \
  using name##_tile = Tile<Element, rows, columns, depth, warp_rows, warp_columns, stages>;
DEEPSIM_CUDA_TILES(TILE)
#undef TILE
#define TILE(name, rows, columns, depth, stages) \
  template <class Element>                       \
  using name##_tile = HopperTile<Element, rows, columns, depth, stages>;
DEEPSIM_CUDA_HOPPER_TILES(TILE)
#undef TILE

#define ENTRY(product, tile, kind) \
  kernels[#tile "_" #kind] =       \
      kernel<ShiftGemm>([](const ShiftGemm& layer) { product<tile##_tile<Element>, Store::kind>(layer, shared()); });

// Those of 16-bit values.
template <class Element>
void add_16_bit(Kernels& kernels) {
#define PRODUCT(tile, kind) ENTRY(shift_gemm, tile, kind)
  DEEPSIM_CUDA_DEEP_PRODUCTS(PRODUCT)
#undef PRODUCT
#define PRODUCT(tile, kind) ENTRY(shift_gemm_hopper, tile, kind)
  DEEPSIM_CUDA_HOPPER_PRODUCTS(PRODUCT)
#undef PRODUCT
}

template <class Element>
Kernels kernels_for() {
  Kernels kernels;
#define PRODUCT(tile, kind) ENTRY(shift_gemm, tile, kind)
  DEEPSIM_CUDA_PRODUCTS(PRODUCT)
#undef PRODUCT
  if constexpr (sizeof(typename Element::Bits) == 2) add_16_bit<Element>(kernels);
  kernels["pool_and_normalise"] = kernel<Pool>([](const Pool& layer) { pool<Element>(layer, shared()); });
  kernels["read_pixels"] = kernel<PixelsIn>([](const PixelsIn& layer) { pixels_in<Element>(layer); });
  kernels["to_depth"] = kernel<SpaceToDepth>([](const SpaceToDepth& layer) { space_to_depth<Element>(layer); });
  kernels["read_features"] = kernel<Features>([](const Features& layer) { features<Element, true>(layer); });
  kernels["write_features"] = kernel<Features>([](const Features& layer) { features<Element, false>(layer); });
  kernels["lay_line"] = kernel<Line>([](const Line& line) { interpolate(line); });
  return kernels;
}

}  // namespace

const EmulatedKernel& emulated_kernel(const std::string& element, const std::string& name) {
  static const std::map<std::string, Kernels> all = {
      {"half", kernels_for<Half>()}, {"brain", kernels_for<Brain>()}, {"single", kernels_for<Single>()}};
  return all.at(element).at(name);
}

}  // namespace deepsim::tests
