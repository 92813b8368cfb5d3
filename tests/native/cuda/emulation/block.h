// One block: its threads as fibers, who of them waits for what, and their copies under way.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <vector>

#include "async.h"
#include "fiber.h"
#include "shared_memory.h"
#include "warpgroup.h"

namespace deepsim::cuda::emulation {

constexpr int lanes = 32;

// 0 ... count - 1 in this order. turn: a shuffle differs from one to the next.
std::vector<int> ordered(int count, Order order, std::uint64_t seed, std::uint64_t turn);

enum class Collective { load_matrices, multiply_add, fence_multiplies, start_multiply, commit_multiplies, wait_multiplies };

// What the lanes of a warp bring to a collective.
struct Operands {
  const void* row;             // load_matrices
  std::uint32_t* values;       // load_matrices
  float* sums;                 // multiply_add
  const std::uint32_t* left;   // multiply_add
  std::uint32_t right[2];      // multiply_add
  const void* call = nullptr;  // hopper.h: a Multiplication, or how many groups may be pending
};

struct Warp {
  Collective collective = Collective::load_matrices;
  int arrived = 0;
  std::uint32_t phase = 0;
  Operands operands[lanes] = {};
};

// The kernels before a launch, run once, when its first block cannot go on without them.
class Earlier {
 public:
  explicit Earlier(const std::function<void()>& kernels) : kernels_(kernels) {}
  bool expected() const { return kernels_ != nullptr; }
  bool done() const { return done_ || !expected(); }
  void run();  // throws what they throw

 private:
  const std::function<void()>& kernels_;
  bool done_ = false;
};

// Belongs to one host thread and is used for one block after the other, to keep its stacks.
class Block {
 public:
  bool is_running() const { return body_ != nullptr; }
  void run(Grid at, int threads, std::size_t shared_bytes, const std::function<void()>& body, const Schedule& schedule,
           Earlier* earlier);

  // The rest is called from inside, by the running thread.
  void sync();
  void wait_for_earlier();
  bool sync_any(bool vote);  // the same; whether any thread's is true
  // The last lane that arrives computes for all.
  void meet(Collective collective, const Operands& operands, void (*compute)(Block&, Warp&, int first_thread));
  // Where a copy that starts now reads global memory, as late as it may; or, while the kernels before are awaited, what is
  // there now, as it may read early too.
  const void* source(const void* global, std::size_t bytes);
  void start_copy(void* shared, const void* global);
  // Violation unless a global address is a multiple of 16; offset: in shared memory, of where its bytes go, if that is known.
  void check_aligned(const void* global, std::size_t offset = Violation::no_offset) const;
  void commit_copies();
  void wait_copies(int pending);
  void arrive(const void* barrier, int bytes);
  void wait_phase(const void* barrier, unsigned parity);
  Actor actor() const { return actor_of(position.thread, false); }
  Actor actor_of(int thread, bool whole_warp) const;
  SharedMemory& memory() { return memory_; }
  Async& async() { return async_; }
  Warpgroups& warpgroups() { return warpgroups_; }

 private:
  enum class State { ready, at_barrier, at_collective, at_phase, at_earlier, finished };

  struct Copy {
    std::size_t to;
    const void* from;
    int group;
  };

  struct Thread {
    State state = State::ready;
    std::vector<Copy> copies;  // under way, in the order of their start
    int groups = 0;            // committed
    const void* barrier = nullptr;  // at_phase
    unsigned parity = 0;
  };

  void prepare(std::size_t threads);
  void run_thread();
  void take_turns(const Schedule& schedule);
  void resume(int thread);
  void unwind();
  void wait(State state);
  void wake_waiting_for_phases();
  bool finish_awaited_copies();
  bool run_awaited_kernels();
  void finish_copies(Thread& thread, int groups);
  [[noreturn]] void report_deadlock() const;
  int count(State state) const;
  int first(State state) const;
  std::string census() const;

  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  SharedMemory memory_;
  Async async_;
  Warpgroups warpgroups_;
  const std::function<void()>* body_ = nullptr;
  Earlier* earlier_ = nullptr;
  bool waited_ = false;  // some thread for it
  std::vector<std::vector<unsigned char>> read_early_;
  const std::function<void()> fiber_body_ = [this] { run_thread(); };
  std::exception_ptr failure_;
  bool unwinding_ = false;
  int at_barrier_ = 0;
  bool voted_ = false, vote_ = false;  // at the barrier; at the last one
  std::uint32_t interval_ = 0;  // grows over all blocks, so that what memory remembers of the last block is past
};

// The block of this host thread.
Block& this_block();

}  // namespace deepsim::cuda::emulation
