// The state of what stands in for NVIDIA's driver (libcuda.so.1) in tests: device memory is host memory, kernels run in
// the emulation, and graphs are replayed. What breaks the driver's rules (a copy beyond an allocation, a
// graph that is gone) fails as it would there. Environment: DEEPSIM_STAND_IN_FAILS="cuLaunchKernel 3" makes the third of
// these calls fail, DEEPSIM_STAND_IN_MEMORY is the size of the GPU, DEEPSIM_STAND_IN_ARCHITECTURE its compute capability
// ("75"), DEEPSIM_STAND_IN_COMPILED_FOR that of its kernels ("80") where it is another, DEEPSIM_STAND_IN_VERSION the CUDA
// version of the driver (12080), DEEPSIM_STAND_IN_MULTIPROCESSORS how many of these it has, DEEPSIM_STAND_IN_CACHE the bytes of
// its L2 cache, DEEPSIM_STAND_IN_MEMORY_BITS how wide its memory is, DEEPSIM_STAND_IN_IDLE leaves out what kernels compute;
// with DEEPSIM_STAND_IN_CAPTURING every stream says that it is being captured, or, where it is "implicit", the default one that
// another is that waits for it; with DEEPSIM_STAND_IN_ELSEWHERE another thread captures one; with DEEPSIM_STAND_IN_FOREIGN
// memory says that it is another context's. A stream's work is done at once; with DEEPSIM_STAND_IN_LATE=0 as late as the rules
// allow, when somebody waits for it; with another number sometimes early, sometimes late, as chance has it for that number.
// What a session gets wrong about the order of streams shows in one of them.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "device.h"
#include "emulated_kernels.h"

namespace deepsim::tests::stand_in {

using cuda::emulation::Grid;
using Address = std::uint64_t;

enum Result {
  kSuccess = 0,
  kInvalid = 1,
  kOutOfMemory = 2,
  kNoDevice = 100,
  kNoContext = 201,
  kNotFound = 500,
  kFault = 700,
  kCaptureUnsupported = 900,
  kCaptureImplicit = 906
};

using Work = std::function<int()>;

// A kernel of a graph: how it is run, with what comes before it where it starts early.
struct Node {
  std::string name;
  std::function<int(const std::function<void()>& earlier)> run;
  bool linked = false;  // an edge leads to it from the one before
  bool early = false;  // by an edge with which it may start while that one is at work
};
using Recording = std::vector<Node>;

struct Entry {
  const EmulatedKernel* kernel;
  std::string name;
};
struct Module {
  std::string element;
  std::map<std::string, std::unique_ptr<Entry>> functions;
};
struct Stream {
  std::deque<Work> late;  // work that nobody has waited for yet
  long queued = 0;  // work that it was ever given
};
struct Pool {
  std::uint64_t kept = 0;  // bytes
};
struct Event {
  Stream* stream = nullptr;
  long position = 0;  // in the work of the stream
};

struct State {
  std::mutex mutex;
  std::map<Address, std::size_t> memory;
  std::size_t used = 0;
  std::set<Address> pooled;  // memory that is of a pool
  std::set<const void*> graphs;
  std::map<void*, std::shared_ptr<void>> objects;  // modules, streams, events that live
  std::map<const char*, std::size_t> pinned;  // memory of the host
  std::recursive_mutex work;  // held while late work is queued or done
  std::set<Stream*> streams;
  int fault = kSuccess;  // of late work, until somebody asks
  std::uint32_t chance = 1;
  int retained = 0;  // contexts
  long ran = 0;  // kernels
  std::map<std::string, long> calls;
  std::string violation;  // what the last kernel did wrong
  std::string launched;  // names of the kernels that ran, with a space behind each
};

inline State& state() {
  static State* const instance = new State;
  return *instance;
}

inline thread_local int contexts = 0;
inline thread_local int capture_mode = 0;  // global; 2: relaxed

inline void* primary_context() { return &state(); }

inline std::string setting(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? "" : text;
}

inline int this_architecture() {
  const std::string text = setting("DEEPSIM_STAND_IN_ARCHITECTURE");
  return text.empty() ? 80 : std::stoi(text);
}

inline int compiled_for() {
  const std::string text = setting("DEEPSIM_STAND_IN_COMPILED_FOR");
  return text.empty() ? this_architecture() : std::stoi(text);
}

inline std::size_t size_of_gpu() {
  const std::string text = setting("DEEPSIM_STAND_IN_MEMORY");
  return text.empty() ? std::size_t{4} << 30 : std::stoull(text);
}

// Whether what this thread calls would break off what another one captures.
inline bool breaks_capture() { return capture_mode != 2 && !setting("DEEPSIM_STAND_IN_ELSEWHERE").empty(); }

inline int capture_of(const void* stream) {
  const std::string text = setting("DEEPSIM_STAND_IN_CAPTURING");
  if (text == "implicit") return stream == nullptr ? static_cast<int>(kCaptureImplicit) : 0;
  return text.empty() ? 0 : 1;
}

// Count a call; whether it shall fail.
inline bool fails(const char* name) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  const long call = ++state().calls[name];
  std::istringstream fields(setting("DEEPSIM_STAND_IN_FAILS"));
  std::string wanted;
  long number = 0;
  fields >> wanted >> number;
  return wanted == name && number == call;
}

// What such a call returns: a fault of the GPU, or what is named behind its number ("cuLaunchKernel 3 801").
inline int failure() {
  std::istringstream fields(setting("DEEPSIM_STAND_IN_FAILS"));
  std::string wanted;
  long number = 0;
  int result = kFault;
  fields >> wanted >> number;
  return fields >> result ? result : static_cast<int>(kFault);
}

