// Stands in for NVIDIA's driver (libcuda.so.1) in tests: its functions on devices, modules and memory, on the state of
// stand_in_state.h.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/driver.h"
#include "stand_in_calls.h"
#include "stand_in_state.h"

using namespace deepsim::tests::stand_in;
using deepsim::runtime::detail::cuda::PoolProperties;
using deepsim::runtime::detail::cuda::RowCopy;
using deepsim::runtime::detail::cuda::RowEnd;
using deepsim::tests::emulated_kernel;
using deepsim::tests::EmulatedKernel;

extern "C" {

int cuInit(unsigned) { return fails("cuInit") ? kNoDevice : kSuccess; }

int cuDriverGetVersion(int* version) {
  COUNTED(cuDriverGetVersion);
  const std::string text = setting("DEEPSIM_STAND_IN_VERSION");
  *version = text.empty() ? 13000 : std::stoi(text);
  return kSuccess;
}

int cuDeviceGetCount(int* count) {
  COUNTED(cuDeviceGetCount);
  *count = 1;
  return kSuccess;
}

int cuDeviceGet(int* device, int ordinal) {
  COUNTED(cuDeviceGet);
  *device = ordinal;
  return ordinal == 0 ? kSuccess : kInvalid;
}

int cuDeviceGetName(char* name, int size, int) {
  COUNTED(cuDeviceGetName);
  std::strncpy(name, "Emulated GPU", static_cast<std::size_t>(size));
  return kSuccess;
}

int cuDeviceGetAttribute(int* value, int attribute, int) {
  COUNTED(cuDeviceGetAttribute);
  const int architecture = this_architecture();
  const std::string multiprocessors = setting("DEEPSIM_STAND_IN_MULTIPROCESSORS");
  const int count = multiprocessors.empty() ? 4 : std::stoi(multiprocessors);
  const std::string cache_bytes = setting("DEEPSIM_STAND_IN_CACHE");
  const int cache = cache_bytes.empty() ? 40 << 20 : std::stoi(cache_bytes);
  const std::string memory_bits = setting("DEEPSIM_STAND_IN_MEMORY_BITS");
  const int bits = memory_bits.empty() ? 5120 : std::stoi(memory_bits);
  const std::map<int, int> shared = {{75, 65536}, {80, 166912}, {90, 232448}};  // that a block may use
  const int most_shared = shared.count(architecture) > 0 ? shared.at(architecture) : 101376;
  const std::map<int, int> values = {
      {75, architecture / 10}, {76, architecture % 10}, {16, count},   {38, cache},
      {97, most_shared},       {13, 1410000},           {36, 1215000}, {37, bits}};  // an A100's clocks, in kHz
  *value = values.at(attribute);
  return kSuccess;
}

int cuDevicePrimaryCtxRetain(void** context, int) {
  UNSAFE;
  COUNTED(cuDevicePrimaryCtxRetain);
  *context = primary_context();
  retain(1);
  return kSuccess;
}

int cuDevicePrimaryCtxRelease_v2(int) {
  GIVES_BACK(cuDevicePrimaryCtxRelease_v2);
  retain(-1);
  return result;
}

int cuCtxPushCurrent_v2(void*) {
  COUNTED(cuCtxPushCurrent_v2);
  ++contexts;
  return kSuccess;
}

int cuCtxPopCurrent_v2(void** context) {
  GIVES_BACK(cuCtxPopCurrent_v2);
  *context = nullptr;
  return contexts-- > 0 ? result : kInvalid;
}

int cuModuleLoadData(void** module, const void* image) {
  UNSAFE;
  COUNTED(cuModuleLoadData);
  if (contexts <= 0) return kNoContext;
  *module = make(Module{static_cast<const char*>(image), {}});
  return kSuccess;
}

int cuModuleUnload(void* module) {
  UNSAFE;
  GIVES_BACK(cuModuleUnload);
  end(module);
  return result;
}

int cuModuleGetFunction(void** function, void* module, const char* name) {
  COUNTED(cuModuleGetFunction);
  auto* loaded = static_cast<Module*>(module);
  try {
    std::unique_ptr<Entry>& entry = loaded->functions[name];
    if (!entry) entry = std::make_unique<Entry>(Entry{&emulated_kernel(loaded->element, name), name});
    *function = entry.get();
    return kSuccess;
  } catch (const std::out_of_range&) {
    return kNotFound;
  }
}

int cuFuncGetAttribute(int* value, int attribute, void*) {
  COUNTED(cuFuncGetAttribute);
  *value = compiled_for();
  return attribute == 5 ? kSuccess : kInvalid;
}

int cuFuncSetAttribute(void*, int, int) {
  COUNTED(cuFuncSetAttribute);
  return kSuccess;
}

int cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
  COUNTED(cuMemGetInfo_v2);
  const std::lock_guard<std::mutex> lock(state().mutex);
  *total = size_of_gpu();
  *free = size_of_gpu() - state().used;
  return kSuccess;
}

