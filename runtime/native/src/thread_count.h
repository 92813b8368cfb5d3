// How many threads to compute with: what the user asks for, or what the system lets this process use.
#pragma once

#include <sched.h>
#include <sys/types.h>

#include <cstddef>
#include <string>

namespace deepsim::runtime::detail {

struct ThreadCount {
  int count = 1;
  bool asked = false;  // by the user
};

// `asked` if positive, else DEEPSIM_NUM_THREADS, else usable_cpus. Raises UsageError when the variable is not a number from
// 1 to 4096.
ThreadCount thread_count(int asked);

// The CPUs of this process's affinity mask, or fewer where its control groups, or one above them, have a quota of CPU time:
// that many CPUs, rounded up. `root` is where /proc and the groups' folders are, "" for the system's.
int usable_cpus(const std::string& root = "");

// The CPUs in the affinity mask that `get` (sched_getaffinity) answers with, whatever its size; 0 when it answers none.
int affinity_cpus(int (*get)(pid_t, std::size_t, cpu_set_t*));

}  // namespace deepsim::runtime::detail
