// The threads: every task once, whoever is late or leaves, and calls one after the other without a pause.
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

#include "process.h"
#include "thread_pool.h"

using namespace deepsim::runtime::detail;

namespace {

// Run `count` tasks; whether each was done once, by threads of the pool's numbers.
bool each_once(ThreadPool* pool, int count) {
  std::vector<std::atomic<int>> done(static_cast<std::size_t>(count));
  std::atomic<bool> numbered{true};
  pool->run(count, [&](int task, int thread) {
    ++done[static_cast<std::size_t>(task)];
    if (thread < 0 || thread >= pool->threads()) numbered = false;
  });
  bool once = numbered;
  for (const std::atomic<int>& times : done) once = once && times == 1;
  return once;
}

}  // namespace

TEST_CASE("every task is done once, in calls of any size, by any number of threads") {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    CHECK(pool.threads() == threads);
    CHECK(pool.shortage().empty());
    for (const int count : {0, 1, 2, 3, 7, 64, 1000}) CHECK(each_once(&pool, count));
  }
}

TEST_CASE("what a call's tasks wrote is seen by the next call's, in thousands of short calls") {
  ThreadPool pool(4);
  std::vector<long> values(64, 0);
  for (int call = 0; call < 3000; ++call) {
    const std::vector<long>* const before = &values;
    std::vector<long> next(64);
    pool.run(call % 3 == 0 ? 64 : 8, [&](int task, int) {
      const std::size_t from = call % 3 == 0 ? static_cast<std::size_t>(task) : static_cast<std::size_t>(task) * 8;
      const std::size_t until = call % 3 == 0 ? from + 1 : from + 8;
      for (std::size_t i = from; i < until; ++i) next[i] = (*before)[(i + 1) % 64] + 1;
    });
    values = next;
  }
  CHECK(std::accumulate(values.begin(), values.end(), 0L) == 64 * 3000L);
}

TEST_CASE("workers that slept are woken, and those that come late change nothing") {
  ThreadPool pool(3);
  for (int call = 0; call < 20; ++call) {
    if (call % 2 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    CHECK(each_once(&pool, 2 + call));
  }
}

TEST_CASE("a call waits for no thread but those that have begun a task") {
  ThreadPool pool(2);
  std::atomic<bool> begun{false}, released{false};
  std::atomic<int> by_caller{0};
  // The worker's first task lasts until the caller has done all others.
  pool.run(50, [&](int, int thread) {
    if (thread == 0) {
      if (!begun) std::this_thread::yield();
      if (++by_caller >= 49) released = true;
      return;
    }
    begun = true;
    while (!released) std::this_thread::yield();
  });
  CHECK(by_caller >= 49);
}

TEST_CASE("a call that is under way goes on when the workers are told to leave") {
  ThreadPool pool(4);
  std::atomic<int> done{0};
  std::atomic<bool> stopped{false};
  std::thread other;
  pool.run(400, [&](int task, int thread) {
    if (task == 5) {
      other = std::thread([&] {
        pool.stop();
        stopped = true;
      });
    }
    if (thread == 0) std::this_thread::yield();
    ++done;
  });
  other.join();
  CHECK(done == 400);
  CHECK(stopped);
  CHECK(each_once(&pool, 100));  // by the caller alone
}

TEST_CASE("who asks for as many threads gets the same, for as long as somebody holds them") {
  std::weak_ptr<ThreadPool> watched;
  {
    const std::shared_ptr<ThreadPool> first = shared_pool(3), second = shared_pool(3), other = shared_pool(2);
    CHECK(first.get() == second.get());
    CHECK(first.get() != other.get());
    watched = first;
  }
  CHECK(watched.expired());
  CHECK(shared_pool(3)->threads() == 3);
}

TEST_CASE("pools made and dropped by several threads at once") {
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int number = 0; number < 6; ++number)
    threads.emplace_back([&wrong, number] {
      for (int round = 0; round < 20; ++round) {
        const std::shared_ptr<ThreadPool> pool = shared_pool(2 + (number + round) % 2);
        const std::lock_guard<std::mutex> lock(calls());
        if (!each_once(pool.get(), 20)) ++wrong;
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}
