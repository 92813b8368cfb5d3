#include "graphs.h"

#include <algorithm>
#include <cstddef>

namespace deepsim::runtime::detail::cuda {

namespace {

constexpr std::size_t kKept = 32;

}  // namespace

Graphs::~Graphs() {
  gpu_->quietly([&](const Driver& driver) {
    for (const auto& [key, graph] : graphs_)
      if (graph.first != nullptr) (void)driver.graph_executable_destroy(graph.first);
  });
}

GraphExecutable Graphs::prepared(Graph graph) {
  GraphExecutable executable = nullptr;
  check(Driver::get().graph_instantiate(&executable, graph, 0), "prepare a graph");
  return executable;
}

void Graphs::remember(const Key& key) {
  graphs_[key] = {nullptr, ++uses_};
  if (graphs_.size() <= kKept) return;
  const auto oldest = std::min_element(graphs_.begin(), graphs_.end(), [](const auto& a, const auto& b) {
    return a.second.second < b.second.second;
  });
  const GraphExecutable graph = oldest->second.first;
  graphs_.erase(oldest);
  if (graph != nullptr) check(Driver::get().graph_executable_destroy(graph), "forget a graph");
}

}  // namespace deepsim::runtime::detail::cuda
