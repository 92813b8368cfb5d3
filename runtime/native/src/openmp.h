// Threads of other libraries that spin on after their work.
#pragma once

namespace deepsim::runtime::detail {

// Let the OpenMP threads that the calling thread has started elsewhere (PyTorch's, for one) rest: for some milliseconds
// after their work they spin, on the CPUs that a call needs now. OpenMP has a function for that,
// omp_pause_resource_all (OpenMP 5.0, section 3.2.44); the next parallel region starts its threads again. Does nothing in
// a process without GNU's, LLVM's or Intel's OpenMP, and with DEEPSIM_KEEP_OPENMP=1. Raises nothing.
void rest_openmp_threads();

}  // namespace deepsim::runtime::detail
