// Each rule of barriers, bulk copies and warpgroup multiplications (hopper.h): the smallest kernel that breaks it is caught
// in every schedule, and its corrected twin passes.
#include <doctest/doctest.h>

#include <functional>
#include <set>
#include <vector>

#include "broken_rule.h"
#include "hopper.h"

using namespace deepsim::cuda;
using deepsim::tests::broken;
using emulation::launch;
using emulation::Rule;
using emulation::schedules;
using emulation::Violation;

namespace {

// Shared memory: barriers, then the left operand (64 rows, two planes), then the right one (8 columns, two planes).
constexpr int left_at = 256, left_bytes = 2 * 64 * 16, right_at = left_at + left_bytes, right_bytes = 2 * 8 * 16;
constexpr std::size_t shared_bytes = right_at + right_bytes;
alignas(16) const unsigned char global[4096] = {};

// body(true) breaks one of the rules in every order; body(false) breaks none.
void check_twins(const std::set<Rule>& rules, int threads, const std::function<void(bool wrong)>& body) {
  for (const auto& schedule : schedules) {
    const auto found = broken(threads, shared_bytes, [&] { body(true); }, schedule);
    REQUIRE(found.has_value());
    CHECK(rules.count(*found) == 1);
    CHECK(!broken(threads, shared_bytes, [&] { body(false); }, schedule).has_value());
  }
}

unsigned char* shared(int offset) { return emulation::position.shared + offset; }
Barrier* barrier(int index) { return reinterpret_cast<Barrier*>(shared(8 * index)); }

// Barriers 0, 1 ... for so many arrivals each.
void make_barriers(const std::vector<int>& arrivals) {
  if (thread_index() == 0) {
    for (std::size_t i = 0; i < arrivals.size(); ++i) init_barrier(barrier(static_cast<int>(i)), arrivals[i]);
    publish_barriers();
  }
  sync_block();
}

// Thread 0: both operands, reported to barrier 0.
void copy_operands() {
  if (thread_index() != 0) return;
  arrive_expecting(barrier(0), left_bytes + right_bytes);
  bulk_copy(shared(left_at), global, left_bytes, barrier(0));
  bulk_copy(shared(right_at), global, right_bytes, barrier(0));
}

std::uint64_t left() { return describe_operand(shared_address(shared(left_at)), 64 * 16, 128); }
std::uint64_t right() { return describe_operand(shared_address(shared(right_at)), 8 * 16, 128); }

void start_multiply(float (&sums)[4], std::uint64_t left_operand = left()) {
  fence_multiplies();
  multiply_warpgroup<Half>(sums, left_operand, right(), false);
  commit_multiplies();
}

void multiply(std::uint64_t left_operand = left()) {
  float sums[4];
  start_multiply(sums, left_operand);
  wait_multiplies<0>();
}

}  // namespace

TEST_CASE("a barrier is used where one was made, by those who can know of it") {
  check_twins({Rule::no_such_barrier}, 32, [](bool wrong) {
    make_barriers({32});
    arrive(barrier(wrong ? 1 : 0));
  });
  check_twins({Rule::no_such_barrier}, 64, [](bool wrong) {
    if (thread_index() == 63) init_barrier(barrier(0), 1);
    if (!wrong) sync_block();
    if (thread_index() == 5) arrive(barrier(0));
    if (wrong) sync_block();
  });
  check_twins({Rule::no_such_barrier}, 1, [](bool wrong) {
    init_barrier(barrier(0), 1);
    if (!wrong) publish_barriers();
    copy_operands();
    wait_phase(barrier(0), 0);
  });
}

TEST_CASE("on a new barrier a wait for parity 1 is over, one for parity 0 is not") {
  check_twins({Rule::waits_for_ever}, 1, [](bool wrong) {
    make_barriers({1});
    wait_phase(barrier(0), wrong ? 0 : 1);
  });
}

TEST_CASE("two threads hand each other the turn, many phases long") {
  std::vector<int> turns;
  for (const auto& schedule : schedules) {
    turns.clear();
    launch(
        {}, 2, shared_bytes,
        [&] {
          make_barriers({1, 1});
          for (unsigned i = 0; i < 9; ++i) {
            if (thread_index() == 1) wait_phase(barrier(0), i % 2);
            turns.push_back(thread_index());
            arrive(barrier(thread_index()));
            if (thread_index() == 0) wait_phase(barrier(1), i % 2);
          }
        },
        schedule);
    for (std::size_t i = 0; i < 18; ++i) CHECK(turns[i] == static_cast<int>(i % 2));
  }
}

