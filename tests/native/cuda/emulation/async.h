// Barriers in shared memory and the copies that report to them, as late as they may come; and for each thread what it
// knows to be over, by which every use of the copied bytes is judged. See hopper.h for the rules.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "shared_memory.h"

namespace deepsim::cuda::emulation {

// What a thread can count on: the first so many multiplications of each warp are over; so many phases of each barrier
// are complete, one more than that, since 0 is for one that it cannot know to exist.
struct Knowledge {
  static constexpr int most_warps = 32, most_barriers = 64;
  std::array<std::uint32_t, most_warps> multiplies{};
  std::array<std::uint32_t, most_barriers> phases{};

  void add(const Knowledge& other);
  void keep_common(const Knowledge& other);
};

class Async {
 public:
  void start_block(SharedMemory* memory, int threads, std::size_t shared_bytes);
  // No copy is under way.
  void end_block() const;
  // All threads have met: each knows what any of them knew.
  void meet_all();

  // By a thread. The two that return a bool tell whether a phase has become complete.
  void init(const void* barrier, int arrivals, const Actor& actor);
  void publish(const Actor& actor);
  bool arrive(const void* barrier, int bytes, const Actor& actor);
  void start_copy(void* shared, const void* global, int bytes, const void* barrier, const Actor& actor);
  // The copies of a phase that waits for nothing else have to come now.
  bool finish_copies(const void* barrier, const Actor& actor);
  // Whether the phase of this parity is complete; then the thread knows what those who arrived knew.
  bool try_wait(const void* barrier, unsigned parity, const Actor& actor);
  [[noreturn]] void report_deadlock(const void* barrier, unsigned parity, int thread, const std::string& census) const;

  // For the multiplications of warps. Reading 16 bytes: what all lanes know, and which of the warp's multiplications reads,
  // counted from 1.
  Knowledge common_knowledge(int first_thread, int count) const;
  void read(std::size_t offset, int warp, std::uint32_t number, const Knowledge& known, const Actor& actor);
  void learn_multiplies(int thread, std::uint32_t count);
  SharedMemory& memory() { return *memory_; }
  const unsigned char* data() const { return memory_->data(); }

 private:
  struct Copy {
    std::size_t to;
    const void* from;
    std::size_t bytes;
  };
  struct Phases {
    std::size_t offset;
    int arrivals, pending;       // of each phase; of this one, still to come
    std::int64_t bytes = 0;      // expected, still to come
    std::uint32_t complete = 0;  // phases
    int maker;
    bool published = false;
    Knowledge incoming, known;   // of those who arrived in any phase; in a complete one
    std::vector<Copy> copies;    // under way
  };
  struct Piece {  // 16 bytes
    int barrier = -1;         // of the last copy to it
    std::uint32_t phase = 0;  // Knowledge::phases of one who may use it
    bool copied = false;
    std::array<std::uint32_t, Knowledge::most_warps> readers{};  // of each warp, the last multiplication that reads it
  };

  int index_of(const void* barrier, const Actor& actor) const;
  Knowledge& known_by(const Actor& actor) { return known_[static_cast<std::size_t>(actor.thread)]; }
  bool complete_if_due(int index);
  void check_destination(std::size_t offset, std::size_t bytes, const Actor& actor);

  SharedMemory* memory_ = nullptr;
  std::vector<Knowledge> known_;  // by thread
  std::vector<Phases> barriers_;
  std::vector<Piece> pieces_;
};

}  // namespace deepsim::cuda::emulation
