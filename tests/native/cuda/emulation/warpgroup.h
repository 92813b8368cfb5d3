// The multiplications of warpgroups: started by four warps with the same descriptors, done when they are waited for. Until
// then the registers of their sums hold NaNs. Stricter than the ISA: a warp knows of its own part alone, its 16 rows of the
// left operand with the whole right one; and every group of multiplications needs a fence before it.
#pragma once

#include <deque>
#include <vector>

#include "async.h"

namespace deepsim::cuda::emulation {

constexpr int warps_together = 4, rows_of_warp = 16, depth_of_multiply = 16;

// Values of 16 bits as fp32.
using Widen = void (*)(const std::uint16_t* from, int count, float* to);

// What all lanes of a warp bring to a multiplication.
struct Multiplication {
  std::uint64_t left, right;  // descriptors
  bool accumulate;
  int columns;
  Widen widen;
  float* sums;  // of this lane
};

class Warpgroups {
 public:
  void start_block(Async* async, int warps);
  // Nothing is under way, and the warps of a warpgroup have done the same.
  void end_block() const;

  // By all lanes of a warp, once for all. calls: of each lane.
  void fence(int warp);
  void start(int warp, const Multiplication* const (&calls)[32], const Actor& actor);
  void commit(int warp);
  void wait(int warp, int pending);

 private:
  struct Started {
    Multiplication call;
    int group;
    std::size_t held;
  };
  struct Held {  // sums that multiplications under way write
    float* lanes[32];
    std::vector<float> rows;  // [16][columns]
    int users;
  };
  struct State {
    bool fenced = false;
    int groups = 0;            // committed
    std::uint32_t started = 0, done = 0;
    std::deque<Started> under_way;
    std::vector<Held> held;
  };

  void check_agreement(int warp, const Multiplication& call, const Actor& actor);
  void check_operands(int warp, const Multiplication& call, const Actor& actor);
  std::size_t hold(State& state, const Multiplication* const (&calls)[32]);
  void finish(State& state, int warp, const Started& started);

  Async* async_ = nullptr;
  std::vector<State> states_;                      // by warp
  std::vector<std::vector<Multiplication>> said_;  // by warpgroup, what its first warp to come started
};

}  // namespace deepsim::cuda::emulation
