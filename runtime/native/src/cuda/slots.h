// The memory that calls in progress have for themselves. There are two slots: while the GPU computes for one call, or one
// chunk of a call, the next one's input and the last one's results are copied.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "resources.h"
#include "turns.h"

namespace deepsim::runtime::detail::cuda {

// Bytes that a slot has: of images (photographs, or what was made of them), of features, on the host, and of raw images, for
// which there is memory only once a call has wanted some.
struct SlotSizes {
  std::size_t images = 0, features = 0, kept = 0, levels = 0;
  std::size_t staging() const { return images > features ? images : features; }
  std::size_t device() const { return images + features + kept; }
};

struct Slot {
  Slot(const std::shared_ptr<const Gpu>& gpu, int index, const SlotSizes& sizes, Stream compute);
  char* stage();  // pinned memory, taken when it is first asked for
  void take_levels(Stream compute);  // and pinned memory for as much, where a call wants them for the first time

  const int index;
  DeviceMemory images, features, levels;
  DeviceMemory kept;  // an iteration's images, on their way to the host while the next iteration runs
  StreamOwner copies;
  EventOwner uploaded, computed, downloaded;

 private:
  std::shared_ptr<const Gpu> gpu_;
  SlotSizes sizes_;
  PinnedMemory staging_;
};

constexpr int kSlots = 2;

class Slots {
 public:
  Slots(const std::shared_ptr<const Gpu>& gpu, const SlotSizes& sizes, Stream compute);

  // A slot that is given back when this is gone.
  class Lease {
   public:
    Lease() = default;
    Lease(Slots* slots, Slot* slot) : slots_(slots), slot_(slot) {}
    Lease(Lease&& other) noexcept : slots_(other.slots_), slot_(std::exchange(other.slot_, nullptr)) {}
    Lease& operator=(Lease&& other) noexcept {
      std::swap(slots_, other.slots_);
      std::swap(slot_, other.slot_);
      return *this;
    }
    ~Lease() {
      if (slot_ != nullptr) slots_->give_back(slot_);
    }
    explicit operator bool() const { return slot_ != nullptr; }
    Slot& operator*() const { return *slot_; }
    Slot* operator->() const { return slot_; }

   private:
    Slots* slots_ = nullptr;
    Slot* slot_ = nullptr;
  };

  Lease take();      // waits for one; who holds one already must not
  Lease try_take();  // empty when both are taken

 private:
  Lease lease();  // of a free one; the mutex is held
  void give_back(Slot* slot);

  std::mutex mutex_;
  std::condition_variable given_back_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::vector<Slot*> free_;
};

// A call whose input and results are in memory of the host; sizes are those of one image.
struct HostCall {
  const char* in = nullptr;
  char* out = nullptr;  // (n, results, out_bytes)
  std::size_t in_bytes = 0, out_bytes = 0;
  std::size_t results = 1;
  DeviceMemory Slot::* source = nullptr;  // where a slot's input and results are
  DeviceMemory Slot::* result = nullptr;
  // Queue on the session's stream what makes result `number` of `images` images in the slot.
  std::function<void(Slot& slot, int images, std::size_t number)> compute{};
};

// Images [first, first + count) of a call, on their way through a slot: started, and finished when the slot is needed. What
// is left unfinished, after an error, is waited for.
class Flight {
 public:
  Flight(const HostCall& call, Slots::Lease slot, Stream compute, Turns* turns, std::size_t first, std::size_t count)
      : call_(call), slot_(std::move(slot)), compute_(compute), turns_(turns), first_(first), count_(count) {}
  ~Flight();
  Flight(const Flight&) = delete;
  Flight& operator=(const Flight&) = delete;

  void start();          // returns with the last result under way
  Slots::Lease finish();  // returns with it in the caller's memory, and the slot free for other images

 private:
  void deliver(std::size_t number);

  const HostCall& call_;
  Slots::Lease slot_;
  Stream compute_;
  Turns* turns_;
  std::size_t first_, count_;
};

}  // namespace deepsim::runtime::detail::cuda
