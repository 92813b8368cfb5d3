// The operations of device.h on a host, for tests of the kernels without a GPU. Every thread of a block is a fiber; a
// warp's collectives wait for its 32 lanes, sync_block for the block. Each byte of shared memory remembers who wrote and
// who read it, so that a kernel that is right by luck of the order of its threads fails here in any order.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>

#include "numbers.h"

#define DEEPSIM_DEVICE inline
#define DEEPSIM_KERNEL(threads, blocks) inline void
#define DEEPSIM_ARGUMENT const
#define DEEPSIM_SHARED_MEMORY(name) unsigned char* const name = ::deepsim::cuda::emulation::position.shared
#define DEEPSIM_UNROLL
#define DEEPSIM_NO_UNROLL

namespace deepsim::cuda::emulation {

// How many blocks; or which one.
struct Grid {
  int x = 1, y = 1, z = 1;
};

// strided: steps of about 0.6 of the whole. shuffled: by the seed, anew for each turn of the threads.
enum class Order { ascending, descending, strided, shuffled };

// Blocks run one after the other. A thread runs until it has to wait; then the next one in this order does.
struct Schedule {
  Order blocks = Order::ascending, threads = Order::ascending;
  std::uint64_t seed = 0;
};

inline constexpr Schedule schedules[] = {{Order::ascending, Order::ascending, 0},
                                         {Order::descending, Order::descending, 0},
                                         {Order::strided, Order::strided, 0},
                                         {Order::shuffled, Order::shuffled, 1}};

enum class Rule {
  unwritten,            // read before anything was written there
  in_flight,            // read or written while a copy to it is under way
  unsynchronised_read,  // read what another thread wrote or copied with no barrier since
  overwritten_read,     // written or copied over what another thread has read with no barrier since
  two_writers,          // written by two threads with no barrier between
  outside,              // beyond the shared memory that the launch asked for
  misaligned,           // not a multiple of what the operation wants
  divergent_barrier,    // some threads wait at a barrier that others do not reach
  missing_lanes,        // some lanes of a warp do not reach a collective, or are at another
  never_waits,          // no thread of a block waits for the kernels before
  // hopper.h:
  no_such_barrier,      // used where none is, or none that the thread or a copy can see
  surplus,              // more arrivals or bytes than a phase waits for
  waits_for_ever,       // for a phase that will not be complete
  operands_in_use,      // copied over what a multiplication may still read
  unfenced,             // multiplied with no fence before
  divergent_warpgroup,  // warps that multiply together disagree
  unfinished,           // a block ends while copies or multiplications are under way
  other_proxy           // what copies and multiplications use is loaded or stored too
};

// What a kernel did that a GPU does not promise to forgive. thread is -1 and offset no_offset where there is no such one.
struct Violation : std::runtime_error {
  static constexpr std::size_t no_offset = static_cast<std::size_t>(-1);
  Violation(Rule broken, Grid in_block, int by_thread, std::size_t at_offset, const std::string& text);
  Rule rule;
  Grid block;
  int thread;
  std::size_t offset;
};

// Run the body, a call of a kernel, in every thread of every block. shared_bytes of shared memory hold NaNs when a block
// starts. Throws Violation, or what the body throws, after the stacks of all threads are unwound; invalid_argument for
// more than a GPU has. Several host threads may launch at once; a body must not. `earlier` runs the kernels before this
// one, on a host thread of its own, when nothing of the first block can go on without them: so what uses their results
// before it waits for them sees those of before.
void launch(Grid grid, int threads, std::size_t shared_bytes, const std::function<void()>& body, Schedule schedule = {},
            const std::function<void()>& earlier = {});

struct Position {
  int thread = -1;
  Grid block;
  unsigned char* shared = nullptr;
};

inline thread_local Position position;

void wait_copies(int pending);
void check_load(const void* from, std::size_t bytes, std::size_t alignment);
void check_store(const void* to, std::size_t bytes, std::size_t alignment);

}  // namespace deepsim::cuda::emulation

