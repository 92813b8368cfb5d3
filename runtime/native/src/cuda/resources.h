// Streams, events and pinned memory of a GPU, given back with their owners. Everything raises as Gpu; unless said otherwise
// the context must be current.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "gpu.h"

namespace deepsim::runtime::detail::cuda {

class StreamOwner {
 public:
  explicit StreamOwner(std::shared_ptr<const Gpu> gpu);  // makes the context current itself
  ~StreamOwner();
  StreamOwner(const StreamOwner&) = delete;
  StreamOwner& operator=(const StreamOwner&) = delete;

  Stream get() const { return stream_; }
  void wait() const;  // until all of its work is done

 private:
  std::shared_ptr<const Gpu> gpu_;
  Stream stream_ = nullptr;
};

// A point in the work of a stream. One that was never recorded lies before all work.
class EventOwner {
 public:
  explicit EventOwner(std::shared_ptr<const Gpu> gpu);  // makes the context current itself
  ~EventOwner();
  EventOwner(const EventOwner&) = delete;
  EventOwner& operator=(const EventOwner&) = delete;

  void record(Stream stream) const;  // after what the stream holds now
  void hold(Stream stream) const;    // what the stream is given from now on begins after the point
  void wait() const;                 // this thread
  Event get() const { return event_; }

 private:
  std::shared_ptr<const Gpu> gpu_;
  Event event_ = nullptr;
};

// Memory of the host that the GPU copies from and to by itself, while the host does something else.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  PinnedMemory(std::shared_ptr<const Gpu> gpu, std::size_t bytes);  // Raises OutOfMemory
  ~PinnedMemory();
  PinnedMemory(PinnedMemory&& other) noexcept;
  PinnedMemory& operator=(PinnedMemory&& other) noexcept;

  char* get() const { return static_cast<char*>(memory_); }

 private:
  std::shared_ptr<const Gpu> gpu_;
  void* memory_ = nullptr;
};

// Memory of the GPU for results, taken and freed in the order of streams. It keeps up to `kept` bytes that are free for the
// next results, where the driver's own pool would give them back to the system at every wait.
class ResultMemory {
 public:
  ResultMemory(std::shared_ptr<const Gpu> gpu, std::size_t kept) : gpu_(std::move(gpu)), kept_(kept) {}
  ~ResultMemory();
  ResultMemory(const ResultMemory&) = delete;
  ResultMemory& operator=(const ResultMemory&) = delete;

  Address take(std::size_t bytes, Stream stream);  // Raises OutOfMemory
  // While the stream is captured into a graph, its memory cannot be freed: that is made up for at a later call.
  void free(Address memory, Stream stream);

 private:
  struct Freed {
    Address memory = 0;
    Stream stream = nullptr;
  };
  void create();
  void give_back();  // what was freed and can be by now; the mutex is held

  std::shared_ptr<const Gpu> gpu_;
  std::uint64_t kept_;
  std::mutex mutex_;
  std::vector<Freed> freed_;
  MemoryPool pool_ = nullptr;  // made when it is first asked for: not every GPU has such pools
};

}  // namespace deepsim::runtime::detail::cuda
