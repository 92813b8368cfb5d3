// What a call starts again and again, recorded as CUDA graphs.
#pragma once

#include <map>
#include <memory>
#include <tuple>
#include <utility>

#include "gpu.h"

namespace deepsim::runtime::detail::cuda {

enum class Work { encode, decode_whole, decode_crop, reencode };

// The first time a key's work is started as it is, the second time it is recorded as a graph, and from then on replayed with
// a single launch.
class Graphs {
 public:
  using Key = std::tuple<Work, int, int, int>;  // images, slot whose memory it uses, iterations

  explicit Graphs(std::shared_ptr<const Gpu> gpu) : gpu_(std::move(gpu)) {}
  ~Graphs();
  Graphs(const Graphs&) = delete;
  Graphs& operator=(const Graphs&) = delete;

  // Run `record()`, which starts kernels on the stream, or what it started the last time. The context must be current;
  // one call at a time.
  template <class Record>
  void run(const Key& key, Stream stream, const Record& record) {
    const auto found = graphs_.find(key);
    if (found == graphs_.end()) {
      record();
      remember(key);
      return;
    }
    GraphExecutable& graph = found->second.first;
    found->second.second = ++uses_;
    if (graph == nullptr) graph = recorded(stream, record);
    check(Driver::get().graph_launch(graph, stream), "launch a graph");
  }

 private:
  template <class Record>
  GraphExecutable recorded(Stream stream, const Record& record) {
    const Recording recording(stream);
    record();
    return prepared(recording.graph());
  }

  static GraphExecutable prepared(Graph graph);
  void remember(const Key& key);  // and forget the one that was used longest ago, when there are many

  std::shared_ptr<const Gpu> gpu_;
  std::map<Key, std::pair<GraphExecutable, long>> graphs_;  // null after one use; with the number of the last use
  long uses_ = 0;
};

}  // namespace deepsim::runtime::detail::cuda
