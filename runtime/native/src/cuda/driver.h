// NVIDIA's driver library, opened when it is first asked for: no CUDA toolkit is needed to build or to load this library,
// and without a driver everything else works. The names and types are those of the driver API (CUDA 12.0 and later).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace deepsim::runtime::detail::cuda {

using Address = std::uint64_t;  // CUdeviceptr: memory of the device
using Result = int;
using Device = int;
using Context = void*;
using Module = void*;
using Function = void*;
using Stream = void*;
using Event = void*;
using Graph = void*;
using GraphNode = void*;
using GraphExecutable = void*;
using MemoryPool = void*;

// CUDA_MEMCPY2D: `height` rows of `width` bytes each.
struct RowEnd {
  std::size_t x = 0, y = 0;
  int memory_type = 2;  // CU_MEMORYTYPE_DEVICE
  const void* host = nullptr;
  Address device = 0;
  void* array = nullptr;
  std::size_t pitch = 0;  // bytes from row to row
};
struct RowCopy {
  RowEnd from, to;
  std::size_t width = 0, height = 0;
};

// CUDA_KERNEL_NODE_PARAMS_v2.
struct KernelNode {
  Function function = nullptr;
  unsigned grid_x = 1, grid_y = 1, grid_z = 1, block_x = 1, block_y = 1, block_z = 1;
  unsigned shared_bytes = 0;
  void** arguments = nullptr;
  void** extra = nullptr;
  void* kernel = nullptr;     // in place of a function
  Context context = nullptr;  // null: the current one
};

// CUgraphEdgeData: of an edge from a kernel to the next; by default that one starts when the first is over.
struct Edge {
  unsigned char from_port = 0, to_port = 0, type = 0;
  unsigned char reserved[5] = {};
};
// It may start as soon as all blocks of the first allow it (CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC, type
// CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC), and waits in the kernel (kernels/cuda/device_ptx.h).
constexpr Edge kEarly{1, 0, 1};

// CUmemPoolProps, of memory of a GPU (CU_MEM_LOCATION_TYPE_DEVICE, CU_MEM_ALLOCATION_TYPE_PINNED).
struct PoolProperties {
  int allocation_type = 1;
  int handle_types = 0;
  int location_type = 1, ordinal = 0;
  void* windows_attributes = nullptr;
  std::size_t most_bytes = 0;
  unsigned short usage = 0;
  unsigned char reserved[54] = {};
};

constexpr Result kOutOfMemory = 2, kNotInitialized = 3, kCaptureImplicit = 906;
constexpr int kComputeMajor = 75, kComputeMinor = 76, kMultiprocessors = 16, kCacheBytes = 38;  // CUdevice_attribute
constexpr int kSharedOptin = 97, kClock = 13, kMemoryClock = 36, kMemoryWidth = 37;
constexpr int kCompiledFor = 5, kMaxDynamicShared = 8, kSharedShare = 9;                         // CUfunction_attribute
constexpr int kPointerContext = 1, kPointerOrdinal = 9;                                          // CUpointer_attribute
constexpr int kReleaseThreshold = 4;                                                             // CUmemPool_attribute
constexpr unsigned kNonBlocking = 1;                                                             // CU_STREAM_NON_BLOCKING
constexpr unsigned kNoTiming = 2;                                                                // CU_EVENT_DISABLE_TIMING
constexpr int kNotCapturing = 0;                                                                 // CUstreamCaptureStatus
constexpr int kRelaxed = 2;                                                                      // CUstreamCaptureMode

