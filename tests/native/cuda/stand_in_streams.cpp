// The stand-in driver's functions on streams: launches, graphs and events.
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "cuda/driver.h"
#include "stand_in_calls.h"
#include "stand_in_state.h"

using namespace deepsim::tests::stand_in;
using deepsim::runtime::detail::cuda::Edge;
using deepsim::runtime::detail::cuda::KernelNode;
using deepsim::tests::EmulatedKernel;

// What a launch does; or why it may not.
static int node_of(const KernelNode& node, Node* found) {
  if (contexts <= 0) return kNoContext;
  const bool flat = node.block_y == 1 && node.block_z == 1;
  if (node.grid_x == 0 || node.grid_y == 0 || node.grid_z == 0 || node.grid_y > 65535 || node.grid_z > 65535 || !flat)
    return kInvalid;
  if (node.block_x > 1024 || node.context != nullptr || node.kernel != nullptr) return kInvalid;
  const auto* entry = static_cast<Entry*>(node.function);
  const EmulatedKernel* kernel = entry->kernel;
  const auto* argument = static_cast<const char*>(node.arguments[0]);
  const std::vector<char> own(argument, argument + kernel->argument_bytes);
  const Grid grid{static_cast<int>(node.grid_x), static_cast<int>(node.grid_y), static_cast<int>(node.grid_z)};
  found->name = entry->name;
  found->run = [=, threads = static_cast<int>(node.block_x), shared = node.shared_bytes](const std::function<void()>& earlier) {
    return run_kernel(*kernel, grid, threads, shared, own, earlier);
  };
  return kSuccess;
}

static std::uintptr_t number_of(const void* node) { return reinterpret_cast<std::uintptr_t>(node); }

extern "C" {

int cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned, unsigned shared,
                   void* stream, void** arguments, void**) {
  COUNTED(cuLaunchKernel);
  KernelNode kernel{function, x, y, z, threads};
  kernel.shared_bytes = shared;
  kernel.arguments = arguments;
  Node node;
  const int result = node_of(kernel, &node);
  if (result != kSuccess) return result;
  return enqueue(stream, [node] {
    note(node.name);
    return node.run({});
  });
}

int cuStreamCreate(void** stream, unsigned) {
  COUNTED(cuStreamCreate);
  *stream = make(Stream{});
  const std::lock_guard<std::recursive_mutex> lock(state().work);
  state().streams.insert(static_cast<Stream*>(*stream));
  return kSuccess;
}

int cuStreamDestroy_v2(void* stream) {
  UNSAFE;
  GIVES_BACK(cuStreamDestroy_v2);
  (void)drain_all();  // who waits for its events would look for it
  {
    const std::lock_guard<std::recursive_mutex> lock(state().work);
    state().streams.erase(static_cast<Stream*>(stream));
  }
  end(stream);
  return result;
}

int cuStreamSynchronize(void* stream) {
  UNSAFE;
  COUNTED(cuStreamSynchronize);
  return drain(known_stream(stream));
}

int cuStreamWaitEvent(void* stream, void* event, unsigned) {
  COUNTED(cuStreamWaitEvent);
  const Event point = *static_cast<Event*>(event);
  return enqueue(stream, [point] { return drain(point.stream, point.position); });
}

int cuStreamIsCapturing(void* stream, int* status) {
  COUNTED(cuStreamIsCapturing);
  const int found = capture_of(stream);
  if (found == kCaptureImplicit) return found;
  *status = found;
  return kSuccess;
}

int cuThreadExchangeStreamCaptureMode(int* mode) {
  COUNTED(cuThreadExchangeStreamCaptureMode);
  std::swap(*mode, capture_mode);
  return kSuccess;
}

int cuGraphCreate(void** graph, unsigned) {
  COUNTED(cuGraphCreate);
  *graph = new Recording;
  keep(*graph);
  return kSuccess;
}