int cuMemAlloc_v2(Address* address, std::size_t bytes) {
  UNSAFE;
  if (fails("cuMemAlloc_v2")) return kOutOfMemory;
  const std::lock_guard<std::mutex> lock(state().mutex);
  if (contexts <= 0) return kNoContext;
  if (bytes == 0) return kInvalid;
  if (state().used + bytes > size_of_gpu()) return kOutOfMemory;
  void* memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  std::memset(memory, 0xff, bytes);  // NaN: nobody may count on zeros
  *address = reinterpret_cast<Address>(memory);
  state().memory[*address] = bytes;
  state().used += bytes;
  return kSuccess;
}

int cuMemFree_v2(Address address) {
  UNSAFE;
  GIVES_BACK(cuMemFree_v2);
  (void)drain_all();
  const std::lock_guard<std::mutex> lock(state().mutex);
  const auto found = state().memory.find(address);
  if (found == state().memory.end()) return kInvalid;
  state().used -= found->second;
  state().memory.erase(found);
  state().pooled.erase(address);
  std::free(pointer(address));
  return result;
}

int cuMemPoolCreate(void** pool, const PoolProperties* properties) {
  UNSAFE;
  COUNTED(cuMemPoolCreate);
  if (contexts <= 0) return kNoContext;
  if (properties->allocation_type != 1 || properties->location_type != 1 || properties->ordinal != 0) return kInvalid;
  *pool = make(Pool{});
  return kSuccess;
}

int cuMemPoolSetAttribute(void* pool, int attribute, void* value) {
  COUNTED(cuMemPoolSetAttribute);
  if (attribute != 4) return kInvalid;
  static_cast<Pool*>(pool)->kept = *static_cast<std::uint64_t*>(value);
  return kSuccess;
}

int cuMemPoolDestroy(void* pool) {
  UNSAFE;
  GIVES_BACK(cuMemPoolDestroy);
  end(pool);
  return result;
}

int cuMemAllocFromPoolAsync(Address* address, std::size_t bytes, void* pool, void*) {
  if (fails("cuMemAllocFromPoolAsync")) return kOutOfMemory;
  if (static_cast<Pool*>(pool)->kept == 0) return kInvalid;
  const int result = cuMemAlloc_v2(address, bytes);
  if (result == kSuccess) note_pooled(*address);
  return result;
}

int cuMemFreeAsync(Address address, void* stream) {
  return capture_of(stream) == 0 ? cuMemFree_v2(address) : static_cast<int>(kCaptureUnsupported);
}

int cuMemAllocHost_v2(void** memory, std::size_t bytes) {
  UNSAFE;
  if (fails("cuMemAllocHost_v2")) return kOutOfMemory;
  *memory = std::malloc(bytes);
  std::memset(*memory, 0xff, bytes);
  const std::lock_guard<std::mutex> lock(state().mutex);
  state().pinned[static_cast<const char*>(*memory)] = bytes;
  return kSuccess;
}

int cuMemFreeHost(void* memory) {
  UNSAFE;
  GIVES_BACK(cuMemFreeHost);
  (void)drain_all();
  const std::lock_guard<std::mutex> lock(state().mutex);
  if (state().pinned.erase(static_cast<const char*>(memory)) == 0) return kInvalid;
  std::free(memory);
  return result;
}

int cuPointerGetAttribute(void* value, int attribute, Address address) {
  COUNTED(cuPointerGetAttribute);
  if ((attribute != 9 && attribute != 1) || !inside(address, 1)) return kInvalid;
  if (attribute == 9) {
    *static_cast<int*>(value) = 0;
  } else {
    *static_cast<void**>(value) = context_of(address);
  }
  return kSuccess;
}