//   member, exported name, parameters
#define DEEPSIM_CUDA_DRIVER(CALL)                                                                                        \
  CALL(init, cuInit, (unsigned))                                                                                         \
  CALL(driver_version, cuDriverGetVersion, (int*))                                                                       \
  CALL(device_count, cuDeviceGetCount, (int*))                                                                           \
  CALL(device_get, cuDeviceGet, (Device*, int))                                                                          \
  CALL(device_name, cuDeviceGetName, (char*, int, Device))                                                               \
  CALL(device_attribute, cuDeviceGetAttribute, (int*, int, Device))                                                      \
  CALL(primary_retain, cuDevicePrimaryCtxRetain, (Context*, Device))                                                     \
  CALL(primary_release, cuDevicePrimaryCtxRelease_v2, (Device))                                                          \
  CALL(context_push, cuCtxPushCurrent_v2, (Context))                                                                     \
  CALL(context_pop, cuCtxPopCurrent_v2, (Context*))                                                                      \
  CALL(module_load, cuModuleLoadData, (Module*, const void*))                                                            \
  CALL(module_unload, cuModuleUnload, (Module))                                                                          \
  CALL(module_function, cuModuleGetFunction, (Function*, Module, const char*))                                           \
  CALL(function_get, cuFuncGetAttribute, (int*, int, Function))                                                          \
  CALL(function_set, cuFuncSetAttribute, (Function, int, int))                                                           \
  CALL(launch, cuLaunchKernel,                                                                                           \
       (Function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Stream, void**, void**))         \
  CALL(memory_info, cuMemGetInfo_v2, (std::size_t*, std::size_t*))                                                       \
  CALL(memory_take, cuMemAlloc_v2, (Address*, std::size_t))                                                              \
  CALL(memory_free, cuMemFree_v2, (Address))                                                                             \
  CALL(pinned_take, cuMemAllocHost_v2, (void**, std::size_t))                                                            \
  CALL(pinned_free, cuMemFreeHost, (void*))                                                                              \
  CALL(pool_create, cuMemPoolCreate, (MemoryPool*, const PoolProperties*))                                               \
  CALL(pool_set, cuMemPoolSetAttribute, (MemoryPool, int, void*))                                                        \
  CALL(pool_destroy, cuMemPoolDestroy, (MemoryPool))                                                                     \
  CALL(pool_take, cuMemAllocFromPoolAsync, (Address*, std::size_t, MemoryPool, Stream))                                  \
  CALL(pool_free, cuMemFreeAsync, (Address, Stream))                                                                     \
  CALL(pointer_attribute, cuPointerGetAttribute, (void*, int, Address))                                                  \
  CALL(copy_to_device, cuMemcpyHtoDAsync_v2, (Address, const void*, std::size_t, Stream))                                \
  CALL(copy_to_host, cuMemcpyDtoHAsync_v2, (void*, Address, std::size_t, Stream))                                        \
  CALL(copy_on_device, cuMemcpyDtoDAsync_v2, (Address, Address, std::size_t, Stream))                                    \
  CALL(copy_rows, cuMemcpy2DAsync_v2, (const RowCopy*, Stream))                                                          \
  CALL(fill, cuMemsetD8Async, (Address, unsigned char, std::size_t, Stream))                                             \
  CALL(stream_create, cuStreamCreate, (Stream*, unsigned))                                                               \
  CALL(stream_destroy, cuStreamDestroy_v2, (Stream))                                                                     \
  CALL(stream_synchronize, cuStreamSynchronize, (Stream))                                                                \
  CALL(stream_wait, cuStreamWaitEvent, (Stream, Event, unsigned))                                                        \
  CALL(stream_capturing, cuStreamIsCapturing, (Stream, int*))                                                            \
  CALL(capture_mode, cuThreadExchangeStreamCaptureMode, (int*))                                                          \
  CALL(graph_create, cuGraphCreate, (Graph*, unsigned))                                                                  \
  CALL(graph_add_kernel, cuGraphAddKernelNode_v2, (GraphNode*, Graph, const GraphNode*, std::size_t, const KernelNode*)) \
  CALL(graph_instantiate, cuGraphInstantiateWithFlags, (GraphExecutable*, Graph, unsigned long long))                    \
  CALL(graph_set_kernel, cuGraphExecKernelNodeSetParams_v2, (GraphExecutable, GraphNode, const KernelNode*))             \
  CALL(graph_launch, cuGraphLaunch, (GraphExecutable, Stream))                                                           \
  CALL(graph_executable_destroy, cuGraphExecDestroy, (GraphExecutable))                                                  \
  CALL(graph_destroy, cuGraphDestroy, (Graph))                                                                           \
  CALL(event_create, cuEventCreate, (Event*, unsigned))                                                                  \
  CALL(event_record, cuEventRecord, (Event, Stream))                                                                     \
  CALL(event_synchronize, cuEventSynchronize, (Event))                                                                   \
  CALL(event_destroy, cuEventDestroy_v2, (Event))                                                                        \
  CALL(error_name, cuGetErrorName, (Result, const char**))                                                               \
  CALL(error_text, cuGetErrorString, (Result, const char**))

// Those that drivers have since CUDA 12.3; null before.
#define DEEPSIM_CUDA_NEWER_DRIVER(CALL) \
  CALL(graph_add_edges, cuGraphAddDependencies_v2, (Graph, const GraphNode*, const GraphNode*, const Edge*, std::size_t))

// The functions of the driver, by what they do.
struct Driver {
#define DEEPSIM_CUDA_MEMBER(member, name, parameters) Result(*member) parameters = nullptr;
  DEEPSIM_CUDA_DRIVER(DEEPSIM_CUDA_MEMBER)
  DEEPSIM_CUDA_NEWER_DRIVER(DEEPSIM_CUDA_MEMBER)
#undef DEEPSIM_CUDA_MEMBER

  // The driver of this machine, opened and started once. Raises DeviceError telling why there is none.
  static const Driver& get();
};

// Raise OutOfMemory or DeviceError when a call of the driver failed; `what` is what it should have done.
void check(Result result, const std::string& what);

// While a stream is captured into a graph (torch.cuda.graph), the driver refuses, in every thread, what might wait for that
// stream, and breaks the capture off. While this lives, what this thread calls may go on: it uses streams of our own, and
// those of callers once they were found not to be captured.
class DuringCaptures {
 public:
  DuringCaptures() : changed_(Driver::get().capture_mode(&mode_) == 0) {}
  ~DuringCaptures() {
    if (changed_) (void)Driver::get().capture_mode(&mode_);
  }
  DuringCaptures(const DuringCaptures&) = delete;
  DuringCaptures& operator=(const DuringCaptures&) = delete;

 private:
  int mode_ = kRelaxed;  // then the one of before
  bool changed_;
};

// Whether a stream is being captured into a graph; the default one also when one is that waits for it.
bool captured(Stream stream);

struct DeviceFacts {
  std::string name;
  int architecture = 0;  // 90 for compute capability 9.0
  int multiprocessors = 0;
  int shared_bytes = 0;  // that a block may use
  int cache_bytes = 0;   // of L2
  double memory_bytes = 0;  // that the GPU's memory delivers in a cycle of the multiprocessors, by its clock and width
};

// Raises DeviceError for an ordinal that the driver does not see.
DeviceFacts device_facts(int ordinal);

}  // namespace deepsim::runtime::detail::cuda