namespace deepsim::cuda {

DEEPSIM_DEVICE int thread_index() { return emulation::position.thread; }
DEEPSIM_DEVICE int anew(int value) { return value; }
DEEPSIM_DEVICE int block_x() { return emulation::position.block.x; }
DEEPSIM_DEVICE int block_y() { return emulation::position.block.y; }
DEEPSIM_DEVICE int block_z() { return emulation::position.block.z; }

DEEPSIM_DEVICE std::uint32_t high_product(std::uint32_t a, std::uint32_t b) {
  return static_cast<std::uint32_t>((std::uint64_t{a} * b) >> 32);
}

void sync_block();
constexpr bool kStartsEarly = true;
void wait_for_earlier();
DEEPSIM_DEVICE void let_later_start() {}  // as early as can be, see launch
DEEPSIM_DEVICE void sync_warp() {}  // fibers need no such help to meet at a barrier
bool last_to_be_ready(unsigned* ready, int count);
DEEPSIM_DEVICE Four load_fresh(const Four* from) { return *from; }
DEEPSIM_DEVICE Four load_constant(const float* from) { return {{from[0], from[1], from[2], from[3]}}; }

using SharedBytes = unsigned char*;
DEEPSIM_DEVICE SharedBytes in_shared(unsigned char* shared) { return shared; }

struct alignas(16) Sixteen {
  std::uint32_t words[4];
};
Sixteen load_sixteen(const void* global);

// The copy reads global memory as late as it may: when it is waited for, or when its thread ends.
constexpr bool kCopiesBeside = true;
void copy_async(void* shared, const void* global);
void commit_copies();
template <int Pending>
DEEPSIM_DEVICE void wait_copies() {
  emulation::wait_copies(Pending);
}

template <class T>
DEEPSIM_DEVICE T shared_load(const T* from) {
  emulation::check_load(from, sizeof(T), alignof(T));
  T value;
  std::memcpy(&value, from, sizeof(T));  // it may have been stored as another type, as kernels do
  return value;
}

template <class T>
DEEPSIM_DEVICE void shared_store(T* to, T value) {
  emulation::check_store(to, sizeof(T), alignof(T));
  std::memcpy(to, &value, sizeof(T));
}

DEEPSIM_DEVICE void store_sixteen(SharedBytes to, const Sixteen& value) { shared_store(reinterpret_cast<Sixteen*>(to), value); }

DEEPSIM_DEVICE Four load_four(SharedBytes from) { return shared_load(reinterpret_cast<const Four*>(from)); }
void load_matrices(std::uint32_t (&values)[4], const void* row);

// Sums in the order c + a[0] b[0] + a[1] b[1] + ... + a[15] b[15], each rounded to fp32. The products of 16-bit values are
// exact in fp32 (those of bfloat16 within its normal range), so that fused and unfused additions give the same bits.
template <class Element>
void multiply_add(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1);

DEEPSIM_DEVICE float multiply_add(float a, float b, float c) { return std::fma(a, b, c); }

template <class Element>
DEEPSIM_DEVICE typename Element::Two pack(float low, float high) {
  using Two = typename Element::Two;
  return emulation::to_bits(low, Element{}) | Two{emulation::to_bits(high, Element{})} << 8 * sizeof(typename Element::Bits);
}

template <class Element>
DEEPSIM_DEVICE Pair unpack(typename Element::Two packed) {
  using Bits = typename Element::Bits;
  const auto low = static_cast<Bits>(packed), high = static_cast<Bits>(packed >> 8 * sizeof(Bits));
  return {emulation::from_bits(low, Element{}), emulation::from_bits(high, Element{})};
}

template <class Element>
DEEPSIM_DEVICE typename Element::Two larger(typename Element::Two a, typename Element::Two b) {
  const Pair left = unpack<Element>(a), right = unpack<Element>(b);
  return pack<Element>(std::fmax(left.low, right.low), std::fmax(left.high, right.high));
}

DEEPSIM_DEVICE float square_root(float x) { return std::sqrt(x); }
DEEPSIM_DEVICE float reciprocal_root(float x) { return 1.0f / std::sqrt(x); }
DEEPSIM_DEVICE float quotient(float a, float b) { return a / b; }
DEEPSIM_DEVICE float hyperbolic_tangent(float x) { return std::tanh(x); }
DEEPSIM_DEVICE std::uint32_t to_byte(float x) {
  return static_cast<std::uint32_t>(std::nearbyint(x > 0.0f ? (x < 255.0f ? x : 255.0f) : 0.0f));
}
DEEPSIM_DEVICE std::uint32_t shared_word(const unsigned char* from) {
  std::uint32_t word = 0;
  for (int i = 0; i < 4; ++i) word |= std::uint32_t{shared_load(from + i)} << 8 * i;
  return word;
}

}  // namespace deepsim::cuda
