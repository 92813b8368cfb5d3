// The entry points for the GPU; compiled once for each element (DEEPSIM_ELEMENT: Half, Brain, Single), for every
// architecture.
#include "passes.h"
#include "shift_gemm.h"
#include "variants.h"

// Whether the element has 16 bits, for the preprocessor.
#define DEEPSIM_16_BITS_Half 1
#define DEEPSIM_16_BITS_Brain 1
#define DEEPSIM_16_BITS_Single 0
#define DEEPSIM_JOIN(a, b) a##b
#define DEEPSIM_16_BITS(element) DEEPSIM_JOIN(DEEPSIM_16_BITS_, element)

#if DEEPSIM_16_BITS(DEEPSIM_ELEMENT) && defined(__CUDA_ARCH_FEAT_SM90_ALL)  // compute capability 9.0a: others lack these
#define DEEPSIM_HOPPER
#include "shift_gemm_hopper.h"
#endif

namespace deepsim::cuda {

using Element = DEEPSIM_ELEMENT;

#define TILE(name, rows, columns, depth, warp_rows, warp_columns, stages) \
  using name##_tile = Tile<Element, rows, columns, depth, warp_rows, warp_columns, stages>;
DEEPSIM_CUDA_TILES(TILE)

#define ENTRY(product, tile, kind)                                                                                          \
  extern "C" DEEPSIM_KERNEL(tile##_tile::threads, tile##_tile::residents) tile##_##kind(DEEPSIM_ARGUMENT ShiftGemm layer) { \
    DEEPSIM_SHARED_MEMORY(shared);                                                                                          \
    product<tile##_tile, Store::kind>(layer, shared);                                                                       \
  }
#define PRODUCT(tile, kind) ENTRY(shift_gemm, tile, kind)
DEEPSIM_CUDA_PRODUCTS(PRODUCT)
#if DEEPSIM_16_BITS(DEEPSIM_ELEMENT)
DEEPSIM_CUDA_DEEP_PRODUCTS(PRODUCT)
#endif

#if defined(DEEPSIM_HOPPER)
#define HOPPER_TILE(name, rows, columns, depth, stages) using name##_tile = HopperTile<Element, rows, columns, depth, stages>;
DEEPSIM_CUDA_HOPPER_TILES(HOPPER_TILE)
#define HOPPER_PRODUCT(tile, kind) ENTRY(shift_gemm_hopper, tile, kind)
DEEPSIM_CUDA_HOPPER_PRODUCTS(HOPPER_PRODUCT)
#endif

extern "C" DEEPSIM_KERNEL(kPoolThreads, 1) pool_and_normalise(DEEPSIM_ARGUMENT Pool layer) {
  DEEPSIM_SHARED_MEMORY(shared);
  pool<Element>(layer, shared);
}
extern "C" DEEPSIM_KERNEL(kPassThreads, 1) read_pixels(DEEPSIM_ARGUMENT PixelsIn layer) { pixels_in<Element>(layer); }
extern "C" DEEPSIM_KERNEL(kPassThreads, 1) to_depth(DEEPSIM_ARGUMENT SpaceToDepth layer) { space_to_depth<Element>(layer); }
extern "C" DEEPSIM_KERNEL(kPassThreads, 1) read_features(DEEPSIM_ARGUMENT Features layer) { features<Element, true>(layer); }
extern "C" DEEPSIM_KERNEL(kPassThreads, 1) write_features(DEEPSIM_ARGUMENT Features layer) { features<Element, false>(layer); }
extern "C" DEEPSIM_KERNEL(kPassThreads, 1) lay_line(DEEPSIM_ARGUMENT Line line) { interpolate(line); }

}  // namespace deepsim::cuda
