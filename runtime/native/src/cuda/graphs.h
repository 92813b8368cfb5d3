// What a call starts again and again, recorded as CUDA graphs.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "../error.h"
#include "gpu.h"

namespace deepsim::runtime::detail::cuda {

// A kernel of a graph whose argument points into what the call reads or writes.
struct EndNode {
  GraphNode node = nullptr;
  KernelNode kernel;  // without its arguments
  std::vector<unsigned char> argument;
  EndOffset end;
  Address distance = 0;       // from the beginning of what is read or written
};

// A graph of kernels, each after the one before; on GPUs that can, each starts while that one is still at work, and waits in
// the kernel for its end. While it lives, what this thread launches on the stream is added to it instead of being started. (A
// stream that captures would do the same, but breaks whatever waits for the whole GPU in the meantime, in any thread, and is
// broken by it.)
class Recording {
 public:
  Recording(std::shared_ptr<const Gpu> gpu, Stream stream, const Ends& ends);
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  // That of this thread, where it is for this stream; else null.
  static Recording* on(Stream stream);
  void add(const KernelNode& kernel, std::vector<unsigned char> argument, EndOffset end, const std::string& what);

 private:
  friend class Replay;
  std::shared_ptr<const Gpu> gpu_;
  Stream stream_;
  Ends ends_;
  Graph graph_ = nullptr;
  GraphNode last_ = nullptr;
  std::vector<EndNode> end_nodes_;
};

// A recorded graph, ready to be launched.
class Replay {
 public:
  explicit Replay(Recording* recording);  // which is empty afterwards
  ~Replay();
  Replay(const Replay&) = delete;
  Replay& operator=(const Replay&) = delete;

  // With what it reads and writes where the call has it. One call at a time.
  void launch(Stream stream, const Ends& ends);

 private:
  std::shared_ptr<const Gpu> gpu_;
  Graph graph_;
  GraphExecutable executable_ = nullptr;
  std::vector<EndNode> end_nodes_;
  Ends ends_;  // those that the graph's kernels have
};

enum class Work { encode, decode_whole, decode_crop, decode_raw_whole, decode_raw_crop, reencode };

// The first time a key's work is started as it is, the second time it is recorded as a graph, and from then on replayed with
// a single launch.
class Graphs {
 public:
  using Key = std::tuple<Work, int, int>;  // images, iterations

  explicit Graphs(std::shared_ptr<const Gpu> gpu) : gpu_(std::move(gpu)) {}

  // Run `record()`, which starts kernels on the stream, or what it started the last time, then between other ends. The
  // context must be current; one call at a time.
  template <class Record>
  void run(const Key& key, const Ends& ends, Stream stream, const Record& record) {
    const auto found = graphs_.find(key);
    if (found == graphs_.end()) {
      record();
      remember(key);
      return;
    }
    std::unique_ptr<Replay>& replay = found->second.first;
    found->second.second = ++uses_;
    if (replay == nullptr) replay = recorded(ends, stream, record);
    if (replay == nullptr) return record();
    replay->launch(stream, ends);
  }

 private:
  // Null where the GPU has no memory for it; then the others are let go, for what needs it more.
  template <class Record>
  std::unique_ptr<Replay> recorded(const Ends& ends, Stream stream, const Record& record) {
    try {
      Recording recording(gpu_, stream, ends);
      record();
      return std::make_unique<Replay>(&recording);
    } catch (const Failure& failure) {
      if (failure.kind() != ErrorKind::out_of_memory) throw;
      for (auto& [key, known] : graphs_) known.first.reset();
      return nullptr;
    }
  }
  void remember(const Key& key);  // and forget the one that was used longest ago, when there are many

  std::shared_ptr<const Gpu> gpu_;
  std::map<Key, std::pair<std::unique_ptr<Replay>, long>> graphs_;  // null after one use; with the number of the last use
  long uses_ = 0;
};

}  // namespace deepsim::runtime::detail::cuda
