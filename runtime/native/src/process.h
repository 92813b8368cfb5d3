// What belongs to one process: its threads, and whose turn it is to use them.
#pragma once

#include <sys/types.h>

#include <memory>
#include <mutex>

#include "thread_pool.h"

namespace deepsim::runtime::detail {

// Held by whoever computes on the CPU: one call at a time uses all threads.
std::mutex& calls();

// The threads that all who compute share; those who hold a pool keep it alive, and with the last of them its threads end.
// `asked` is as for thread_count. Where the system grants fewer threads and their number was asked for, here or by
// DEEPSIM_NUM_THREADS, raises DeviceError; else there are fewer. Raises as thread_count; OutOfMemory.
std::shared_ptr<ThreadPool> shared_pool(int asked);

// Log one line where a pool has fewer threads than CPUs could be used.
void log_shortage(const ThreadPool& pool);

// Raises DeviceError unless this is the process in which what is used was made: neither threads nor GPUs survive a fork.
void refuse_after_fork(pid_t made_in);

}  // namespace deepsim::runtime::detail
