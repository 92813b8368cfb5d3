// Threads that share numbered tasks with whoever calls; process.h hands pools out.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace deepsim::runtime::detail {

// Runs numbered tasks on `threads` threads, the caller's among them. The caller takes tasks like the rest and waits only
// for tasks that another thread has begun: a worker that the system does not schedule delays nothing.
class ThreadPool {
 public:
  // Start threads - 1 workers, or as many as the system grants: threads() and shortage() tell.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }  // with the caller's
  // How many threads of those wanted there are, and why: "threads: 1 of 2 ..."; "" when there are all.
  const std::string& shortage() const { return shortage_; }

  // Call body(task, thread) for every task in 0..count, thread in 0..threads; returns when all are done. The body must
  // not throw. One caller at a time: hold calls() of process.h.
  void run(int count, const std::function<void(int task, int thread)>& body);

  // End the workers, each after the task that it has begun. A call that is under way goes on without them.
  void stop();

 private:
  void start(int workers);
  void serve(int thread);
  bool wait_for_work();
  int work(int thread);
  bool take(int* task);
  void finish(int tasks);
  void wake(int count);
  void wait_for_begun_tasks();

  // Tasks of the call under way that nobody has taken, in the lower half; the call's number in the upper one. A thread
  // that looks late finds another number, or no tasks, and cannot take one of a call that is over.
  std::atomic<std::uint64_t> open_{0};
  std::atomic<int> unfinished_{0};  // tasks of the call under way, taken or not
  std::atomic<int> sleeping_{0};    // workers
  std::atomic<bool> stop_{false}, caller_sleeps_{false};
  const std::function<void(int, int)>* body_ = nullptr;  // these two are read by whoever has taken a task
  int count_ = 0;
  int threads_ = 1;
  std::string shortage_;
  std::mutex mutex_;
  std::condition_variable wake_, finished_;
  std::mutex ending_;  // held by who joins the workers
  std::vector<std::thread> workers_;
};

}  // namespace deepsim::runtime::detail
