#include "thread_pool.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <system_error>

namespace deepsim::runtime::detail {

namespace {

// Longer than the gap between two layers, or two calls in a loop; shorter than what a thread of another library, on the
// same CPU, would notice.
constexpr std::chrono::microseconds kSpinning{200};
// Some slices of the system's scheduler: a worker that shares its CPU with another library's spinning thread is back by
// then, and sleeping and being woken would take the caller longer.
constexpr std::chrono::microseconds kYielding{5000};
constexpr int kLooksPerClock = 16;

constexpr std::uint64_t kCall = std::uint64_t{1} << 32;
constexpr int tasks_of(std::uint64_t open) { return static_cast<int>(open % kCall); }

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Look again and again for `time`, with `rest` between; whether the condition came true.
template <class Condition, class Rest>
bool spin(std::chrono::microseconds time, const Condition& condition, const Rest& rest) {
  const auto end = std::chrono::steady_clock::now() + time;
  do {
    for (int look = 0; look < kLooksPerClock; ++look) {
      if (condition()) return true;
      rest();
    }
  } while (std::chrono::steady_clock::now() < end);
  return condition();
}

// While this lives, threads are started with all signals blocked but those of faults: handlers are the application's, and
// run in its threads.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGPROF}) sigdelset(&all, fault);
    blocked_ = pthread_sigmask(SIG_BLOCK, &all, &before_) == 0;
  }
  ~SignalsBlocked() {
    if (blocked_) (void)pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
  bool blocked_;
};

}  // namespace

ThreadPool::ThreadPool(int threads) {
  try {
    start(threads - 1);
  } catch (...) {  // memory for one more worker's record
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::start(int workers) {
  const SignalsBlocked signals;
  workers_.reserve(static_cast<std::size_t>(std::max(workers, 0)));
  for (int thread = 1; thread <= workers; ++thread) {
    try {
      workers_.emplace_back([this, thread] { serve(thread); });
    } catch (const std::system_error& error) {  // a limit on processes, or on memory, which stacks need
      shortage_ = "threads: " + std::to_string(thread) + " of " + std::to_string(workers + 1) + " can run (" +
                  error.code().message() + ")";
      break;
    }
    ++threads_;
  }
}

void ThreadPool::stop() {
  const std::lock_guard<std::mutex> ending(ending_);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_)
    if (worker.joinable()) worker.join();
}

void ThreadPool::run(int count, const std::function<void(int, int)>& body) {
  if (threads_ == 1 || count <= 1) {
    for (int task = 0; task < count; ++task) body(task, 0);
    return;
  }
  body_ = &body;
  count_ = count;
  unfinished_.store(count);
  open_.store((open_.load() / kCall + 1) * kCall + static_cast<std::uint64_t>(count));  // after this others may begin
  wake(count - 1);
  finish(work(0));
  wait_for_begun_tasks();
}

void ThreadPool::wake(int count) {
  const int sleeping = sleeping_.load();
  if (sleeping == 0) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
  }  // who has counted itself as sleeping waits now, or has seen the tasks
  if (count >= sleeping) return wake_.notify_all();
  for (int worker = 0; worker < count; ++worker) wake_.notify_one();
}

bool ThreadPool::take(int* task) {
  std::uint64_t open = open_.load();
  while (tasks_of(open) > 0) {
    if (!open_.compare_exchange_weak(open, open - 1)) continue;
    *task = count_ - tasks_of(open);
    return true;
  }
  return false;
}

int ThreadPool::work(int thread) {
  int done = 0;
  for (int task = 0; (thread == 0 || !stop_.load(std::memory_order_relaxed)) && take(&task); ++done) (*body_)(task, thread);
  return done;
}

void ThreadPool::finish(int tasks) {
  if (tasks == 0 || unfinished_.fetch_sub(tasks) > tasks || !caller_sleeps_.load()) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
  }
  finished_.notify_one();
}

void ThreadPool::wait_for_begun_tasks() {
  const auto finished = [this] { return unfinished_.load() == 0; };
  if (spin(kSpinning, finished, pause_briefly) || spin(kYielding, finished, std::this_thread::yield)) return;
  std::unique_lock<std::mutex> lock(mutex_);
  caller_sleeps_ = true;
  finished_.wait(lock, finished);
  caller_sleeps_ = false;
}

bool ThreadPool::wait_for_work() {
  const auto ready = [this] { return tasks_of(open_.load()) > 0 || stop_.load(); };
  if (!spin(kSpinning, ready, pause_briefly)) {
    std::unique_lock<std::mutex> lock(mutex_);
    ++sleeping_;
    wake_.wait(lock, ready);
    --sleeping_;
  }
  return !stop_.load();
}

void ThreadPool::serve(int thread) {
  while (wait_for_work()) finish(work(thread));
}

}  // namespace deepsim::runtime::detail
