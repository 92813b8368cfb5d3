#include "resources.h"

#include <string>
#include <utility>

#include "../error.h"

namespace deepsim::runtime::detail::cuda {

StreamOwner::StreamOwner(std::shared_ptr<const Gpu> gpu) : gpu_(std::move(gpu)) {
  const Gpu::Current current(*gpu_);
  check(Driver::get().stream_create(&stream_, kNonBlocking), "create a stream");
}

StreamOwner::~StreamOwner() {
  gpu_->quietly([&](const Driver& driver) { (void)driver.stream_destroy(stream_); });
}

void StreamOwner::wait() const { check(Driver::get().stream_synchronize(stream_), "compute"); }

EventOwner::EventOwner(std::shared_ptr<const Gpu> gpu) : gpu_(std::move(gpu)) {
  const Gpu::Current current(*gpu_);
  check(Driver::get().event_create(&event_, kNoTiming), "create an event");
}

EventOwner::~EventOwner() {
  gpu_->quietly([&](const Driver& driver) { (void)driver.event_destroy(event_); });
}

void EventOwner::record(Stream stream) const { check(Driver::get().event_record(event_, stream), "mark a point of a stream"); }

void EventOwner::hold(Stream stream) const { check(Driver::get().stream_wait(stream, event_, 0), "let a stream wait"); }

void EventOwner::wait() const { check(Driver::get().event_synchronize(event_), "compute"); }

PinnedMemory::PinnedMemory(std::shared_ptr<const Gpu> gpu, std::size_t bytes) : gpu_(std::move(gpu)) {
  const std::string what = "pin " + std::to_string(bytes) + " bytes of the host's memory";
  const Result taken = Driver::get().pinned_take(&memory_, bytes);
  if (taken == kOutOfMemory) {
    throw Failure(ErrorKind::out_of_memory, "cuda: could not " + what + ". Use a smaller max_batch, or free memory.");
  }
  check(taken, what);
}

PinnedMemory::~PinnedMemory() {
  if (memory_ == nullptr) return;
  gpu_->quietly([&](const Driver& driver) { (void)driver.pinned_free(memory_); });
}

PinnedMemory::PinnedMemory(PinnedMemory&& other) noexcept
    : gpu_(std::move(other.gpu_)), memory_(std::exchange(other.memory_, nullptr)) {}

PinnedMemory& PinnedMemory::operator=(PinnedMemory&& other) noexcept {
  std::swap(gpu_, other.gpu_);
  std::swap(memory_, other.memory_);
  return *this;
}

ResultMemory::~ResultMemory() {
  if (pool_ == nullptr) return;
  gpu_->quietly([&](const Driver& driver) {
    for (const Freed& each : freed_) (void)driver.pool_free(each.memory, each.stream);
    (void)driver.pool_destroy(pool_);
  });
}

Address ResultMemory::take(std::size_t bytes, Stream stream) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (pool_ == nullptr) create();
    give_back();
  }
  Address memory = 0;
  check(Driver::get().pool_take(&memory, bytes, pool_, stream), "take " + std::to_string(bytes) + " bytes of GPU memory");
  return memory;
}

void ResultMemory::create() {
  PoolProperties properties;
  properties.ordinal = gpu_->ordinal();
  MemoryPool pool = nullptr;
  check(Driver::get().pool_create(&pool, &properties), "make a memory pool");
  const Result set = Driver::get().pool_set(pool, kReleaseThreshold, &kept_);
  if (set != 0) (void)Driver::get().pool_destroy(pool);
  check(set, "set up a memory pool");
  pool_ = pool;
}

void ResultMemory::free(Address memory, Stream stream) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (captured(stream)) {
    freed_.push_back({memory, stream});
    return;
  }
  give_back();
  check(Driver::get().pool_free(memory, stream), "give GPU memory back");
}

void ResultMemory::give_back() {
  for (const Freed& each : std::exchange(freed_, {})) {  // one that fails is given up, with the pool it goes
    if (captured(each.stream)) {
      freed_.push_back(each);
    } else {
      check(Driver::get().pool_free(each.memory, each.stream), "give GPU memory back");
    }
  }
}

}  // namespace deepsim::runtime::detail::cuda
