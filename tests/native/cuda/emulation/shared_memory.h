// A block's shared memory with, for each byte, its last writer and its readers since the last barrier.
#pragma once

#include <cstdint>
#include <vector>

#include "device.h"

namespace deepsim::cuda::emulation {

// Who uses memory, and when: intervals lie between barriers, phases between collectives of a warp.
struct Actor {
  int thread;
  bool whole_warp;  // on behalf of all lanes, as a collective does
  std::uint32_t interval, phase;
  int warp() const { return thread / 32; }
};

class SharedMemory {
 public:
  // Forget all, fill with NaNs. interval: of the block's first Actor, larger than any before.
  void start_block(std::size_t bytes, std::uint32_t interval);
  // Nothing was written around the checks beyond the end.
  void end_block() const;

  unsigned char* data() { return data_; }
  std::size_t offset_of(const void* address, std::size_t bytes, std::size_t alignment, const Actor& actor) const;
  void read(std::size_t offset, std::size_t bytes, const Actor& actor);
  void write(std::size_t offset, std::size_t bytes, const Actor& actor);
  void start_copy(std::size_t offset, std::size_t bytes, const Actor& actor);
  void finish_copy(std::size_t offset, std::size_t bytes, const Actor& actor);
  // From here on barriers, bulk copies and warpgroups use these bytes: not threads, and no thread has.
  void claim(std::size_t offset, std::size_t bytes, const Actor& actor);

 private:
  enum class State : std::uint8_t { stored, copied, in_flight, claimed };

  struct Write {
    std::uint32_t interval = 0, phase = 0;
    std::int16_t thread = 0;
    State state = State::stored;
  };

  // All readers in one interval, of which only those of the last phase can meet a later write of their own warp.
  struct Read {
    static constexpr std::int16_t several = -1;
    std::uint32_t interval = 0, phase = 0;
    std::int16_t warp = 0, thread = 0;
  };

  bool is_written(const Write& write) const { return write.interval >= first_interval_; }
  bool comes_after(const Actor& actor, const Write& write) const;
  bool comes_after(const Actor& actor, const Read& read) const;
  void note(Read& read, const Actor& actor) const;
  void check_unclaimed(std::size_t offset, const Actor& actor, const char* does) const;
  void check_free(std::size_t offset, const Actor& actor, const char* does) const;
  void mark(std::size_t offset, std::size_t bytes, const Actor& actor, State state);

  std::vector<unsigned char> storage_;
  unsigned char* data_ = nullptr;
  std::size_t bytes_ = 0;
  std::uint32_t first_interval_ = 1;
  std::vector<Write> writes_;
  std::vector<Read> reads_;
};

// Throw a Violation of the running block.
[[noreturn]] void violate(Rule rule, int thread, std::size_t offset, const std::string& text);

}  // namespace deepsim::cuda::emulation
