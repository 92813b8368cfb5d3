#include "process.h"

#include <pthread.h>
#include <unistd.h>

#include <new>
#include <string>

#include "error.h"
#include "log.h"
#include "thread_count.h"

namespace deepsim::runtime::detail {

namespace {

struct Shared {
  explicit Shared(int count) : wanted(count), pool(count) {}
  const int wanted;
  const pid_t process = getpid();
  ThreadPool pool;
  std::weak_ptr<ThreadPool> self;
  Shared* next = nullptr;
};

// Nothing here has a destructor: at exit, threads of the application may still be in calls.
std::mutex calls_mutex, mutex;
Shared* first = nullptr;  // of the pools of this process

// A child of a fork has none of its parent's threads, and mutexes as they were in the parent.
void begin_in_child() {
  new (&calls_mutex) std::mutex;
  new (&mutex) std::mutex;
  first = nullptr;
  reset_log_after_fork();
}

const int forks_known = pthread_atfork(nullptr, nullptr, begin_in_child);

void let_go(Shared* shared) {
  if (shared->process != getpid()) return;  // a child keeps what it cannot end: threads of its parent, and who waits on what
  {
    const std::lock_guard<std::mutex> lock(mutex);
    for (Shared** each = &first; *each != nullptr; each = &(*each)->next)
      if (*each == shared) {
        *each = shared->next;
        break;
      }
  }
  delete shared;
}

std::shared_ptr<ThreadPool> find_locked(int count) {
  for (Shared* each = first; each != nullptr; each = each->next)
    if (each->wanted == count)
      if (std::shared_ptr<ThreadPool> pool = each->self.lock()) return pool;
  return nullptr;
}

std::shared_ptr<ThreadPool> find(int count) {
  const std::lock_guard<std::mutex> lock(mutex);
  return find_locked(count);
}

std::shared_ptr<ThreadPool> pool_of(int count) {
  if (std::shared_ptr<ThreadPool> pool = find(count)) return pool;
  const std::shared_ptr<Shared> made(new Shared(count), let_go);
  std::shared_ptr<ThreadPool> pool(made, &made->pool);
  const std::lock_guard<std::mutex> lock(mutex);  // given back before what was made in vain is
  if (std::shared_ptr<ThreadPool> other = find_locked(count)) return other;
  made->self = pool;
  made->next = first;
  first = made.get();
  return pool;
}

// Before the library is unmapped, and at exit: nothing runs in it afterwards. A call that is under way at exit ends alone.
__attribute__((destructor)) void stop_all_threads() {
  const std::lock_guard<std::mutex> lock(mutex);
  for (Shared* each = first; each != nullptr; each = each->next)
    if (each->process == getpid()) each->pool.stop();
}

}  // namespace

std::mutex& calls() { return calls_mutex; }

std::shared_ptr<ThreadPool> shared_pool(int asked) {
  if (forks_known != 0) throw std::bad_alloc();
  const ThreadCount wanted = thread_count(asked);
  std::shared_ptr<ThreadPool> pool = pool_of(wanted.count);
  if (!wanted.asked || pool->shortage().empty()) return pool;
  throw Failure(ErrorKind::device, pool->shortage() +
                                       ", expected as many as were asked for. Ask for fewer, or raise the "
                                       "limits on processes and memory.");
}

void log_shortage(const ThreadPool& pool) {
  if (pool.shortage().empty()) return;
  log(Level::warning, pool.shortage() + ", expected one for each CPU. Calls take longer.");
}

void refuse_after_fork(pid_t made_in) {
  if (getpid() == made_in) return;
  throw Failure(ErrorKind::device,
                "inverter: made before this process was forked, which no backend survives. Make it after the fork, "
                "or start processes with the spawn method.");
}

}  // namespace deepsim::runtime::detail
