// Every kernel that is compiled, as lists for macros: the GPU's entry points, the emulation's, and the session's choice are
// made from the same lines.
#pragma once

//   tile, rows, columns, depth, warp rows, warp columns, stages
#define DEEPSIM_CUDA_TILES(TILE)         \
  TILE(large, 128, 128, 32, 64, 64, 3)   \
  TILE(large16, 128, 128, 16, 64, 64, 4) \
  TILE(small, 64, 64, 32, 32, 32, 3)     \
  TILE(small16, 64, 64, 16, 32, 32, 4)   \
  TILE(narrow, 128, 32, 32, 32, 32, 3)   \
  TILE(narrow16, 128, 32, 16, 32, 32, 4) \
  TILE(skinny, 16, 64, 32, 16, 16, 6)    \
  TILE(skinny16, 16, 64, 16, 16, 16, 6)  \
  TILE(images, 256, 16, 32, 64, 16, 2)   \
  TILE(images16, 256, 16, 16, 64, 16, 2) \
  TILE(image, 128, 16, 32, 32, 16, 2)    \
  TILE(image16, 128, 16, 16, 32, 16, 2)

// Products with chunks of 32 channels, of 16-bit values.
//   tile, store
#define DEEPSIM_CUDA_DEEP_PRODUCTS(PRODUCT) \
  PRODUCT(large, blocks)                    \
  PRODUCT(large, shuffle)                   \
  PRODUCT(large, connected)                 \
  PRODUCT(large, partial)                   \
  PRODUCT(small, blocks)                    \
  PRODUCT(small, shuffle)                   \
  PRODUCT(small, connected)                 \
  PRODUCT(small, partial)                   \
  PRODUCT(narrow, blocks)                   \
  PRODUCT(skinny, partial)                  \
  PRODUCT(images, pixels)                   \
  PRODUCT(image, pixels)                    \
  PRODUCT(images, levels)                   \
  PRODUCT(image, levels)

// With chunks of 16, which take as many bytes in fp32.
//   tile, store
#define DEEPSIM_CUDA_PRODUCTS(PRODUCT) \
  PRODUCT(large16, blocks)             \
  PRODUCT(large16, shuffle)            \
  PRODUCT(large16, connected)          \
  PRODUCT(large16, partial)            \
  PRODUCT(small16, blocks)             \
  PRODUCT(small16, shuffle)            \
  PRODUCT(small16, connected)          \
  PRODUCT(small16, partial)            \
  PRODUCT(narrow16, blocks)            \
  PRODUCT(skinny16, partial)           \
  PRODUCT(images16, pixels)            \
  PRODUCT(image16, pixels)             \
  PRODUCT(images16, levels)            \
  PRODUCT(image16, levels)

// Products with the instructions of Hopper, of 16-bit values; compute capability 9.0a alone.
//   tile, rows, columns, depth, stages
#define DEEPSIM_CUDA_HOPPER_TILES(TILE) \
  TILE(wgmma_tall, 256, 128, 32, 8)     \
  TILE(wgmma_square, 128, 128, 32, 8)   \
  TILE(wgmma_short, 64, 128, 32, 6)     \
  TILE(wgmma_tall16, 256, 128, 16, 8)   \
  TILE(wgmma_square16, 128, 128, 16, 8)

//   tile, store
#define DEEPSIM_CUDA_HOPPER_PRODUCTS(PRODUCT) \
  PRODUCT(wgmma_tall, blocks)                 \
  PRODUCT(wgmma_tall, shuffle)                \
  PRODUCT(wgmma_tall, connected)              \
  PRODUCT(wgmma_square, blocks)               \
  PRODUCT(wgmma_square, shuffle)              \
  PRODUCT(wgmma_square, connected)            \
  PRODUCT(wgmma_square, partial)              \
  PRODUCT(wgmma_short, blocks)                \
  PRODUCT(wgmma_short, shuffle)               \
  PRODUCT(wgmma_short, connected)             \
  PRODUCT(wgmma_short, partial)               \
  PRODUCT(wgmma_tall16, blocks)               \
  PRODUCT(wgmma_tall16, shuffle)              \
  PRODUCT(wgmma_tall16, connected)            \
  PRODUCT(wgmma_square16, blocks)             \
  PRODUCT(wgmma_square16, shuffle)            \
  PRODUCT(wgmma_square16, connected)