// Every kernel comes after the one before, or after none until an edge is added; a node is its number.
int cuGraphAddKernelNode_v2(void** node, void* graph, void* const* after, std::size_t count, const KernelNode* kernel) {
  COUNTED(cuGraphAddKernelNode_v2);
  auto* recording = static_cast<Recording*>(graph);
  if (count > 1 || (count == 1 && number_of(after[0]) != recording->size())) return kInvalid;
  Node added;
  if (const int result = node_of(*kernel, &added)) return result;
  added.linked = count == 1;
  recording->push_back(added);
  *node = reinterpret_cast<void*>(recording->size());
  return kSuccess;
}

// An edge to the last kernel from the one before, with which it may start early; only for GPUs and kernels that can.
int cuGraphAddDependencies_v2(void* graph, void* const* from, void* const* to, const Edge* edge, std::size_t count) {
  COUNTED(cuGraphAddDependencies_v2);
  auto* recording = static_cast<Recording*>(graph);
  const bool last = count == 1 && number_of(*to) == recording->size() && number_of(*from) + 1 == number_of(*to);
  if (!last || recording->size() < 2 || recording->back().linked) return kInvalid;
  if (edge->from_port != 1 || edge->to_port != 0 || edge->type != 1 || compiled_for() < 90) return kInvalid;
  recording->back().linked = recording->back().early = true;
  return kSuccess;
}

int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
  UNSAFE;
  COUNTED(cuGraphInstantiateWithFlags);
  const auto& nodes = *static_cast<Recording*>(graph);
  for (const Node& node : nodes)
    if (!node.linked && &node != nodes.data()) return kInvalid;  // it would run at any time
  *executable = new Recording(nodes);
  keep(*executable);
  return kSuccess;
}

int cuGraphExecKernelNodeSetParams_v2(void* executable, void* node, const KernelNode* kernel) {
  COUNTED(cuGraphExecKernelNodeSetParams_v2);
  {
    const std::lock_guard<std::mutex> lock(state().mutex);
    if (state().graphs.count(executable) == 0) return kInvalid;
  }
  auto* recording = static_cast<Recording*>(executable);
  const std::uintptr_t number = number_of(node);
  if (number == 0 || number > recording->size()) return kInvalid;
  return node_of(*kernel, &(*recording)[number - 1]);
}

int cuGraphLaunch(void* executable, void* stream) {
  COUNTED(cuGraphLaunch);
  {
    const std::lock_guard<std::mutex> lock(state().mutex);
    if (state().graphs.count(executable) == 0) return kInvalid;
  }
  return enqueue(stream, [nodes = *static_cast<Recording*>(executable)] {
    for (const Node& node : nodes) note(node.name);
    return run_nodes(nodes, 0, nodes.size());
  });
}

int cuGraphExecDestroy(void* executable) {
  UNSAFE;
  GIVES_BACK(cuGraphExecDestroy);
  return destroy(executable) == kSuccess ? result : kInvalid;
}

int cuGraphDestroy(void* graph) {
  GIVES_BACK(cuGraphDestroy);
  return destroy(graph) == kSuccess ? result : kInvalid;
}

int cuEventCreate(void** event, unsigned) {
  COUNTED(cuEventCreate);
  *event = make(Event{});
  return kSuccess;
}

int cuEventRecord(void* event, void* stream) {
  COUNTED(cuEventRecord);
  const std::lock_guard<std::recursive_mutex> lock(state().work);
  Stream* const known = known_stream(stream);
  *static_cast<Event*>(event) = {known, known == nullptr ? 0 : known->queued};
  return kSuccess;
}

int cuEventSynchronize(void* event) {
  UNSAFE;
  COUNTED(cuEventSynchronize);
  const Event point = *static_cast<Event*>(event);
  return drain(point.stream, point.position);
}

int cuEventDestroy_v2(void* event) {
  UNSAFE;
  GIVES_BACK(cuEventDestroy_v2);
  end(event);
  return result;
}

}  // extern "C"