TEST_CASE("a phase lacks an arrival, or bytes") {
  check_twins({Rule::waits_for_ever}, 3, [](bool wrong) {
    make_barriers({3});
    if (!wrong || thread_index() != 1) arrive(barrier(0));
    wait_phase(barrier(0), 0);
  });
  check_twins({Rule::waits_for_ever}, 1, [](bool wrong) {
    make_barriers({1});
    arrive_expecting(barrier(0), wrong ? 48 : 32);
    bulk_copy(shared(left_at), global, 32, barrier(0));
    wait_phase(barrier(0), 0);
  });
}

TEST_CASE("more arrivals or bytes than a phase waits for") {
  check_twins({Rule::surplus}, 1, [](bool wrong) {
    make_barriers({1});
    arrive_expecting(barrier(0), 32);
    if (wrong) arrive(barrier(0));
    bulk_copy(shared(left_at), global, 32, barrier(0));
    wait_phase(barrier(0), 0);
  });
  check_twins({Rule::surplus}, 1, [](bool wrong) {
    make_barriers({1});
    arrive_expecting(barrier(0), wrong ? 16 : 32);
    bulk_copy(shared(left_at), global, 32, barrier(0));
    wait_phase(barrier(0), 0);
  });
}

TEST_CASE("multiplied before the copies have come, or by lanes that cannot know") {
  check_twins({Rule::in_flight, Rule::unwritten}, 128, [](bool wrong) {
    make_barriers({1});
    copy_operands();
    if (!wrong) wait_phase(barrier(0), 0);
    multiply();
    if (wrong) wait_phase(barrier(0), 0);
  });
  check_twins({Rule::in_flight, Rule::unwritten, Rule::unsynchronised_read}, 128, [](bool wrong) {
    make_barriers({1});
    copy_operands();
    if (!wrong || thread_index() != 77) wait_phase(barrier(0), 0);
    multiply();
  });
}

TEST_CASE("what one thread waited for, those know who then wait for it") {
  for (const auto& schedule : schedules) {
    CHECK(broken(
              160, shared_bytes,
              [] {
                make_barriers({1, 1});
                copy_operands();
                if (thread_index() == 159) wait_phase(barrier(0), 0);
                if (thread_index() == 159) arrive(barrier(1));
                if (thread_index() >= 128) return;
                wait_phase(barrier(1), 0);
                multiply();
              },
              schedule) == std::nullopt);
  }
}

TEST_CASE("copied over operands that may still be read: not waited for, or not by all warps") {
  const auto use_twice = [](int released_warps, bool waits) {
    make_barriers({1, released_warps});
    if (thread_index() == 128) {
      for (unsigned use = 0; use < 2; ++use) {
        if (use == 1) wait_phase(barrier(1), 0);
        arrive_expecting(barrier(0), left_bytes + right_bytes);
        bulk_copy(shared(left_at), global, left_bytes, barrier(0));
        bulk_copy(shared(right_at), global, right_bytes, barrier(0));
      }
    } else if (thread_index() < 128) {
      float sums[4];
      for (unsigned use = 0; use < 2; ++use) {
        wait_phase(barrier(0), use);
        start_multiply(sums);
        if (waits) wait_multiplies<0>();
        if (use == 0 && thread_index() % 32 == 0 && thread_index() / 32 < released_warps) arrive(barrier(1));
      }
      wait_multiplies<0>();
    }
  };
  check_twins({Rule::operands_in_use}, 160, [&](bool wrong) { use_twice(4, !wrong); });
  check_twins({Rule::operands_in_use}, 160, [&](bool wrong) { use_twice(wrong ? 3 : 4, true); });
}

TEST_CASE("copied over what another copy writes") {
  check_twins({Rule::in_flight}, 1, [](bool wrong) {
    make_barriers({1, 1});
    for (int i = 0; i < 2; ++i) {
      arrive_expecting(barrier(i), 32);
      bulk_copy(shared(left_at), global, 32, barrier(i));
      if (!wrong) wait_phase(barrier(i), 0);
    }
    if (wrong) wait_phase(barrier(1), 0);
  });
}

TEST_CASE("multiplied with no fence before") {
  check_twins({Rule::unfenced}, 128, [](bool wrong) {
    make_barriers({1});
    copy_operands();
    wait_phase(barrier(0), 0);
    float sums[4];
    if (!wrong) fence_multiplies();
    multiply_warpgroup<Half>(sums, left(), right(), false);
    commit_multiplies();
    wait_multiplies<0>();
  });
}

