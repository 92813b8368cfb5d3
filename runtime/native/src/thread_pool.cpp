#include "thread_pool.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>

#include "environment.h"
#include "error.h"

namespace deepsim::runtime::detail {

namespace {

constexpr int kSpins = 16'000;  // about 200 microseconds: longer than the gap between two layers, or two calls in a loop

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

int usable_cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  for (int thread = 1; thread < threads; ++thread) workers_.emplace_back([this, thread] { serve(thread); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    ++generation_;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(int count, const std::function<void(int, int)>& body) {
  if (workers_.empty() || count <= 1) {
    for (int task = 0; task < count; ++task) body(task, 0);
    return;
  }
  body_ = &body;
  count_ = count;
  next_.store(0);
  active_.store(static_cast<int>(workers_.size()));
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++generation_;
  }
  if (sleeping_.load() > 0) wake_.notify_all();
  work(0);
  for (int spins = 0; active_.load() > 0; ++spins) {
    if (spins < kSpins) {
      pause_briefly();
    } else {
      std::this_thread::yield();
    }
  }
}

void ThreadPool::work(int thread) {
  for (int task = next_.fetch_add(1); task < count_; task = next_.fetch_add(1)) (*body_)(task, thread);
}

bool ThreadPool::wait_for_work(unsigned seen) {
  for (int spins = 0; spins < kSpins; ++spins) {
    if (generation_.load() != seen) return !stop_.load();
    pause_briefly();
  }
  std::unique_lock<std::mutex> lock(mutex_);
  ++sleeping_;
  wake_.wait(lock, [&] { return generation_.load() != seen; });
  --sleeping_;
  return !stop_.load();
}

void ThreadPool::serve(int thread) {
  for (unsigned seen = 0; wait_for_work(seen);) {
    seen = generation_.load();
    work(thread);
    active_.fetch_sub(1);
  }
}

Process& Process::current() {
  static std::atomic<Process*> current{nullptr};  // never deleted: worker threads may outlive static objects
  Process* known = current.load();
  if (known != nullptr && known->id_ == getpid()) return *known;
  auto* fresh = new Process(getpid());
  if (current.compare_exchange_strong(known, fresh)) return *fresh;
  delete fresh;
  return *current.load();
}

ThreadPool& Process::pool(int threads) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::unique_ptr<ThreadPool>& pool = pools_[threads];
  if (!pool) pool = std::make_unique<ThreadPool>(threads);
  return *pool;
}

void refuse_after_fork(pid_t made_in) {
  if (getpid() == made_in) return;
  throw Failure(ErrorKind::device,
                "inverter: made before this process was forked, which no backend survives. Make it after the fork, "
                "or start processes with the spawn method.");
}

int thread_count(int asked) {
  if (asked > 0) return asked;
  const std::string text = environment("DEEPSIM_NUM_THREADS");
  if (text.empty()) return usable_cpus();
  const bool digits = text.size() <= 4 && text.find_first_not_of("0123456789") == std::string::npos;
  const int count = digits ? std::stoi(text) : 0;
  if (count < 1 || count > 4096) {
    throw Failure(ErrorKind::usage, "DEEPSIM_NUM_THREADS: '" + text +
                                        "', expected a number of threads from 1 to 4096. Correct or unset it.");
  }
  return count;
}

}  // namespace deepsim::runtime::detail
