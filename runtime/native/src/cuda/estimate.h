// How long a product takes, estimated: what its kernel, the parts of its sum and the images taken at once are chosen by.
#pragma once

#include "products.h"

namespace deepsim::runtime::detail::cuda {

// Cycles of a kernel's launch inside a graph until the next one may start: half a microsecond, on an H200.
constexpr double kLaunch = 1000;

// Cycles of a product, whose sum is in so many parts, where its input and output stay in the L2 cache. The longest of what its
// multiprocessors compute, what the cache delivers and what memory does: a roofline with waves. Rates are vendors' figures for
// the architecture, latencies what a profile of an H200 suggests (benchmarks/results/); the whole has not been measured.
double cycles(const DeviceFacts& facts, const Product& product, const ProductSize& size, int splits, int chunks_per_split);

// Of the L2 cache: what a step reads, writes and keeps for itself may take as much, to be found there.
constexpr double kShareOfCache = 0.7;

// Cycles in which memory delivers so many bytes.
double memory_cycles(const DeviceFacts& facts, double bytes);

// Blocks of a product that a multiprocessor has room for, by registers and shared memory.
int resident(const DeviceFacts& facts, const Product& product, int shared_bytes);

}  // namespace deepsim::runtime::detail::cuda