TEST_CASE("the warps of a warpgroup multiply the same") {
  check_twins({Rule::divergent_warpgroup}, 128, [](bool wrong) {
    make_barriers({1});
    copy_operands();
    wait_phase(barrier(0), 0);
    multiply(wrong && thread_index() / 32 == 2 ? right() : left());
  });
  check_twins({Rule::divergent_warpgroup}, 128, [](bool wrong) {
    make_barriers({1});
    copy_operands();
    wait_phase(barrier(0), 0);
    if (!wrong || thread_index() / 32 != 3) multiply();
  });
  check_twins({Rule::missing_lanes, Rule::divergent_warpgroup}, 128, [](bool wrong) {
    make_barriers({1});
    copy_operands();
    wait_phase(barrier(0), 0);
    multiply(wrong && thread_index() == 40 ? right() : left());
  });
}

TEST_CASE("a block ends while copies or multiplications are under way") {
  check_twins({Rule::unfinished}, 1, [](bool wrong) {
    make_barriers({1});
    copy_operands();
    if (!wrong) wait_phase(barrier(0), 0);
  });
  check_twins({Rule::unfinished}, 128, [](bool wrong) {
    make_barriers({1});
    copy_operands();
    wait_phase(barrier(0), 0);
    float sums[4];
    start_multiply(sums);
    wrong ? wait_multiplies<1>() : wait_multiplies<0>();
  });
  check_twins({Rule::unfinished}, 128, [](bool wrong) {
    make_barriers({1});
    copy_operands();
    wait_phase(barrier(0), 0);
    float sums[4];
    fence_multiplies();
    multiply_warpgroup<Half>(sums, left(), right(), false);
    if (!wrong) commit_multiplies();
    wait_multiplies<0>();
  });
}

TEST_CASE("threads do not load or store what copies and barriers use") {
  check_twins({Rule::other_proxy}, 1, [](bool wrong) {
    make_barriers({1});
    copy_operands();
    wait_phase(barrier(0), 0);
    if (wrong) shared_load(reinterpret_cast<const int*>(shared(left_at)));
  });
  check_twins({Rule::other_proxy}, 1, [](bool wrong) {
    make_barriers({1});
    shared_store(reinterpret_cast<int*>(shared(wrong ? left_at : 128)), 1);
    copy_operands();
    wait_phase(barrier(0), 0);
  });
  check_twins({Rule::other_proxy}, 1, [](bool wrong) {
    make_barriers({1});
    if (wrong) shared_store(reinterpret_cast<int*>(shared(4)), 1);
  });
  check_twins({Rule::other_proxy}, 1, [](bool wrong) {
    make_barriers({1});
    arrive_expecting(barrier(0), 32);
    bulk_copy(shared(wrong ? 0 : 16), global, 32, barrier(0));
    wait_phase(barrier(0), 0);
  });
}

TEST_CASE("addresses, sizes and descriptors") {
  const auto copy = [](int to, int from, int bytes) {
    make_barriers({1});
    arrive_expecting(barrier(0), bytes);
    bulk_copy(shared(to), global + from, bytes, barrier(0));
    wait_phase(barrier(0), 0);
  };
  check_twins({Rule::misaligned}, 1, [=](bool wrong) { copy(left_at + (wrong ? 8 : 16), 0, 32); });
  check_twins({Rule::misaligned}, 1, [=](bool wrong) { copy(left_at, wrong ? 8 : 16, 32); });
  check_twins({Rule::misaligned}, 1, [=](bool wrong) { copy(left_at, 0, wrong ? 40 : 48); });
  check_twins({Rule::outside}, 1, [=](bool wrong) { copy(right_at + (wrong ? 16 : 0), 0, right_bytes); });
  check_twins({Rule::misaligned}, 1, [](bool wrong) { init_barrier(reinterpret_cast<Barrier*>(shared(wrong ? 4 : 8)), 1); });
  const auto multiply_with = [](std::uint64_t extra) {
    make_barriers({1});
    copy_operands();
    wait_phase(barrier(0), 0);
    multiply(left() + extra);
  };
  check_twins({Rule::outside}, 128, [=](bool wrong) { multiply_with(wrong ? right_bytes / 16 + 1 : 0); });
  check_twins({Rule::outside}, 128, [=](bool wrong) { multiply_with(wrong ? std::uint64_t{1} << 62 : 0); });
  check_twins({Rule::unwritten}, 128, [=](bool wrong) { multiply_with(wrong ? -std::uint64_t{2} : 0); });
}
