#include "../environment.h"
#include "session.h"
#include "gpu.h"
#include "products.h"

namespace deepsim::runtime::detail::cuda {

namespace {

std::string instructions_of(const Kernels& kernels) {
  if (!kernels.tile.empty()) return kernels.tile + " where it fits";
  switch (kernels.instructions) {
    case Instructions::wgmma:
      return "wgmma, and mma.sync where that is faster";
    case Instructions::mma:
      return "mma.sync";
    case Instructions::fma:
      return "fp32 without tensor cores";
  }
  return "";
}

std::string machine_code_for(int architecture) {
  if (has_machine_code(architecture)) return "machine code for compute capability " + capability(architecture);
  return "made by the driver for compute capability " + capability(architecture) + " from those for 8.0";
}

}  // namespace

std::string describe_kernels(const SessionOptions& options, int ordinal) {
  const Gpu gpu(ordinal, precision_of(options.precision));
  const bool named = options.kernels.empty() && !environment("DEEPSIM_CUDA_KERNELS").empty();
  const std::string early = gpu.starts_early() ? "kernels start early" : "no kernel starts early: " + gpu.why_not_early();
  return instructions_of(kernels_of(options.kernels, gpu.facts(), gpu.precision())) + (named ? " (DEEPSIM_CUDA_KERNELS)" : "") +
         "; " + machine_code_for(gpu.facts().architecture) + "; " + early;
}

}  // namespace deepsim::runtime::detail::cuda
