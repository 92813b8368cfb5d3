#include <cstring>

#include "device.h"
#include "block.h"

namespace deepsim::cuda::emulation {

namespace {

// Eight sums of a row at once; no wider than what any instruction set splits well.
using Row = float __attribute__((vector_size(32)));

std::string subject(Grid block, int thread, std::size_t offset) {
  std::string text =
      "block (" + std::to_string(block.x) + ", " + std::to_string(block.y) + ", " + std::to_string(block.z) + ")";
  if (thread >= 0) text += ", thread " + std::to_string(thread);
  if (offset != Violation::no_offset) {
    text += ", shared offset " + std::to_string(static_cast<std::ptrdiff_t>(offset));
  }
  return text + ": ";
}

// Matrix j, row r is where lane 8 j + r says; lane l gets columns 2 (l % 4) and the next of row l / 4.
void load_for_warp(Block& block, Warp& warp, int first_thread) {
  for (int lane = 0; lane < lanes; ++lane) {
    const Actor actor = block.actor_of(first_thread + lane, true);
    const std::size_t offset = block.memory().offset_of(warp.operands[lane].row, 16, 16, actor);
    block.memory().read(offset, 16, actor);
    std::uint32_t row[4];
    std::memcpy(row, block.memory().data() + offset, sizeof row);
    const int matrix = lane / 8, first_lane = lane % 8 * 4;
    for (int i = 0; i < 4; ++i) warp.operands[first_lane + i].values[matrix] = row[i];
  }
}

struct Fragments {
  float left[16][16];  // row, k
  Row right[16];       // k
  Row sums[16];        // row
};

template <class Element>
void unpack_two(std::uint32_t packed, float& low, float& high) {
  low = from_bits(packed & 0xffffu, Element{});
  high = from_bits(packed >> 16, Element{});
}

// PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type".
template <class Element>
void gather(const Warp& warp, Fragments& matrices) {
  for (int lane = 0; lane < lanes; ++lane) {
    const Operands& from = warp.operands[lane];
    const int group = lane / 4, pair = lane % 4 * 2;
    for (int i = 0; i < 4; ++i) {
      float* const to = &matrices.left[group + i % 2 * 8][pair + i / 2 * 8];
      unpack_two<Element>(from.left[i], to[0], to[1]);
      matrices.sums[group + i / 2 * 8][pair + i % 2] = from.sums[i];
    }
    for (int i = 0; i < 2; ++i) {
      float low, high;
      unpack_two<Element>(from.right[i], low, high);
      matrices.right[pair + i * 8][group] = low;
      matrices.right[pair + i * 8 + 1][group] = high;
    }
  }
}

void scatter(const Fragments& matrices, const Warp& warp) {
  for (int lane = 0; lane < lanes; ++lane) {
    const int group = lane / 4, pair = lane % 4 * 2;
    for (int i = 0; i < 4; ++i) {
      warp.operands[lane].sums[i] = matrices.sums[group + i / 2 * 8][pair + i % 2];
    }
  }
}

template <class Element>
void multiply_for_warp(Block&, Warp& warp, int) {
  Fragments matrices;
  gather<Element>(warp, matrices);
  for (int row = 0; row < 16; ++row) {
    Row sum = matrices.sums[row];
    for (int k = 0; k < 16; ++k) sum += matrices.left[row][k] * matrices.right[k];
    matrices.sums[row] = sum;
  }
  scatter(matrices, warp);
}

}  // namespace

Violation::Violation(Rule broken, Grid in_block, int by_thread, std::size_t at_offset, const std::string& text)
    : std::runtime_error(subject(in_block, by_thread, at_offset) + text),
      rule(broken),
      block(in_block),
      thread(by_thread),
      offset(at_offset) {}

void violate(Rule rule, int thread, std::size_t offset, const std::string& text) {
  throw Violation(rule, position.block, thread, offset, text);
}

void launch(Grid grid, int threads, std::size_t shared_bytes, const std::function<void()>& body, Schedule schedule,
            const std::function<void()>& earlier) {
  constexpr std::size_t most_shared_bytes = 227 * 1024;
  if (threads < 1 || threads > 1024) {
    throw std::invalid_argument("threads of a block: " + std::to_string(threads) + ", expected 1 to 1024.");
  }
  if (shared_bytes > most_shared_bytes) {
    throw std::invalid_argument("shared memory: " + std::to_string(shared_bytes) + " bytes, expected at most " +
                                std::to_string(most_shared_bytes) + ".");
  }
  if (grid.x < 0 || grid.y < 0 || grid.z < 0) throw std::invalid_argument("grid: negative, expected counts.");
  Block& block = this_block();
  if (block.is_running()) throw std::logic_error("launch: called by a kernel, expected a host. Launch from outside.");
  Earlier before(earlier);
  for (const int index : ordered(grid.x * grid.y * grid.z, schedule.blocks, schedule.seed, 0)) {
    const Grid at{index % grid.x, index / grid.x % grid.y, index / grid.x / grid.y};
    block.run(at, threads, shared_bytes, body, schedule, &before);
  }
}

void wait_copies(int pending) { this_block().wait_copies(pending); }

void check_load(const void* from, std::size_t bytes, std::size_t alignment) {
  Block& block = this_block();
  SharedMemory& memory = block.memory();
  memory.read(memory.offset_of(from, bytes, alignment, block.actor()), bytes, block.actor());
}

void check_store(const void* to, std::size_t bytes, std::size_t alignment) {
  Block& block = this_block();
  SharedMemory& memory = block.memory();
  memory.write(memory.offset_of(to, bytes, alignment, block.actor()), bytes, block.actor());
}

}  // namespace deepsim::cuda::emulation

namespace deepsim::cuda {

void sync_block() { emulation::this_block().sync(); }
void wait_for_earlier() { emulation::this_block().wait_for_earlier(); }

// Blocks run one after the other, so that what others stored is seen.
bool last_to_be_ready(unsigned* ready, int count) {
  sync_block();
  bool last = false;
  if (thread_index() == 0) {
    last = *ready + 1 == static_cast<unsigned>(count);
    *ready = last ? 0 : *ready + 1;
  }
  return emulation::this_block().sync_any(last);
}

Sixteen load_sixteen(const void* global) {
  Sixteen value;
  emulation::this_block().check_aligned(global);
  std::memcpy(&value, global, sizeof value);
  return value;
}

void copy_async(void* shared, const void* global) { emulation::this_block().start_copy(shared, global); }
void commit_copies() { emulation::this_block().commit_copies(); }

void load_matrices(std::uint32_t (&values)[4], const void* row) {
  emulation::Operands operands = {};
  operands.row = row;
  operands.values = values;
  emulation::this_block().meet(emulation::Collective::load_matrices, operands, emulation::load_for_warp);
}

template <class Element>
void multiply_add(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  const emulation::Operands operands = {nullptr, nullptr, c, a, {b0, b1}};
  emulation::this_block().meet(emulation::Collective::multiply_add, operands, emulation::multiply_for_warp<Element>);
}

template void multiply_add<Half>(float (&)[4], const std::uint32_t (&)[4], std::uint32_t, std::uint32_t);
template void multiply_add<Brain>(float (&)[4], const std::uint32_t (&)[4], std::uint32_t, std::uint32_t);

}  // namespace deepsim::cuda
