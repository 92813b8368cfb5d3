#include "estimate.h"

#include <algorithm>

namespace deepsim::runtime::detail::cuda {

namespace {

constexpr double kSharedRate = 128;      // bytes that a multiprocessor's shared memory delivers in a cycle
constexpr double kOutputCycles = 0.045;  // of a multiprocessor for each value that is stored: 4.5 instructions, four at a time
constexpr double kLatency = 700;  // of a copy from the cache
constexpr double kStepCycles = 250;  // of a step of mma.sync beside its multiplications: a barrier, the first operands
constexpr double kBeside = 0.25;  // of storing, where other blocks multiply meanwhile
constexpr double kReady = 3 * kLatency;  // to tell the other blocks that a part is ready, and to hear of theirs
constexpr double kBlockRate = 24;  // bytes that one block gets from the cache in a cycle, into registers
constexpr double kCopyRate = 56;  // bytes that one multiprocessor gets from the cache in a cycle, copied ahead
constexpr double kOverlap = 0.1;  // of what takes less time than the longest: it does not hide entirely
constexpr int kRegisters = 65536;  // of a multiprocessor
constexpr int kOtherRegisters = 96;  // of a thread, beside its sums

// What one multiprocessor does in a cycle.
struct Rates {
  double multiplications;  // with their additions
  double cache_bytes;
};

Rates rates_of(int architecture, Instructions instructions) {
  const bool turing = architecture < 80, ampere = architecture == 80, hopper = architecture == 90,
             blackwell = architecture == 100;
  Rates rates{512, ampere ? 40.0 : hopper || blackwell ? 26.0 : 20.0};
  if (ampere || blackwell) rates.multiplications = 1024;
  if (hopper) rates.multiplications = instructions == Instructions::wgmma ? 2048 : 1300;  // mma.sync does not reach the rest
  if (instructions == Instructions::fma) rates.multiplications = turing || ampere ? 64 : 128;
  return rates;
}

}  // namespace

int resident(const DeviceFacts& facts, const Product& product, int shared_bytes) {
  const int sums = product.rows * product.columns / product.threads;
  const int registers = std::max(product.residents, kRegisters / (product.threads * (sums + kOtherRegisters)));
  return std::max(1, std::min(registers, (facts.shared_bytes + 1024) / (shared_bytes + 1024)));
}

double memory_cycles(const DeviceFacts& facts, double bytes) { return bytes / facts.memory_bytes; }

double cycles(const DeviceFacts& facts, const Product& product, const ProductSize& size, int splits, int chunks_per_split) {
  const Rates rates = rates_of(facts.architecture, product.instructions);
  const int blocks = product.blocks(size) * splits, taps = chunks_per_split * size.taps;
  const double tile = static_cast<double>(product.rows) * product.columns;
  const double input = static_cast<double>(chunks_per_split) * product.chunk_row_bytes * (product.rows + size.span);
  const double weights = static_cast<double>(taps) * product.chunk_row_bytes * product.columns;
  // A block by itself, and one that is copied for and multiplied beside others.
  const double steps = product.all_taps ? chunks_per_split : taps;
  const double multiplying = taps * tile * product.depth / rates.multiplications;
  const double shared = (input + weights + static_cast<double>(taps) * product.operand_bytes) / kSharedRate;
  const int beside = resident(facts, product, product.shared_bytes(size.span, size.taps, chunks_per_split));
  const double storing = tile * kOutputCycles, busy = std::max(multiplying, shared) + storing * (beside > 1 ? kBeside : 1);
  const bool ahead = product.instructions == Instructions::wgmma;  // multiplies while the next step is made ready
  // Blocks that take tiles in turns start once, and copy for the next one while they store.
  const double starting = 2 * kLatency, once = product.in_turns ? starting : 0, each_time = starting - once;
  const double copying = std::max(kLatency * steps / (product.stages - 1), (input + weights) / kCopyRate);
  const double alone = each_time + std::max(multiplying + (ahead ? 0 : steps * kStepCycles), copying) + storing;
  const int most = divide_up(blocks, facts.multiprocessors), waves = divide_up(most, beside);
  const double computing = once + std::max(most * busy, waves * alone);
  const double element = static_cast<double>(product.chunk_row_bytes) / product.depth;
  const double outputs = static_cast<double>(size.rows) * size.columns * size.groups;
  const double cache = facts.multiprocessors * rates.cache_bytes;
  const double parts = splits == 1 ? 0 : splits * outputs * sizeof(float);  // written and read
  // Weights of few steps stay where they are while a block computes one tile after the other.
  const bool kept = product.in_turns && size.columns <= product.columns && size.groups == 1 && taps <= product.stages;
  const int copies = kept ? std::min(blocks, facts.multiprocessors * beside) : blocks;  // of weights
  const double delivering = (blocks * input + copies * weights + outputs * element + 2 * parts) / cache;
  const double all_weights = element * product.depth * size.chunks * size.taps * size.columns * size.groups;
  const double spilled = parts > kShareOfCache * facts.cache_bytes ? 2 * parts : 0;  // what the cache does not hold
  const double loading = memory_cycles(facts, all_weights + spilled), longest = std::max({computing, delivering, loading});
  // Of every tile, the last of its blocks reads the parts of all and stores the sum.
  const int tiles = divide_up(product.blocks(size), facts.multiprocessors);  // of a multiprocessor
  const double added = std::min(1.0, static_cast<double>(size.rows) / product.row_tiles(size) / product.rows) * tile;
  const double each = splits * added * sizeof(float) / kBlockRate + added * kOutputCycles;
  const double adding = splits == 1 ? 0 : kReady + tiles * each;
  return longest + kOverlap * (computing + delivering + loading - longest) + adding;
}

}  // namespace deepsim::runtime::detail::cuda
