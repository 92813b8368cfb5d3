// Stands in for NVIDIA's driver (libcuda.so.1) in tests: device memory is host memory, kernels run in the emulation, and
// what a stream records is replayed. What breaks the driver's rules (a copy beyond an allocation, a graph that is gone)
// fails as it would there. Environment: DEEPSIM_STAND_IN_FAILS="cuLaunchKernel 3" makes the third of these calls fail,
// DEEPSIM_STAND_IN_MEMORY is the size of the GPU, DEEPSIM_STAND_IN_ARCHITECTURE its compute capability ("75"),
// DEEPSIM_STAND_IN_MULTIPROCESSORS how many it has.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "emulated_kernels.h"
#include "device.h"

namespace {

using deepsim::cuda::emulation::Grid;
using deepsim::tests::EmulatedKernel;
using deepsim::tests::emulated_kernel;
using Address = std::uint64_t;

enum Result { kSuccess = 0, kInvalid = 1, kOutOfMemory = 2, kNoDevice = 100, kNoContext = 201, kNotFound = 500, kFault = 700, kCapturing = 900 };

using Work = std::function<int()>;
using Recording = std::vector<Work>;

struct Entry {
  const EmulatedKernel* kernel;
};
struct Module {
  std::string element;
  std::map<std::string, std::unique_ptr<Entry>> functions;
};
struct Stream {
  std::unique_ptr<Recording> recording;  // while it captures
};

struct State {
  std::mutex mutex;
  std::map<Address, std::size_t> memory;
  std::size_t used = 0;
  std::set<const void*> graphs;
  std::map<std::string, long> calls;
  std::string violation;  // what the last kernel did wrong
};

State& state() {
  static State* const instance = new State;
  return *instance;
}

thread_local int contexts = 0;

std::string setting(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? "" : text;
}

std::size_t size_of_gpu() {
  const std::string text = setting("DEEPSIM_STAND_IN_MEMORY");
  return text.empty() ? std::size_t{4} << 30 : std::stoull(text);
}

// Count a call; whether it shall fail.
bool fails(const char* name) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  const long call = ++state().calls[name];
  std::istringstream fields(setting("DEEPSIM_STAND_IN_FAILS"));
  std::string wanted;
  long number = 0;
  fields >> wanted >> number;
  return wanted == name && number == call;
}

bool inside(Address address, std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  auto after = state().memory.upper_bound(address);
  if (after == state().memory.begin()) return false;
  --after;
  return address + bytes <= after->first + after->second;
}

int enqueue(void* stream, const Work& work) {
  auto* known = static_cast<Stream*>(stream);
  if (known == nullptr || !known->recording) return work();
  known->recording->push_back(work);
  return kSuccess;
}

int run_kernel(const EmulatedKernel& kernel, Grid grid, int threads, std::size_t shared, const std::vector<char>& argument) {
  try {
    deepsim::cuda::emulation::launch(grid, threads, shared, [&] { kernel.body(argument.data()); });
    return kSuccess;
  } catch (const std::exception& error) {
    const std::lock_guard<std::mutex> lock(state().mutex);
    state().violation = error.what();
    return kFault;
  }
}

int copy(void* stream, void* to, const void* from, std::size_t bytes) {
  return enqueue(stream, [=]() -> int {
    std::memcpy(to, from, bytes);
    return kSuccess;
  });
}

void* pointer(Address address) { return reinterpret_cast<void*>(address); }

void keep(const void* graph) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  state().graphs.insert(graph);
}

}  // namespace

