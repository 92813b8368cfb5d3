// A small pool of threads that all Inverters of a process share: one call at a time uses all of it.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace deepsim::runtime::detail {

// Runs numbered tasks on `threads` threads, the caller's among them.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Call body(task, thread) for every task in 0..count, thread in 0..threads; returns when all are done. The body must
  // not throw. One caller at a time: hold Process::calls.
  void run(int count, const std::function<void(int task, int thread)>& body);

 private:
  void serve(int thread);
  void work(int thread);
  bool wait_for_work(unsigned seen);

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<unsigned> generation_{0};
  std::atomic<int> next_{0}, active_{0}, sleeping_{0};
  std::atomic<bool> stop_{false};
  const std::function<void(int, int)>* body_ = nullptr;
  int count_ = 0;
};

// What belongs to one process: threads do not survive a fork, so a child gets its own.
class Process {
 public:
  static Process& current();
  pid_t id() const { return id_; }
  ThreadPool& pool(int threads);
  std::mutex calls;  // held by whoever computes

 private:
  explicit Process(pid_t id) : id_(id) {}
  pid_t id_;
  std::mutex mutex_;
  std::map<int, std::unique_ptr<ThreadPool>> pools_;
};

// Raises DeviceError unless this is the process in which what is used was made: neither threads nor GPUs survive a fork.
void refuse_after_fork(pid_t made_in);

// The number of threads: `asked` if positive, else DEEPSIM_NUM_THREADS, else the CPUs that this process may use.
// Raises UsageError when the variable is not a number from 1 to 4096.
int thread_count(int asked);

}  // namespace deepsim::runtime::detail
