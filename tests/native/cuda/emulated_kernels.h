// Every kernel of variants.h and passes.h, by the name that the GPU's module has it under, run by the emulation.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

namespace deepsim::tests {

struct EmulatedKernel {
  std::size_t argument_bytes = 0;
  std::function<void(const void* argument)> body;  // of one thread
};

// The kernel for fp16 ("half"), bfloat16 ("brain") or fp32 ("single"). Throws out_of_range for a name that there is none of.
const EmulatedKernel& emulated_kernel(const std::string& element, const std::string& name);

}  // namespace deepsim::tests