// From pageable memory, the driver takes a copy before it returns.
int cuMemcpyHtoDAsync_v2(Address to, const void* from, std::size_t bytes, void* stream) {
  COUNTED(cuMemcpyHtoDAsync_v2);
  if (!inside(to, bytes)) return kInvalid;
  if (is_pinned(from, bytes)) return copy(stream, pointer(to), from, bytes);
  const auto* first = static_cast<const char*>(from);
  return enqueue(stream, [to, bytes, own = std::vector<char>(first, first + bytes)]() -> int {
    std::memcpy(pointer(to), own.data(), bytes);
    return kSuccess;
  });
}

// To pageable memory, it returns when the copy is done.
int cuMemcpyDtoHAsync_v2(void* to, Address from, std::size_t bytes, void* stream) {
  COUNTED(cuMemcpyDtoHAsync_v2);
  if (!inside(from, bytes)) return kInvalid;
  const int result = copy(stream, to, pointer(from), bytes);
  return result != kSuccess || is_pinned(to, bytes) ? result : drain(known_stream(stream));
}

int cuMemcpy2DAsync_v2(const RowCopy* rows, void* stream) {
  COUNTED(cuMemcpy2DAsync_v2);
  const RowCopy own = *rows;
  const auto reach = [&](const RowEnd& end) { return (own.height - 1) * end.pitch + own.width; };
  const bool plain = own.from.memory_type == 2 && own.to.memory_type == 2 && own.from.x + own.from.y + own.to.x + own.to.y == 0;
  if (!plain || own.height == 0 || own.width > own.from.pitch || own.width > own.to.pitch) return kInvalid;
  if (!inside(own.from.device, reach(own.from)) || !inside(own.to.device, reach(own.to))) return kInvalid;
  return enqueue(stream, [own]() -> int {
    for (std::size_t row = 0; row < own.height; ++row)
      std::memcpy(pointer(own.to.device + row * own.to.pitch), pointer(own.from.device + row * own.from.pitch), own.width);
    return kSuccess;
  });
}

int cuMemcpyDtoDAsync_v2(Address to, Address from, std::size_t bytes, void* stream) {
  COUNTED(cuMemcpyDtoDAsync_v2);
  return inside(from, bytes) && inside(to, bytes) ? copy(stream, pointer(to), pointer(from), bytes) : kInvalid;
}

int cuMemsetD8Async(Address to, unsigned char value, std::size_t bytes, void* stream) {
  COUNTED(cuMemsetD8Async);
  if (!inside(to, bytes)) return kInvalid;
  return enqueue(stream, [=]() -> int {
    std::memset(pointer(to), value, bytes);
    return kSuccess;
  });
}

int cuGetErrorName(int, const char** name) {
  *name = "CUDA_ERROR_STAND_IN";
  return kSuccess;
}

int cuGetErrorString(int result, const char** text) {
  static thread_local std::string kept;
  const std::lock_guard<std::mutex> lock(state().mutex);
  kept = result == kFault && !state().violation.empty() ? state().violation : "error " + std::to_string(result);
  *text = kept.c_str();
  return kSuccess;
}

// For tests of leaks: bytes of the GPU that are taken; graphs, modules, streams, events, contexts and pinned memory that
// live, and this thread's stack of contexts.
std::size_t deepsim_stand_in_memory(void) { return state().used; }
int deepsim_stand_in_objects(void) {
  return static_cast<int>(state().graphs.size() + state().objects.size() + state().pinned.size()) + state().retained + contexts;
}
std::size_t deepsim_stand_in_graphs(void) { return state().graphs.size(); }
// Calls of a function, all or since they were counted anew.
long deepsim_stand_in_calls(const char* name) { return state().calls[name]; }
void deepsim_stand_in_count_anew(void) { state().calls.clear(); }
// Names of the kernels that ran since they were asked for the last time, with a space behind each.
const char* deepsim_stand_in_launched(void) {
  static std::string told;
  const std::lock_guard<std::mutex> lock(state().mutex);
  told = std::exchange(state().launched, "");
  return told.c_str();
}
// Give back what nobody will.
void deepsim_stand_in_forget(void) {
  for (const auto& [address, bytes] : state().memory) std::free(pointer(address));
  state().memory.clear();
  state().used = 0;
  for (const void* graph : state().graphs) delete static_cast<const Recording*>(graph);
  state().graphs.clear();
  for (const auto& [memory, bytes] : state().pinned) std::free(const_cast<char*>(memory));
  state().pinned.clear();
  state().streams.clear();
  state().objects.clear();
  state().retained = 0;
}

}  // extern "C"
