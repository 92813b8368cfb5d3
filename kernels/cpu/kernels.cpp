// Compiled once for each instruction set, with DEEPSIM_ISA as its name: see kernels.h.
#include "convolve.h"
#include "fully_connected.h"
#include "pool.h"
#include "winograd.h"

#define DEEPSIM_TEXT_(name) #name
#define DEEPSIM_TEXT(name) DEEPSIM_TEXT_(name)

namespace deepsim::kernels::DEEPSIM_ISA {

// kChains independent chains of vector multiply-adds: the arithmetic roof. Every loop over the chains is unrolled, so
// that they stay in registers; each starts at a value that the compiler cannot know, or it would compute one for all.
static float multiply_add(long rounds) {
  volatile float start = 1e-3f;
  Vector sums[kChains];
#pragma GCC unroll 32
  for (int j = 0; j < kChains; ++j) sums[j] = broadcast(start);
  const Vector factor = broadcast(0.999f), term = broadcast(1e-3f);
  for (long i = 0; i < rounds; ++i)
#pragma GCC unroll 32
    for (int j = 0; j < kChains; ++j) sums[j] = sums[j] * factor + term;
  float total = 0;
#pragma GCC unroll 32
  for (int j = 0; j < kChains; ++j) total += sums[j][0];
  return total;
}

extern const KernelTable table;
const KernelTable table = {DEEPSIM_TEXT(DEEPSIM_ISA), kColumns,        kRows, kLanes,       convolve, winograd_transform,
                           winograd_multiply,         fully_connected, pool,  multiply_add, kChains};

}  // namespace deepsim::kernels::DEEPSIM_ISA
