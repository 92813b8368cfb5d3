#include "graphs.h"

#include <algorithm>
#include <cstring>

namespace deepsim::runtime::detail::cuda {

namespace {

constexpr std::size_t kKept = 32;
const char* const kAvoided = ", which DEEPSIM_CUDA_OVERLAP=0 avoids";

thread_local Recording* recording = nullptr;

void destroy(const Gpu& gpu, Graph graph) {
  gpu.quietly([&](const Driver& driver) { (void)driver.graph_destroy(graph); });
}

}  // namespace

Recording::Recording(std::shared_ptr<const Gpu> gpu, Stream stream, const Ends& ends)
    : gpu_(std::move(gpu)), stream_(stream), ends_(ends) {
  check(Driver::get().graph_create(&graph_, 0), "make a graph");
  recording = this;
}

Recording::~Recording() {
  recording = nullptr;
  if (graph_ != nullptr) destroy(*gpu_, graph_);
}

Recording* Recording::on(Stream stream) { return recording != nullptr && recording->stream_ == stream ? recording : nullptr; }

void Recording::add(const KernelNode& kernel, std::vector<unsigned char> argument, EndOffset end, const std::string& what) {
  const Driver& driver = Driver::get();
  const bool early = last_ != nullptr && gpu_->starts_early();
  GraphNode node = nullptr;
  check(driver.graph_add_kernel(&node, graph_, &last_, last_ == nullptr || early ? 0 : 1, &kernel), what);
  if (early) check(driver.graph_add_edges(graph_, &last_, &node, &kEarly, 1), what + " early" + kAvoided);
  last_ = node;
  if (end.end == nullptr) return;
  Address address = 0;
  std::memcpy(&address, argument.data() + end.offset, sizeof address);
  end_nodes_.push_back({node, kernel, std::move(argument), end, address - ends_.*end.end});
}

Replay::Replay(Recording* recorded)
    : gpu_(recorded->gpu_),
      graph_(std::exchange(recorded->graph_, nullptr)),
      end_nodes_(std::move(recorded->end_nodes_)),
      ends_(recorded->ends_) {
  const Result prepared = Driver::get().graph_instantiate(&executable_, graph_, 0);
  if (prepared != 0) destroy(*gpu_, graph_);
  const std::string what = "prepare a graph";
  check(prepared, gpu_->starts_early() ? what + " of kernels that start early" + kAvoided : what);
}

Replay::~Replay() {
  gpu_->quietly([&](const Driver& driver) { (void)driver.graph_executable_destroy(executable_); });
  destroy(*gpu_, graph_);
}

void Replay::launch(Stream stream, const Ends& ends) {
  const Driver& driver = Driver::get();
  for (EndNode& node : end_nodes_) {
    if (ends.*node.end.end == ends_.*node.end.end) continue;
    const Address address = ends.*node.end.end + node.distance;
    std::memcpy(node.argument.data() + node.end.offset, &address, sizeof address);
    void* arguments[] = {node.argument.data()};
    node.kernel.arguments = arguments;
    const Result set = driver.graph_set_kernel(executable_, node.node, &node.kernel);
    node.kernel.arguments = nullptr;
    if (set != 0) ends_ = {};  // some have these, some those
    check(set, "move a graph to other memory");
  }
  ends_ = ends;
  check(driver.graph_launch(executable_, stream), "launch a graph");
}

void Graphs::remember(const Key& key) {
  graphs_[key] = {nullptr, ++uses_};
  if (graphs_.size() <= kKept) return;
  graphs_.erase(std::min_element(graphs_.begin(), graphs_.end(),
                                 [](const auto& a, const auto& b) { return a.second.second < b.second.second; }));
}

}  // namespace deepsim::runtime::detail::cuda
