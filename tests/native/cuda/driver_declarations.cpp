// To be compiled with NVIDIA's cuda.h (test_cuda_driver.py): to a caller, our declarations of the driver's functions,
// structs and constants are the same as its own. Nothing here runs.
#include <cuda.h>

#include <cstddef>
#include <type_traits>

#include "../../../runtime/native/src/cuda/driver.h"

namespace deepsim::runtime::detail::cuda {

namespace {

template <class T>
using Pointee = std::remove_cv_t<std::remove_pointer_t<T>>;

// Whether a pointer's target is not looked into: a handle's (CUstream_st), an untyped one, a struct that is compared below.
template <class T>
constexpr bool opaque = std::is_void_v<Pointee<T>> || std::is_class_v<Pointee<T>>;

// Whether two parameters are passed in the same way and mean the same: integers (an enum is one) of one size, or pointers to
// such.
template <class A, class B>
constexpr bool alike() {
  if constexpr (std::is_pointer_v<A> && std::is_pointer_v<B>) {
    if constexpr (opaque<A> || opaque<B>) {
      return opaque<A> && opaque<B>;
    } else {
      return alike<Pointee<A>, Pointee<B>>();
    }
  } else {
    return !std::is_pointer_v<A> && !std::is_pointer_v<B> && sizeof(A) == sizeof(B);
  }
}

template <class Ours, class Theirs>
struct Same : std::false_type {};
template <class OurResult, class... OurParameters, class TheirResult, class... TheirParameters>
struct Same<OurResult(OurParameters...), TheirResult(TheirParameters...)> {
  static constexpr bool same_number = sizeof...(OurParameters) == sizeof...(TheirParameters);
  template <bool kSameNumber = same_number>
  static constexpr bool compare() {
    if constexpr (kSameNumber) {
      return alike<OurResult, TheirResult>() && (alike<OurParameters, TheirParameters>() && ...);
    } else {
      return false;
    }
  }
  static constexpr bool value = compare();
};

#define DEEPSIM_CUDA_COMPARE(member, name, parameters) \
  static_assert(Same<Result parameters, std::remove_pointer_t<decltype(&::name)>>::value, #name);
DEEPSIM_CUDA_DRIVER(DEEPSIM_CUDA_COMPARE)
DEEPSIM_CUDA_NEWER_DRIVER(DEEPSIM_CUDA_COMPARE)

static_assert(sizeof(Address) == sizeof(CUdeviceptr));

// The source's and the destination's part of CUDA_MEMCPY2D.
static_assert(sizeof(RowCopy) == sizeof(CUDA_MEMCPY2D));
#define DEEPSIM_CUDA_END(end, theirs)                                                                                   \
  static_assert(offsetof(RowCopy, end) + offsetof(RowEnd, x) == offsetof(CUDA_MEMCPY2D, theirs##XInBytes));             \
  static_assert(offsetof(RowCopy, end) + offsetof(RowEnd, y) == offsetof(CUDA_MEMCPY2D, theirs##Y));                    \
  static_assert(offsetof(RowCopy, end) + offsetof(RowEnd, memory_type) == offsetof(CUDA_MEMCPY2D, theirs##MemoryType)); \
  static_assert(offsetof(RowCopy, end) + offsetof(RowEnd, host) == offsetof(CUDA_MEMCPY2D, theirs##Host));              \
  static_assert(offsetof(RowCopy, end) + offsetof(RowEnd, device) == offsetof(CUDA_MEMCPY2D, theirs##Device));          \
  static_assert(offsetof(RowCopy, end) + offsetof(RowEnd, array) == offsetof(CUDA_MEMCPY2D, theirs##Array));            \
  static_assert(offsetof(RowCopy, end) + offsetof(RowEnd, pitch) == offsetof(CUDA_MEMCPY2D, theirs##Pitch));
DEEPSIM_CUDA_END(from, src)
DEEPSIM_CUDA_END(to, dst)
static_assert(offsetof(RowCopy, width) == offsetof(CUDA_MEMCPY2D, WidthInBytes));
static_assert(offsetof(RowCopy, height) == offsetof(CUDA_MEMCPY2D, Height));
#define DEEPSIM_CUDA_NODE(ours, theirs) \
  static_assert(offsetof(KernelNode, ours) == offsetof(CUDA_KERNEL_NODE_PARAMS_v2, theirs));
static_assert(sizeof(KernelNode) == sizeof(CUDA_KERNEL_NODE_PARAMS_v2));
DEEPSIM_CUDA_NODE(function, func)
DEEPSIM_CUDA_NODE(grid_x, gridDimX)
DEEPSIM_CUDA_NODE(grid_y, gridDimY)
DEEPSIM_CUDA_NODE(grid_z, gridDimZ)
DEEPSIM_CUDA_NODE(block_x, blockDimX)
DEEPSIM_CUDA_NODE(block_y, blockDimY)
DEEPSIM_CUDA_NODE(block_z, blockDimZ)
DEEPSIM_CUDA_NODE(shared_bytes, sharedMemBytes)
DEEPSIM_CUDA_NODE(arguments, kernelParams)
DEEPSIM_CUDA_NODE(extra, extra)
DEEPSIM_CUDA_NODE(kernel, kern)
DEEPSIM_CUDA_NODE(context, ctx)
#define DEEPSIM_CUDA_POOL(ours, theirs) static_assert(offsetof(PoolProperties, ours) == offsetof(CUmemPoolProps, theirs));
static_assert(sizeof(PoolProperties) == sizeof(CUmemPoolProps));
DEEPSIM_CUDA_POOL(allocation_type, allocType)
DEEPSIM_CUDA_POOL(handle_types, handleTypes)
DEEPSIM_CUDA_POOL(location_type, location.type)
DEEPSIM_CUDA_POOL(ordinal, location.id)
DEEPSIM_CUDA_POOL(windows_attributes, win32SecurityAttributes)
DEEPSIM_CUDA_POOL(most_bytes, maxSize)
DEEPSIM_CUDA_POOL(usage, usage)
static_assert(PoolProperties{}.allocation_type == CU_MEM_ALLOCATION_TYPE_PINNED);
static_assert(PoolProperties{}.location_type == CU_MEM_LOCATION_TYPE_DEVICE);
#define DEEPSIM_CUDA_EDGE(ours) static_assert(offsetof(Edge, ours) == offsetof(CUgraphEdgeData, ours));
static_assert(sizeof(Edge) == sizeof(CUgraphEdgeData));
DEEPSIM_CUDA_EDGE(from_port)
DEEPSIM_CUDA_EDGE(to_port)
DEEPSIM_CUDA_EDGE(type)
DEEPSIM_CUDA_EDGE(reserved)
static_assert(kEarly.from_port == CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC);
static_assert(kEarly.type == CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC);
static_assert(sizeof(RowEnd::memory_type) == sizeof(CUmemorytype));

static_assert(RowEnd{}.memory_type == CU_MEMORYTYPE_DEVICE);
static_assert(kOutOfMemory == CUDA_ERROR_OUT_OF_MEMORY);
static_assert(kComputeMajor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
static_assert(kComputeMinor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
static_assert(kMultiprocessors == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
static_assert(kSharedOptin == CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
static_assert(kClock == CU_DEVICE_ATTRIBUTE_CLOCK_RATE);
static_assert(kMemoryClock == CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE);
static_assert(kMemoryWidth == CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH);
static_assert(kSharedShare == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT);
static_assert(kCompiledFor == CU_FUNC_ATTRIBUTE_PTX_VERSION);
static_assert(kMaxDynamicShared == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
static_assert(kCacheBytes == CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
static_assert(kReleaseThreshold == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD);
static_assert(kPointerContext == CU_POINTER_ATTRIBUTE_CONTEXT);
static_assert(kNotInitialized == CUDA_ERROR_NOT_INITIALIZED);
static_assert(kPointerOrdinal == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL);
static_assert(kNonBlocking == CU_STREAM_NON_BLOCKING);
static_assert(kNoTiming == CU_EVENT_DISABLE_TIMING);
static_assert(kCaptureImplicit == CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
static_assert(kRelaxed == CU_STREAM_CAPTURE_MODE_RELAXED);
static_assert(kNotCapturing == CU_STREAM_CAPTURE_STATUS_NONE);

}  // namespace

}  // namespace deepsim::runtime::detail::cuda
