// Barriers and collectives that threads do not reach together, kernels after kernels, and launches that no GPU would take: each
// is caught in every schedule, and told of in words.
#include <stdexcept>
#include <string>

#include "rule_kernels.h"

using namespace deepsim::cuda;
using namespace deepsim::tests;
using emulation::launch;
using emulation::Violation;

TEST_CASE("a barrier that some threads do not reach") {
  check_twins(Rule::divergent_barrier, 64, [](bool wrong) {
    if (wrong && thread_index() == 17) return;
    sync_block();
  });
  check_twins(Rule::divergent_barrier, 64, [](bool wrong) {
    if (wrong ? thread_index() == 17 : thread_index() < 32) any_collective();
    sync_block();
  });
}

TEST_CASE("a collective that some lanes do not reach") {
  check_twins(Rule::missing_lanes, 64, [](bool wrong) {
    if (wrong && thread_index() == 40) return;
    any_collective();
  });
  check_twins(Rule::missing_lanes, 64, [](bool wrong) {
    if (thread_index() < (wrong ? 40 : 64)) any_collective();
  });
  for (const auto& schedule : schedules) CHECK(broken(48, shared_bytes, any_collective, schedule) == Rule::missing_lanes);
}

TEST_CASE("lanes of a warp at different collectives") {
  check_twins(Rule::missing_lanes, 32, [](bool wrong) {
    copy(thread_index());
    wait_copies<0>();
    sync_block();
    wrong&& thread_index() % 2 == 0 ? any_collective() : load_rows(0);
  });
}

TEST_CASE("a violation says where") {
  try {
    launch({1, 2, 3}, 64, shared_bytes, [] {
      if (block_y() == 0 || block_z() == 0) return;
      if (thread_index() == 5) store(24);
      if (thread_index() == 50) load(24);
    });
    CHECK(false);
  } catch (const Violation& violation) {
    CHECK(std::string(violation.what()) ==
          "block (0, 1, 1), thread 50, shared offset 96: read what thread 5 stored since the last barrier. "
          "Put a sync_block between.");
    CHECK(violation.block.z == 1);
    CHECK(violation.thread == 50);
    CHECK(violation.offset == 96);
  }
}

TEST_CASE("a deadlock says who waits for what") {
  try {
    launch({}, 64, 0, [] {
      if (thread_index() > 61) return;
      thread_index() < 32 ? sync_block() : any_collective();
    });
    CHECK(false);
  } catch (const Violation& violation) {
    CHECK(std::string(violation.what()) ==
          "block (0, 0, 0), thread 0: waits for ever: 32 threads wait at sync_block, 30 at a collective, 2 have ended. "
          "Let all threads reach the barrier.");
  }
}

TEST_CASE("what a body throws leaves launch after all stacks are unwound, and the next launch is like the first") {
  struct Counted {
    int& count;
    explicit Counted(int& alive) : count(alive) { ++count; }
    ~Counted() { --count; }
  };
  for (const auto& schedule : schedules) {
    int begun = 0, alive = 0;
    const auto body = [&] {
      const Counted counted(alive);
      ++begun;
      sync_block();
      if (thread_index() == 33) throw std::string("mine");
      any_collective();
    };
    CHECK_THROWS_AS(launch({2, 1, 1}, 64, 0, body, schedule), std::string);
    CHECK(begun == 64);
    CHECK(alive == 0);
    CHECK(broken(64, shared_bytes, [] { sync_block(); }, schedule) == std::nullopt);
    CHECK(broken(1, shared_bytes, [] { copy(0), load(0); }, schedule) == Rule::in_flight);
    CHECK(broken(1, shared_bytes, [] { store(0), load(0); }, schedule) == std::nullopt);
  }
}

TEST_CASE("kernels before a launch run when its first block waits for them, and not before") {
  for (const auto& schedule : schedules) {
    int earlier = 0, before = 0, after = 0;
    const auto body = [&] {
      before += earlier == 0;
      if (thread_index() > 2) wait_for_earlier();
      if (thread_index() % 32 == 0) sync_block();
      if (thread_index() % 32 > 0) sync_block();
      after += earlier;
    };
    launch({3, 1, 1}, 64, 0, body, schedule, [&] { launch({}, 2, 0, [&] { ++earlier; }); });
    CHECK(earlier == 2);
    CHECK(before == 64);
    CHECK(after == 3 * 64 * 2);
  }
}

TEST_CASE("a copy that starts before its thread has waited reads what was there before") {
  for (const auto& schedule : schedules)
    for (const bool wrong : {true, false}) {
      alignas(16) int source[4] = {};
      int found = 0;
      const auto body = [&] {
        if (!wrong) wait_for_earlier();
        copy_async(piece(0), source);
        commit_copies();
        if (wrong) wait_for_earlier();
        wait_copies<0>();
        found = shared_load(static_cast<const int*>(cell(0)));
      };
      launch({}, 1, shared_bytes, body, schedule, [&] { source[0] = 7; });
      CHECK(found == (wrong ? 0 : 7));
    }
}

TEST_CASE("a block of whose threads none waits for the kernels before breaks a rule; without such it need not") {
  const auto waits = [] {
    if (block_x() == 1 && thread_index() == 5) return;
    if (thread_index() == 5) wait_for_earlier();
  };
  for (const auto& schedule : schedules) {
    CHECK_NOTHROW(launch({2, 1, 1}, 32, 0, waits, schedule));
    try {
      launch({2, 1, 1}, 32, 0, waits, schedule, [] {});
      CHECK(false);
    } catch (const Violation& violation) {
      CHECK(violation.rule == Rule::never_waits);
      CHECK(violation.block.x == 1);
      CHECK(std::string(violation.what()) ==
            "block (1, 0, 0): ends without having waited for the kernels before. Let a thread call wait_for_earlier.");
    }
    const auto fails = [] { throw std::string("theirs"); };
    CHECK_THROWS_AS(launch({}, 32, 0, [] { wait_for_earlier(); }, schedule, fails), std::string);
    CHECK(broken(1, shared_bytes, [] { copy(0), load(0); }, schedule) == Rule::in_flight);
  }
}

TEST_CASE("launches that no GPU would take") {
  const auto nothing = [] {};
  CHECK_THROWS_AS(launch({}, 0, 0, nothing), std::invalid_argument);
  CHECK_THROWS_AS(launch({}, 1025, 0, nothing), std::invalid_argument);
  CHECK_THROWS_AS(launch({}, 1, 227 * 1024 + 1, nothing), std::invalid_argument);
  CHECK_THROWS_AS(launch({-1, 1, 1}, 1, 0, nothing), std::invalid_argument);
  CHECK_THROWS_AS(launch({}, 1, 0, [&] { launch({}, 1, 0, nothing); }), std::logic_error);
  CHECK_NOTHROW(launch({}, 1024, 227 * 1024, nothing));
}
