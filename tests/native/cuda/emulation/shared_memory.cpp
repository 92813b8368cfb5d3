#include "shared_memory.h"

#include <algorithm>

namespace deepsim::cuda::emulation {

namespace {

constexpr std::size_t alignment_of_shared_memory = 128, guard_bytes = 128;
constexpr unsigned char nan_byte = 0xff, guard_byte = 0xa5;

std::string thread_name(int thread) { return "thread " + std::to_string(thread); }

}  // namespace

void SharedMemory::start_block(std::size_t bytes, std::uint32_t interval) {
  const std::size_t wanted = bytes + guard_bytes + alignment_of_shared_memory;
  if (storage_.size() < wanted) storage_.resize(wanted);
  const auto address = reinterpret_cast<std::uintptr_t>(storage_.data());
  data_ = storage_.data() + (alignment_of_shared_memory - address % alignment_of_shared_memory);
  bytes_ = bytes;
  first_interval_ = interval;
  std::fill_n(data_, bytes, nan_byte);
  std::fill_n(data_ + bytes, guard_bytes, guard_byte);
  if (writes_.size() < bytes) writes_.resize(bytes);
  if (reads_.size() < bytes) reads_.resize(bytes);
}

void SharedMemory::end_block() const {
  for (std::size_t i = bytes_; i < bytes_ + guard_bytes; ++i) {
    if (data_[i] != guard_byte) violate(Rule::outside, -1, i, "written, beyond the shared memory's end. Ask for more.");
  }
}

std::size_t SharedMemory::offset_of(const void* address, std::size_t bytes, std::size_t alignment, const Actor& actor) const {
  const std::size_t offset = reinterpret_cast<std::uintptr_t>(address) - reinterpret_cast<std::uintptr_t>(data_);
  if (offset > bytes_ || bytes > bytes_ - offset) {
    violate(Rule::outside, actor.thread, offset,
            "used " + std::to_string(bytes) + " bytes, of " + std::to_string(bytes_) + " in all. Ask for more.");
  }
  if (offset % alignment != 0) {
    violate(Rule::misaligned, actor.thread, offset, "expected a multiple of " + std::to_string(alignment) + ".");
  }
  return offset;
}

// What a thread stored, the lanes of its warp see after a collective. What it copied, others see after a barrier only.
bool SharedMemory::comes_after(const Actor& actor, const Write& write) const {
  if (write.interval < actor.interval) return true;
  if (write.thread == actor.thread && !actor.whole_warp) return true;
  return write.state == State::stored && write.thread / 32 == actor.warp() && write.phase < actor.phase;
}

bool SharedMemory::comes_after(const Actor& actor, const Read& read) const {
  if (read.interval != actor.interval) return true;
  if (read.warp != actor.warp()) return false;
  return read.phase < actor.phase || read.thread == actor.thread;
}

void SharedMemory::note(Read& read, const Actor& actor) const {
  const auto warp = static_cast<std::int16_t>(actor.warp());
  const auto thread = static_cast<std::int16_t>(actor.thread);
  if (read.interval != actor.interval) {
    read = {actor.interval, actor.phase, warp, thread};
  } else if (read.warp != warp) {
    read.warp = Read::several;
  } else if (read.phase != actor.phase) {
    read.phase = actor.phase;
    read.thread = thread;
  } else if (read.thread != thread) {
    read.thread = Read::several;
  }
}

void SharedMemory::read(std::size_t offset, std::size_t bytes, const Actor& actor) {
  for (std::size_t i = offset; i < offset + bytes; ++i) {
    const Write& write = writes_[i];
    if (!is_written(write)) {
      violate(Rule::unwritten, actor.thread, i, "read, but never written. Write it first.");
    }
    if (write.state == State::claimed) check_unclaimed(i, actor, "read");
    if (write.state == State::in_flight) {
      violate(Rule::in_flight, actor.thread, i,
              "read while a copy of " + thread_name(write.thread) + " to it is under way. Wait for it there, then sync_block.");
    }
    if (!comes_after(actor, write)) {
      const char* did = write.state == State::copied ? " copied" : " stored";
      violate(Rule::unsynchronised_read, actor.thread, i,
              "read what " + thread_name(write.thread) + did + " since the last barrier. Put a sync_block between.");
    }
    note(reads_[i], actor);
  }
}

void SharedMemory::check_unclaimed(std::size_t i, const Actor& actor, const char* does) const {
  if (!is_written(writes_[i]) || writes_[i].state != State::claimed) return;
  violate(Rule::other_proxy, actor.thread, i, does + std::string(", but bulk copies or a barrier use it. Use other memory."));
}

void SharedMemory::claim(std::size_t offset, std::size_t bytes, const Actor& actor) {
  for (std::size_t i = offset; i < offset + bytes; ++i) {
    if (!is_written(writes_[i]) || writes_[i].state == State::claimed) continue;
    violate(Rule::other_proxy, actor.thread, i,
            "given to a bulk copy or a barrier, but a thread has written it. Use other memory.");
  }
  mark(offset, bytes, actor, State::claimed);
}

void SharedMemory::check_free(std::size_t i, const Actor& actor, const char* does) const {
  check_unclaimed(i, actor, does);
  const Write& write = writes_[i];
  if (is_written(write) && write.state == State::in_flight) {
    violate(Rule::in_flight, actor.thread, i,
            does + (" while a copy of " + thread_name(write.thread)) + " to it is under way. Wait for it there first.");
  }
  if (!comes_after(actor, write)) {
    violate(Rule::two_writers, actor.thread, i,
            does + (" over what " + thread_name(write.thread)) + " wrote since the last barrier. Put a sync_block between.");
  }
  const Read& read = reads_[i];
  if (!comes_after(actor, read)) {
    const std::string reader = read.warp == Read::several     ? "several warps"
                               : read.thread == Read::several ? "lanes of warp " + std::to_string(read.warp)
                                                              : thread_name(read.thread);
    violate(Rule::overwritten_read, actor.thread, i,
            does + (" over what " + reader) + " read since the last barrier. Put a sync_block between.");
  }
}

void SharedMemory::mark(std::size_t offset, std::size_t bytes, const Actor& actor, State state) {
  const Write write{actor.interval, actor.phase, static_cast<std::int16_t>(actor.thread), state};
  std::fill_n(writes_.begin() + static_cast<std::ptrdiff_t>(offset), bytes, write);
}

void SharedMemory::write(std::size_t offset, std::size_t bytes, const Actor& actor) {
  for (std::size_t i = offset; i < offset + bytes; ++i) check_free(i, actor, "stored");
  mark(offset, bytes, actor, State::stored);
}

void SharedMemory::start_copy(std::size_t offset, std::size_t bytes, const Actor& actor) {
  for (std::size_t i = offset; i < offset + bytes; ++i) check_free(i, actor, "copied");
  mark(offset, bytes, actor, State::in_flight);
}

void SharedMemory::finish_copy(std::size_t offset, std::size_t bytes, const Actor& actor) {
  mark(offset, bytes, actor, State::copied);
}

}  // namespace deepsim::cuda::emulation
