// The kernels that compute products, as the host sees them: which tiles there are and which fits a layer.
#pragma once

#include <string>

#include "gpu.h"

namespace deepsim::runtime::detail::cuda {

constexpr int kMaxChunk = 1024;  // images that pass through a network together, at most

// What multiplies in products that are large enough. mma: mma.sync, on every GPU. wgmma: a warpgroup's multiplications
// straight from shared memory, on compute capability 9.0 (Hopper) alone, where they are faster (benchmarks/results/). Both
// multiply 16-bit values; in fp32 it is fma, each thread on its own.
enum class Instructions { mma, wgmma, fma };

// Which kernels are considered: those of some instructions; where a tile is named ("wgmma_short", "large" ...), for measuring,
// its alone as far as it has any that fit.
struct Kernels {
  Instructions instructions = Instructions::mma;
  std::string tile = {};
  int images = 0;  // that a convolution takes at once, for measuring: a power of two; 0: as many as the estimate says
};

// By the name of instructions, "mma" or "wgmma", or of a tile, or "" for the environment's DEEPSIM_CUDA_KERNELS, else wgmma
// where the GPU and this library have it, mma elsewhere; in fp32 fma, where none was named. Raises UsageError for another name
// or one that the precision has no kernels for, DeviceError for wgmma on another GPU. `images` is DEEPSIM_CUDA_IMAGES, else 0;
// UsageError for what is no power of two.
Kernels kernels_of(const std::string& name, const DeviceFacts& facts, Precision precision);

inline int divide_up(int a, int b) { return (a + b - 1) / b; }

struct ProductSize;
struct Product {
  std::string kernel;  // its name in the module
  int rows = 0, columns = 0, depth = 0, stages = 0, threads = 0;
  int chunk_row_bytes = 0;  // of a chunk's channels in one row
  int operand_bytes = 0;    // that all warps read from shared memory for one tap
  bool all_taps = false;    // in one step of the main loop
  bool in_turns = false;    // a block computes one tile after the other
  int residents = 1;        // blocks that registers leave a multiprocessor room for, at the least
  int (*shared_bytes)(int span, int taps, int chunks) = nullptr;
  Instructions instructions = Instructions::mma;

  int image_tiles(const ProductSize& size) const;  // down an image, where tiles start anew in each; 0 where they run on
  int row_tiles(const ProductSize& size) const;
  int blocks(const ProductSize& size) const;
};

// What a kernel is chosen by: the size of a product, and how it is stored ("blocks", "shuffle", "connected", "pixels",
// "levels").
struct ProductSize {
  std::string store;
  int depth = 0;  // channels of a chunk
  int rows = 0, columns = 0, groups = 1, chunks = 1, taps = 1;
  int span = 0;  // rows from the first tap to the last
  int images = 0, image_rows = 0;  // where only so many rows of each image are wanted

  bool of_images() const { return store == "pixels" || store == "levels"; }
};

// A kernel, and the parts that it splits the sum into.
struct Choice {
  Product product;
  int splits = 1, chunks_per_split = 1;
  double cycles = 0;  // estimated
  bool split() const { return splits > 1; }
};

// The kernel for a product, which takes the fewest cycles by estimate.h: its tile, and the parts of its sum, unless the result
// must be `stable`, the same in every batch. All tiles of mma sum in the same order, all of wgmma and all of fma in theirs, so
// that their choice changes no bit. With wgmma, its kernels or, unless stable, those of mma; for bytes mma's alone. Raises
// DeviceError when no kernel fits the shared memory.
Choice product_for(const DeviceFacts& facts, const ProductSize& size, bool stable, const Kernels& kernels = {});

}  // namespace deepsim::runtime::detail::cuda