#define COUNTED(name) \
  if (fails(#name)) return kFault

extern "C" {

int cuInit(unsigned) { return fails("cuInit") ? kNoDevice : kSuccess; }

int cuDriverGetVersion(int* version) {
  *version = 13000;
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
  const std::string text = setting("DEEPSIM_STAND_IN_ARCHITECTURE");
  const std::string multiprocessors = setting("DEEPSIM_STAND_IN_MULTIPROCESSORS");
  const int architecture = text.empty() ? 80 : std::stoi(text);
  const std::map<int, int> values = {{75, architecture / 10}, {76, architecture % 10}, {16, multiprocessors.empty() ? 4 : std::stoi(multiprocessors)},
                                    {97, architecture == 90 ? 232448 : 101376}};
  *value = values.at(attribute);
  return kSuccess;
}

int cuDevicePrimaryCtxRetain(void** context, int) {
  COUNTED(cuDevicePrimaryCtxRetain);
  *context = &state();
  return kSuccess;
}

int cuDevicePrimaryCtxRelease_v2(int) { return kSuccess; }

int cuCtxPushCurrent_v2(void*) {
  COUNTED(cuCtxPushCurrent_v2);
  ++contexts;
  return kSuccess;
}

int cuCtxPopCurrent_v2(void** context) {
  *context = nullptr;
  return contexts-- > 0 ? kSuccess : kInvalid;
}

int cuModuleLoadData(void** module, const void* image) {
  COUNTED(cuModuleLoadData);
  if (contexts <= 0) return kNoContext;
  *module = new Module{static_cast<const char*>(image), {}};
  return kSuccess;
}

int cuModuleUnload(void* module) {
  delete static_cast<Module*>(module);
  return kSuccess;
}

int cuModuleGetFunction(void** function, void* module, const char* name) {
  COUNTED(cuModuleGetFunction);
  auto* loaded = static_cast<Module*>(module);
  try {
    std::unique_ptr<Entry>& entry = loaded->functions[name];
    if (!entry) entry = std::make_unique<Entry>(Entry{&emulated_kernel(loaded->element, name)});
    *function = entry.get();
    return kSuccess;
  } catch (const std::out_of_range&) {
    return kNotFound;
  }
}

int cuFuncSetAttribute(void*, int, int) {
  COUNTED(cuFuncSetAttribute);
  return kSuccess;
}

int cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned, unsigned shared,
                   void* stream, void** arguments, void**) {
  COUNTED(cuLaunchKernel);
  if (contexts <= 0) return kNoContext;
  if (x == 0 || y == 0 || z == 0 || y > 65535 || z > 65535 || threads > 1024) return kInvalid;
  const EmulatedKernel* kernel = static_cast<Entry*>(function)->kernel;
  const auto* argument = static_cast<const char*>(arguments[0]);
  const std::vector<char> own(argument, argument + kernel->argument_bytes);
  const Grid grid{static_cast<int>(x), static_cast<int>(y), static_cast<int>(z)};
  return enqueue(stream, [=] { return run_kernel(*kernel, grid, static_cast<int>(threads), shared, own); });
}

int cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
  *total = size_of_gpu();
  *free = size_of_gpu() - state().used;
  return kSuccess;
}

int cuMemAlloc_v2(Address* address, std::size_t bytes) {
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
  const std::lock_guard<std::mutex> lock(state().mutex);
  const auto found = state().memory.find(address);
  if (found == state().memory.end()) return kInvalid;
  state().used -= found->second;
  state().memory.erase(found);
  std::free(pointer(address));
  return kSuccess;
}

int cuMemAllocHost_v2(void** memory, std::size_t bytes) {
  COUNTED(cuMemAllocHost_v2);
  *memory = std::malloc(bytes);
  return kSuccess;
}

int cuMemFreeHost(void* memory) {
  std::free(memory);
  return kSuccess;
}

int cuMemcpyHtoDAsync_v2(Address to, const void* from, std::size_t bytes, void* stream) {
  COUNTED(cuMemcpyHtoDAsync_v2);
  return inside(to, bytes) ? copy(stream, pointer(to), from, bytes) : kInvalid;
}

int cuMemcpyDtoHAsync_v2(void* to, Address from, std::size_t bytes, void* stream) {
  COUNTED(cuMemcpyDtoHAsync_v2);
  return inside(from, bytes) ? copy(stream, to, pointer(from), bytes) : kInvalid;
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

int cuStreamCreate(void** stream, unsigned) {
  COUNTED(cuStreamCreate);
  *stream = new Stream;
  return kSuccess;
}

int cuStreamDestroy_v2(void* stream) {
  delete static_cast<Stream*>(stream);
  return kSuccess;
}

int cuStreamSynchronize(void* stream) {
  COUNTED(cuStreamSynchronize);
  return static_cast<Stream*>(stream)->recording ? kCapturing : kSuccess;
}

int cuStreamWaitEvent(void*, void*, unsigned) { return kSuccess; }

int cuStreamBeginCapture_v2(void* stream, int) {
  COUNTED(cuStreamBeginCapture_v2);
  auto* known = static_cast<Stream*>(stream);
  if (known->recording) return kCapturing;
  known->recording = std::make_unique<Recording>();
  return kSuccess;
}

int cuStreamEndCapture(void* stream, void** graph) {
  auto* known = static_cast<Stream*>(stream);
  if (!known->recording) return kCapturing;
  if (fails("cuStreamEndCapture")) {
    known->recording.reset();
    return kFault;
  }
  *graph = known->recording.release();
  keep(*graph);
  return kSuccess;
}

int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
  COUNTED(cuGraphInstantiateWithFlags);
  *executable = new Recording(*static_cast<Recording*>(graph));
  keep(*executable);
  return kSuccess;
}

int cuGraphLaunch(void* executable, void* stream) {
  COUNTED(cuGraphLaunch);
  {
    const std::lock_guard<std::mutex> lock(state().mutex);
    if (state().graphs.count(executable) == 0) return kInvalid;
  }
  for (const Work& work : *static_cast<Recording*>(executable))
    if (const int result = enqueue(stream, work)) return result;
  return kSuccess;
}

int cuGraphExecDestroy(void* executable) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  if (state().graphs.erase(executable) == 0) return kInvalid;
  delete static_cast<Recording*>(executable);
  return kSuccess;
}

int cuGraphDestroy(void* graph) { return cuGraphExecDestroy(graph); }

int cuEventCreate(void** event, unsigned) {
  *event = &state();
  return kSuccess;
}

int cuEventRecord(void*, void*) { return kSuccess; }
int cuEventDestroy_v2(void*) { return kSuccess; }

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

// For tests of leaks: bytes of the GPU that are taken, and graphs that live.
std::size_t deepsim_stand_in_memory(void) { return state().used; }
std::size_t deepsim_stand_in_graphs(void) { return state().graphs.size(); }
long deepsim_stand_in_calls(const char* name) { return state().calls[name]; }

}  // extern "C"