inline bool inside(Address address, std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  auto after = state().memory.upper_bound(address);
  if (after == state().memory.begin()) return false;
  --after;
  return address + bytes <= after->first + after->second;
}

inline void note_pooled(Address address) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  state().pooled.insert(address);
}

// The context that memory was taken in: none for that of a pool.
inline void* context_of(Address address) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  if (state().pooled.count(address) > 0) return nullptr;
  return setting("DEEPSIM_STAND_IN_FOREIGN").empty() ? primary_context() : &contexts;
}

inline bool late() { return !setting("DEEPSIM_STAND_IN_LATE").empty(); }

// Do a stream's late work up to a position.
inline int drain(Stream* stream, long position) {
  const std::lock_guard<std::recursive_mutex> lock(state().work);
  while (stream != nullptr && !stream->late.empty() && stream->queued - static_cast<long>(stream->late.size()) < position) {
    const Work work = std::move(stream->late.front());
    stream->late.pop_front();
    if (const int result = work()) state().fault = result;
  }
  return std::exchange(state().fault, kSuccess);
}

// Null for the handles of the default streams: null, CU_STREAM_LEGACY and CU_STREAM_PER_THREAD.
inline Stream* known_stream(void* handle) {
  return reinterpret_cast<std::uintptr_t>(handle) <= 2 ? nullptr : static_cast<Stream*>(handle);
}

inline int drain(Stream* stream) { return drain(stream, stream == nullptr ? 0 : stream->queued); }

inline int drain_all() {
  const std::lock_guard<std::recursive_mutex> lock(state().work);
  for (Stream* stream : state().streams)
    if (const int result = drain(stream)) return result;
  return kSuccess;
}

// Whether a stream that was given work does all that it has now.
inline bool early() {
  const std::string seed = setting("DEEPSIM_STAND_IN_LATE");
  if (seed == "0") return false;
  std::uint32_t& chance = state().chance;
  chance = chance * 1664525u + 1013904223u + static_cast<std::uint32_t>(std::stoul(seed));
  return chance >> 30 == 0;
}

// The caller's stream, where it is the default one, has its work done at once.
inline int enqueue(void* stream, const Work& work) {
  Stream* const known = known_stream(stream);
  if (known == nullptr || !late()) return work();
  const std::lock_guard<std::recursive_mutex> lock(state().work);
  known->late.push_back(work);
  ++known->queued;
  if (early()) state().fault = drain(known);
  return kSuccess;
}

inline void note(const std::string& name) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  state().launched += name + " ";
}

// How many kernels ran before; and the order of a kernel's blocks, so that another one is the first to start early each time.
inline long next_number() {
  const std::lock_guard<std::mutex> lock(state().mutex);
  return state().ran++;
}
inline cuda::emulation::Schedule schedule_of(long number) {
  constexpr auto count = static_cast<long>(std::size(cuda::emulation::schedules));
  cuda::emulation::Schedule schedule;
  schedule.blocks = cuda::emulation::schedules[number % count].blocks;
  schedule.seed = static_cast<std::uint64_t>(number);
  return schedule;
}

inline int run_kernel(const EmulatedKernel& kernel, Grid grid, int threads, std::size_t shared,
                      const std::vector<char>& argument, const std::function<void()>& earlier) {
  if (!setting("DEEPSIM_STAND_IN_IDLE").empty()) return kSuccess;
  const long number = next_number();
  try {
    cuda::emulation::launch(grid, threads, shared, [&] { kernel.body(argument.data()); }, schedule_of(number), earlier);
    return kSuccess;
  } catch (const std::exception& error) {
    const std::lock_guard<std::mutex> lock(state().mutex);
    state().violation = error.what();
    return kFault;
  }
}

// Run kernels of a graph, each as early as its edge lets it start: so in a row that may,
// the last one first. Of a longer row that many, as each takes a host thread; which ones begin such a part differs from one
// time to the next.
inline int run_nodes(const Recording& nodes, std::size_t begin, std::size_t end) {
  std::size_t most = 3 + static_cast<std::size_t>(next_number() % 4);
  while (begin < end) {
    std::size_t last = begin;
    while (last + 1 < end && nodes[last + 1].early && last + 1 - begin < most) ++last;
    most = 6;
    int before = kSuccess;
    const auto earlier = [&] { before = run_nodes(nodes, begin, last); };
    const bool beside = last > begin;
    const int result = nodes[last].run(beside ? std::function<void()>(earlier) : std::function<void()>());
    if (before != kSuccess) return before;
    if (result != kSuccess) return result;
    begin = last + 1;
  }
  return kSuccess;
}

inline int copy(void* stream, void* to, const void* from, std::size_t bytes) {
  return enqueue(stream, [=]() -> int {
    std::memcpy(to, from, bytes);
    return kSuccess;
  });
}

inline void* pointer(Address address) { return reinterpret_cast<void*>(address); }

inline bool is_pinned(const void* memory, std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  const auto* at = static_cast<const char*>(memory);
  auto after = state().pinned.upper_bound(at);
  if (after == state().pinned.begin()) return false;
  --after;
  return at + bytes <= after->first + after->second;
}

inline int destroy(void* graph) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  if (state().graphs.erase(graph) == 0) return kInvalid;
  delete static_cast<Recording*>(graph);
  return kSuccess;
}

inline void retain(int change) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  state().retained += change;
}

template <class Object>
void* make(Object object) {
  const auto made = std::make_shared<Object>(std::move(object));
  const std::lock_guard<std::mutex> lock(state().mutex);
  state().objects[made.get()] = made;
  return made.get();
}

inline void end(void* object) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  state().objects.erase(object);
}

inline void keep(const void* graph) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  state().graphs.insert(graph);
}

}  // namespace deepsim::tests::stand_in
