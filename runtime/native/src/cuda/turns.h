// Whose turn it is. All calls of a session use the same activations and graphs: one comes after the other, on the host while
// it is queued and on the GPU too, whatever streams they are on.
#pragma once

#include <memory>
#include <mutex>
#include <utility>

#include "resources.h"

namespace deepsim::runtime::detail::cuda {

class Turns {
 public:
  explicit Turns(std::shared_ptr<const Gpu> gpu) : last_(std::move(gpu)) {}

  // Wait, in a destructor, for what calls have queued; the context must be current.
  void wait_quietly() const { (void)Driver::get().event_synchronize(last_.get()); }

 private:
  friend class Turn;
  std::mutex mutex_;
  EventOwner last_;  // is reached when the last call's work is done
};

// What is queued on the stream while this lives comes after the work of all calls before.
class Turn {
 public:
  Turn(Turns* turns, Stream stream) : lock_(turns->mutex_), last_(turns->last_), stream_(stream) { last_.hold(stream_); }
  // Unless all was queued, nothing of it is under way afterwards.
  ~Turn() {
    if (!ended_) (void)Driver::get().stream_synchronize(stream_);
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

  void end() {
    last_.record(stream_);
    ended_ = true;
  }

 private:
  const std::lock_guard<std::mutex> lock_;
  const EventOwner& last_;
  Stream stream_;
  bool ended_ = false;
};

}  // namespace deepsim::runtime::detail::cuda
