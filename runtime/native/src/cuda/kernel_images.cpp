// The kernels as nvcc compiled them, embedded by the build (kernels/cuda/embed.S); or none.
#include <string>

#include "gpu.h"

#if defined(DEEPSIM_CUDA_EMBEDDED)
extern "C" const unsigned char deepsim_cuda_half[], deepsim_cuda_brain[], deepsim_cuda_single[];
#elif defined(DEEPSIM_CUDA_EMULATED)
// For tests: what stands in for the driver knows the kernels by name and looks at no image.
static const unsigned char deepsim_cuda_half[] = "half", deepsim_cuda_brain[] = "brain", deepsim_cuda_single[] = "single";
#endif

namespace deepsim::runtime::detail::cuda {

const void* kernel_image(Precision precision) {
#if defined(DEEPSIM_CUDA_EMBEDDED) || defined(DEEPSIM_CUDA_EMULATED)
  switch (precision) {
    case Precision::half:
      return deepsim_cuda_half;
    case Precision::brain:
      return deepsim_cuda_brain;
    case Precision::single:
      return deepsim_cuda_single;
  }
#else
  (void)precision;
#endif
  return nullptr;
}

const char* kernel_architectures() {
#if defined(DEEPSIM_CUDA_ARCHITECTURES)
  return DEEPSIM_CUDA_ARCHITECTURES;
#else
  return "";
#endif
}

bool has_machine_code(int architecture) {
#if defined(DEEPSIM_CUDA_EMULATED)
  return architecture >= 75;
#else
  const std::string listed = std::string(",") + kernel_architectures() + ",";
  return listed.find("," + std::to_string(architecture) + ",") != std::string::npos;
#endif
}

int oldest_architecture(Precision precision) { return precision != Precision::brain && has_machine_code(75) ? 75 : 80; }

int kernel_toolkit() {
#if defined(DEEPSIM_CUDA_TOOLKIT)
  return DEEPSIM_CUDA_TOOLKIT;
#else
  return 0;
#endif
}

}  // namespace deepsim::runtime::detail::cuda
