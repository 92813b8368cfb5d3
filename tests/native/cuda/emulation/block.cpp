#include "block.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <thread>
#include <utility>

namespace deepsim::cuda::emulation {

namespace {

// Thrown in a thread that will not go on, to unwind its stack.
struct Abandoned {};

std::uint64_t next_random(std::uint64_t& state) {  // SplitMix64
  std::uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

void shuffle(std::vector<int>& all, std::uint64_t state) {
  for (std::size_t i = all.size(); i > 1; --i) std::swap(all[i - 1], all[next_random(state) % i]);
}

void stride(std::vector<int>& all) {
  const int count = static_cast<int>(all.size());
  int step = std::max(1, count * 5 / 8);
  while (std::gcd(step, count) != 1) ++step;
  for (int i = 0; i < count; ++i) all[static_cast<std::size_t>(i)] = static_cast<int>(std::int64_t{i} * step % count);
}

}  // namespace

std::vector<int> ordered(int count, Order order, std::uint64_t seed, std::uint64_t turn) {
  std::vector<int> all(static_cast<std::size_t>(count));
  std::iota(all.begin(), all.end(), 0);
  if (order == Order::descending) std::reverse(all.begin(), all.end());
  if (order == Order::strided) stride(all);
  if (order == Order::shuffled) shuffle(all, seed ^ turn << 32);
  return all;
}

void Earlier::run() {
  std::exception_ptr failure;
  std::thread host([&] {
    try {
      kernels_();
    } catch (...) {
      failure = std::current_exception();
    }
  });
  host.join();
  done_ = true;
  if (failure) std::rethrow_exception(failure);
}

void Block::prepare(std::size_t threads) {
  while (fibers_.size() < threads) fibers_.push_back(std::make_unique<Fiber>());
  threads_.assign(threads, Thread());
  warps_.assign((threads + lanes - 1) / lanes, Warp());
  for (std::size_t i = 0; i < threads; ++i) fibers_[i]->start(fiber_body_);
  failure_ = nullptr;
  unwinding_ = false;
  at_barrier_ = 0;
  voted_ = waited_ = false;
  read_early_.clear();
  ++interval_;
}

void Block::run(Grid at, int threads, std::size_t shared_bytes, const std::function<void()>& body, const Schedule& schedule,
                Earlier* earlier) {
  prepare(static_cast<std::size_t>(threads));
  memory_.start_block(shared_bytes, interval_);
  async_.start_block(&memory_, threads, shared_bytes);
  warpgroups_.start_block(&async_, static_cast<int>(warps_.size()));
  position = {-1, at, memory_.data()};
  body_ = &body;
  earlier_ = earlier;
  try {
    take_turns(schedule);
    if (!failure_ && earlier->expected() && !waited_) {
      violate(Rule::never_waits, -1, Violation::no_offset,
              "ends without having waited for the kernels before. Let a thread call wait_for_earlier.");
    }
    if (!failure_) {
      memory_.end_block();
      warpgroups_.end_block();
      async_.end_block();
    }
  } catch (...) {
    failure_ = std::current_exception();
  }
  if (failure_) unwind();
  body_ = nullptr;
  position = {};
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

// What a thread throws stays on its stack; the failure travels by hand.
void Block::run_thread() {
  Thread& thread = threads_[static_cast<std::size_t>(position.thread)];
  try {
    if (!unwinding_) (*body_)();
    if (!unwinding_) finish_copies(thread, thread.groups + 1);
  } catch (const Abandoned&) {
  } catch (...) {
    if (!failure_) failure_ = std::current_exception();
  }
  thread.state = State::finished;
}

void Block::resume(int thread) {
  position.thread = thread;
  fibers_[static_cast<std::size_t>(thread)]->resume();
  position.thread = -1;
}

void Block::take_turns(const Schedule& schedule) {
  const int threads = static_cast<int>(threads_.size());
  std::vector<int> order = ordered(threads, schedule.threads, schedule.seed, 0);
  for (std::uint64_t turn = 1; count(State::finished) < threads; ++turn) {
    bool advanced = false;
    for (const int thread : order) {
      if (threads_[static_cast<std::size_t>(thread)].state != State::ready) continue;
      advanced = true;
      resume(thread);
      if (failure_) return;
    }
    if (!advanced && !finish_awaited_copies() && !run_awaited_kernels()) report_deadlock();
    if (schedule.threads == Order::shuffled) order = ordered(threads, schedule.threads, schedule.seed, turn);
  }
}

// Threads that have not begun run nothing; those that wait throw where they wait.
void Block::unwind() {
  unwinding_ = true;
  for (int thread = 0; thread < static_cast<int>(threads_.size()); ++thread) {
    if (threads_[static_cast<std::size_t>(thread)].state != State::finished) resume(thread);
  }
}

void Block::wait(State state) {
  const auto thread = static_cast<std::size_t>(position.thread);
  threads_[thread].state = state;
  fibers_[thread]->suspend();
  if (unwinding_) throw Abandoned();
}

void Block::sync() {
  if (++at_barrier_ < static_cast<int>(threads_.size())) {
    wait(State::at_barrier);
    return;
  }
  at_barrier_ = 0;
  vote_ = std::exchange(voted_, false);
  ++interval_;
  async_.meet_all();
  for (Thread& thread : threads_) thread.state = State::ready;
}

bool Block::sync_any(bool vote) {
  voted_ = voted_ || vote;
  sync();
  return vote_;
}

void Block::wake_waiting_for_phases() {
  for (Thread& thread : threads_)
    if (thread.state == State::at_phase) thread.state = State::ready;
}

// Nobody can go on: the copies that one of those who wait for a phase waits for come now.
bool Block::finish_awaited_copies() {
  for (std::size_t i = 0; i < threads_.size(); ++i) {
    if (threads_[i].state != State::at_phase) continue;
    if (!async_.finish_copies(threads_[i].barrier, actor_of(static_cast<int>(i), false))) continue;
    wake_waiting_for_phases();
    return true;
  }
  return false;
}

// Nobody can go on: the kernels before come now, when somebody waits for them.
bool Block::run_awaited_kernels() {
  if (count(State::at_earlier) == 0) return false;
  earlier_->run();
  for (Thread& thread : threads_)
    if (thread.state == State::at_earlier) thread.state = State::ready;
  return true;
}

void Block::wait_for_earlier() {
  waited_ = true;
  if (!earlier_->done()) wait(State::at_earlier);
}

void Block::arrive(const void* barrier, int bytes) {
  if (async_.arrive(barrier, bytes, actor())) wake_waiting_for_phases();
}

void Block::wait_phase(const void* barrier, unsigned parity) {
  while (!async_.try_wait(barrier, parity, actor())) {
    if (async_.finish_copies(barrier, actor())) {
      wake_waiting_for_phases();
      continue;
    }
    Thread& thread = threads_[static_cast<std::size_t>(position.thread)];
    thread.barrier = barrier;
    thread.parity = parity;
    wait(State::at_phase);
  }
}

void Block::meet(Collective collective, const Operands& operands, void (*compute)(Block&, Warp&, int first_thread)) {
  const int index = position.thread / lanes, first_thread = index * lanes;
  Warp& warp = warps_[static_cast<std::size_t>(index)];
  if (warp.arrived > 0 && warp.collective != collective) {
    violate(Rule::missing_lanes, position.thread, Violation::no_offset,
            "at one collective while other lanes of its warp wait at another. Let all 32 call the same.");
  }
  warp.collective = collective;
  warp.operands[position.thread % lanes] = operands;
  if (++warp.arrived < lanes) {
    wait(State::at_collective);
    return;
  }
  warp.arrived = 0;
  compute(*this, warp, first_thread);
  ++warp.phase;
  for (int lane = 0; lane < lanes; ++lane) threads_[static_cast<std::size_t>(first_thread + lane)].state = State::ready;
}

Actor Block::actor_of(int thread, bool whole_warp) const {
  return {thread, whole_warp, interval_, warps_[static_cast<std::size_t>(thread / lanes)].phase};
}

const void* Block::source(const void* global, std::size_t bytes) {
  if (earlier_->done()) return global;
  const auto* first = static_cast<const unsigned char*>(global);
  return read_early_.emplace_back(first, first + bytes).data();
}

void Block::check_aligned(const void* global, std::size_t offset) const {
  if (reinterpret_cast<std::uintptr_t>(global) % 16 == 0) return;
  violate(Rule::misaligned, position.thread, offset, "copied to from a global address that is no multiple of 16.");
}

void Block::start_copy(void* shared, const void* global) {
  constexpr std::size_t bytes = 16;
  const std::size_t offset = memory_.offset_of(shared, bytes, bytes, actor());
  check_aligned(global, offset);
  memory_.start_copy(offset, bytes, actor());
  Thread& thread = threads_[static_cast<std::size_t>(position.thread)];
  thread.copies.push_back({offset, source(global, bytes), thread.groups});
}

void Block::commit_copies() { ++threads_[static_cast<std::size_t>(position.thread)].groups; }

void Block::wait_copies(int pending) {
  Thread& thread = threads_[static_cast<std::size_t>(position.thread)];
  finish_copies(thread, thread.groups - pending);
}

// Those of the first groups.
void Block::finish_copies(Thread& thread, int groups) {
  auto copy = thread.copies.begin();
  for (; copy != thread.copies.end() && copy->group < groups; ++copy) {
    std::memcpy(memory_.data() + copy->to, copy->from, 16);
    memory_.finish_copy(copy->to, 16, actor());
  }
  thread.copies.erase(thread.copies.begin(), copy);
}

int Block::count(State state) const {
  return static_cast<int>(
      std::count_if(threads_.begin(), threads_.end(), [=](const Thread& thread) { return thread.state == state; }));
}

int Block::first(State state) const {
  const auto found =
      std::find_if(threads_.begin(), threads_.end(), [=](const Thread& thread) { return thread.state == state; });
  return found == threads_.end() ? -1 : static_cast<int>(found - threads_.begin());
}

std::string Block::census() const {
  return std::to_string(count(State::at_barrier)) + " threads wait at sync_block, " +
         std::to_string(count(State::at_collective)) + " at a collective, " +
         (count(State::at_phase) > 0 ? std::to_string(count(State::at_phase)) + " for a phase, " : "") +
         std::to_string(count(State::finished)) + " have ended";
}

void Block::report_deadlock() const {
  if (const int thread = first(State::at_phase); thread >= 0) {
    const Thread& waiting = threads_[static_cast<std::size_t>(thread)];
    async_.report_deadlock(waiting.barrier, waiting.parity, thread, census());
  }
  if (const int thread = first(State::at_barrier); thread >= 0) {
    violate(Rule::divergent_barrier, thread, Violation::no_offset,
            "waits for ever: " + census() + ". Let all threads reach the barrier.");
  }
  violate(Rule::missing_lanes, first(State::at_collective), Violation::no_offset,
          "waits for ever: " + census() + ". Let all 32 lanes of its warp reach the collective.");
}

Block& this_block() {
  thread_local Block block;
  return block;
}

}  // namespace deepsim::cuda::emulation
