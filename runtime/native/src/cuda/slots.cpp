#include "slots.h"

#include <algorithm>
#include <cstring>

namespace deepsim::runtime::detail::cuda {

Slot::Slot(const std::shared_ptr<const Gpu>& gpu, int number, const SlotSizes& sizes, Stream compute)
    : index(number),
      images(gpu, sizes.images, compute),
      features(gpu, sizes.features, compute),
      kept(gpu, sizes.kept, compute),
      copies(gpu),
      uploaded(gpu),
      computed(gpu),
      downloaded(gpu),
      gpu_(gpu),
      sizes_(sizes) {}

char* Slot::stage() {
  if (staging_.get() == nullptr) staging_ = PinnedMemory(gpu_, std::max(sizes_.staging(), levels.bytes()));
  return staging_.get();
}

void Slot::take_levels(Stream compute) {
  if (levels.bytes() > 0) return;
  levels = DeviceMemory(gpu_, sizes_.levels, compute);
  staging_ = PinnedMemory();
}

Slots::Slots(const std::shared_ptr<const Gpu>& gpu, const SlotSizes& sizes, Stream compute) {
  for (int index = 0; index < kSlots; ++index) {
    slots_.push_back(std::make_unique<Slot>(gpu, index, sizes, compute));
    free_.push_back(slots_.back().get());
  }
}

Slots::Lease Slots::take() {
  std::unique_lock<std::mutex> lock(mutex_);
  given_back_.wait(lock, [&] { return !free_.empty(); });
  return lease();
}

Slots::Lease Slots::try_take() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return free_.empty() ? Lease() : lease();
}

Slots::Lease Slots::lease() {
  Slot* const slot = free_.back();
  free_.pop_back();
  return {this, slot};
}

void Slots::give_back(Slot* slot) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back(slot);
  }
  given_back_.notify_one();
}

void Flight::start() {
  const Driver& driver = Driver::get();
  const Stream copies = slot_->copies.get();
  if (call_.result == &Slot::levels) slot_->take_levels(compute_);
  char* const stage = slot_->stage();
  const std::size_t in_bytes = count_ * call_.in_bytes, out_bytes = count_ * call_.out_bytes;
  std::memcpy(stage, call_.in + first_ * call_.in_bytes, in_bytes);
  slot_->computed.hold(copies);  // a call on memory of the GPU may have left work behind
  check(driver.copy_to_device(((*slot_).*call_.source).address(), stage, in_bytes, copies), "copy to the GPU");
  slot_->uploaded.record(copies);
  for (std::size_t number = 0; number < call_.results; ++number) {
    {
      Turn turn(turns_, compute_);
      if (number == 0) slot_->uploaded.hold(compute_);
      call_.compute(*slot_, static_cast<int>(count_), number);
      slot_->computed.record(compute_);
      turn.end();
    }
    if (number > 0) deliver(number - 1);
    slot_->computed.hold(copies);
    check(driver.copy_to_host(stage, ((*slot_).*call_.result).address(), out_bytes, copies), "copy from the GPU");
    slot_->downloaded.record(copies);
  }
}

Slots::Lease Flight::finish() {
  deliver(call_.results - 1);
  return std::move(slot_);
}

void Flight::deliver(std::size_t number) {
  slot_->downloaded.wait();
  const char* from = slot_->stage();
  for (std::size_t image = 0; image < count_; ++image, from += call_.out_bytes)
    std::memcpy(call_.out + ((first_ + image) * call_.results + number) * call_.out_bytes, from, call_.out_bytes);
}

Flight::~Flight() {
  if (!slot_) return;
  const Driver& driver = Driver::get();  // the context is current: a flight lives within a call
  (void)driver.stream_synchronize(slot_->copies.get());
  (void)driver.stream_synchronize(compute_);
}

}  // namespace deepsim::runtime::detail::cuda
