// Each rule of shared memory, barriers and collectives: the smallest kernel that breaks it is caught in every schedule,
// and its corrected twin passes.
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <set>
#include <string>

#include "broken_rule.h"
#include "device.h"

using namespace deepsim::cuda;
using deepsim::tests::broken;
using emulation::launch;
using emulation::Rule;
using emulation::schedules;
using emulation::Violation;

namespace {

constexpr std::size_t shared_bytes = 4096;
alignas(16) const unsigned char global[8192] = {};

// body(true) breaks the rule; body(false) is the twin. Which of two threads comes first may give it another name: a read
// too early, or a store too early, but never none.
void check_twins(Rule rule, int threads, const std::function<void(bool wrong)>& body, std::set<Rule> or_in_other_orders = {}) {
  std::set<Rule> found;
  for (const auto& schedule : schedules) {
    const auto first = broken(threads, shared_bytes, [&] { body(true); }, schedule);
    CHECK(first.has_value());
    if (first) found.insert(*first);
    CHECK(!broken(threads, shared_bytes, [&] { body(false); }, schedule).has_value());
  }
  CHECK(found.count(rule) == 1);
  or_in_other_orders.insert(rule);
  CHECK(std::includes(or_in_other_orders.begin(), or_in_other_orders.end(), found.begin(), found.end()));
}

int* cell(int index) { return reinterpret_cast<int*>(emulation::position.shared) + index; }
void* piece(int index) { return emulation::position.shared + 16 * index; }
const void* global_piece(int index) { return global + 16 * index; }
void store(int index) { shared_store(cell(index), index); }
void load(int index) { shared_load(static_cast<const int*>(cell(index))); }

void copy(int index) {
  copy_async(piece(index), global_piece(index));
  commit_copies();
}

void load_rows(int first_piece) {
  std::uint32_t values[4];
  load_matrices(values, piece(first_piece + thread_index() % 32));
}

void any_collective() {
  float sums[4] = {};
  const std::uint32_t left[4] = {};
  multiply_add<Half>(sums, left, 0, 0);
}

}  // namespace

TEST_CASE("read before it was written") {
  check_twins(Rule::unwritten, 32, [](bool wrong) {
    if (!wrong) store(thread_index());
    load(thread_index());
  });
  check_twins(Rule::unwritten, 32, [](bool wrong) {
    if (!wrong || thread_index() != 31) copy(thread_index());
    wait_copies<0>();
    sync_block();
    load_rows(0);
  });
}

TEST_CASE("what another block wrote is not written") {
  CHECK_THROWS_AS(launch({2, 1, 1}, 1, 64, [] { block_x() == 0 ? store(0) : load(0); }), Violation);
}

TEST_CASE("read while a copy is under way") {
  check_twins(Rule::in_flight, 64, [](bool wrong) {
    copy(thread_index());
    if (!wrong) wait_copies<0>();
    sync_block();
    load(4 * (63 - thread_index()));
  });
}

TEST_CASE("waited for too few groups") {
  check_twins(Rule::in_flight, 32, [](bool wrong) {
    copy(thread_index());
    copy(32 + thread_index());
    wrong ? wait_copies<1>() : wait_copies<0>();
    sync_block();
    load_rows(32);
  });
  check_twins(Rule::in_flight, 1, [](bool wrong) {
    copy(0);
    copy(1);
    wait_copies<1>();
    load(wrong ? 4 : 0);
  });
}

TEST_CASE("waited before the group was committed") {
  check_twins(Rule::in_flight, 1, [](bool wrong) {
    copy_async(piece(0), global_piece(0));
    if (!wrong) commit_copies();
    wait_copies<0>();
    load(0);
  });
}

TEST_CASE("stored or copied while a copy is under way") {
  check_twins(Rule::in_flight, 1, [](bool wrong) {
    copy(0);
    if (!wrong) wait_copies<0>();
    store(0);
  });
  check_twins(Rule::in_flight, 64, [](bool wrong) {
    if (thread_index() == 0) copy(0);
    if (!wrong) wait_copies<0>();
    sync_block();
    if (thread_index() == 33) copy(0);
    sync_block();
  });
}

TEST_CASE("read what another thread stored with no barrier since") {
  for (const int threads : {32, 64}) {
    check_twins(Rule::unsynchronised_read, threads, [=](bool wrong) {
      store(thread_index());
      store(100 + thread_index());
      sync_block();
      if (thread_index() == 0) store(0);
      if (!wrong) sync_block();
      if (thread_index() == threads - 1) load(0);
      if (thread_index() == threads - 1) load(100);
    }, {Rule::overwritten_read});
  }
}

TEST_CASE("a warp's collective orders the stores of its lanes, and of no other warp") {
  check_twins(Rule::unsynchronised_read, 64, [](bool wrong) {
    store(thread_index());
    sync_block();
    store(thread_index());
    any_collective();
    load(wrong ? 63 - thread_index() : thread_index() ^ 31);
  }, {Rule::overwritten_read});
}

TEST_CASE("a collective does not order a store before itself with its own reads") {
  check_twins(Rule::unsynchronised_read, 32, [](bool wrong) {
    for (int i = 0; i < 4; ++i) store(4 * thread_index() + i);
    if (!wrong) any_collective();
    load_rows(0);
  });
}

TEST_CASE("a copy waited for is seen by its own thread, by others after a barrier only") {
  check_twins(Rule::unsynchronised_read, 64, [](bool wrong) {
    store(4 * thread_index());
    sync_block();
    copy(thread_index());
    wait_copies<0>();
    if (!wrong) sync_block();
    if (thread_index() == 63) load(0);
  }, {Rule::overwritten_read});
  check_twins(Rule::unsynchronised_read, 32, [](bool wrong) {
    copy(thread_index());
    wait_copies<0>();
    any_collective();
    load(4 * (wrong ? 31 - thread_index() : thread_index()));
  });
  check_twins(Rule::unsynchronised_read, 32, [](bool wrong) {  // the barrier before the wait is of no use
    copy(thread_index());
    if (wrong) sync_block();
    wait_copies<0>();
    if (!wrong) sync_block();
    load_rows(0);
  });
}

TEST_CASE("stored over what another thread has read") {
  for (const int threads : {2, 64}) {
    check_twins(Rule::overwritten_read, threads, [=](bool wrong) {
      if (thread_index() == 0) store(0);
      sync_block();
      if (thread_index() == 0) load(0);
      if (!wrong) sync_block();
      if (thread_index() == threads - 1) store(0);
    }, {Rule::unsynchronised_read});
  }
}

TEST_CASE("a thread may store over what it has read alone, not over what others have read too") {
  check_twins(Rule::overwritten_read, 96, [](bool wrong) {
    if (thread_index() == 0) store(0);
    sync_block();
    if (thread_index() == 40 || (wrong && thread_index() == 70)) load(0);
    if (thread_index() == 40) load(0);
    any_collective();
    any_collective();
    if (thread_index() == 40) store(0);
  });
}

TEST_CASE("a lane may store over what it has read alone since the last collective") {
  const auto is_reader = [](bool wrong) { return thread_index() == 3 || (wrong && (thread_index() == 2 || thread_index() == 4)); };
  check_twins(Rule::overwritten_read, 32, [=](bool wrong) {
    if (thread_index() == 0) store(0);
    sync_block();
    if (thread_index() == 9) load(0);
    any_collective();
    if (is_reader(wrong)) load(0);
    if (thread_index() == 3) store(0);
  }, {Rule::unsynchronised_read});
}

TEST_CASE("a buffer is filled again before all have read it") {
  check_twins(Rule::overwritten_read, 64, [](bool wrong) {
    for (int step = 0; step < 3; ++step) {
      if (thread_index() < 32) copy(thread_index());
      wait_copies<0>();
      sync_block();
      load_rows(0);
      if (!wrong) sync_block();
    }
  }, {Rule::in_flight, Rule::unsynchronised_read});
}

TEST_CASE("the lanes of one warp may fill a buffer again after their collective") {
  for (const auto& schedule : schedules) {
    CHECK(broken(32, shared_bytes, [] {
      for (int step = 0; step < 3; ++step) {
        copy(thread_index());
        wait_copies<0>();
        sync_block();
        load_rows(0);
      }
    }, schedule) == std::nullopt);
  }
}

TEST_CASE("written by two threads") {
  check_twins(Rule::two_writers, 64, [](bool wrong) {
    if (thread_index() == 0) store(5);
    if (!wrong) sync_block();
    if (thread_index() == 63) store(5);
  });
  check_twins(Rule::two_writers, 64, [](bool wrong) {
    if (thread_index() == 0) copy(0);
    wait_copies<0>();
    if (!wrong) sync_block();
    if (thread_index() == 63) store(0);
  });
}

TEST_CASE("neighbouring bytes are no conflict") {
  check_twins(Rule::two_writers, 64, [](bool wrong) {
    shared_store(emulation::position.shared + (wrong ? 0 : thread_index()), static_cast<unsigned char>(1));
  });
}

TEST_CASE("beyond the shared memory") {
  constexpr int cells = shared_bytes / 4, pieces = shared_bytes / 16;
  check_twins(Rule::outside, 1, [](bool wrong) { store(wrong ? cells : cells - 1); });
  check_twins(Rule::outside, 1, [](bool wrong) { store(wrong ? -1 : 0); });
  check_twins(Rule::outside, 1, [](bool wrong) { copy(wrong ? pieces : pieces - 1); });
  check_twins(Rule::outside, 32, [](bool wrong) {
    copy(pieces - 32 + thread_index());
    wait_copies<0>();
    sync_block();
    load_rows(pieces - 32 + (wrong ? 1 : 0));
  });
  check_twins(Rule::outside, 1, [](bool wrong) {
    store(cells - 1);
    load(wrong ? cells : cells - 1);
  });
}

TEST_CASE("beyond the shared memory, around the checks") {
  check_twins(Rule::outside, 1, [](bool wrong) { emulation::position.shared[wrong ? shared_bytes + 3 : 3] = 1; });
}

TEST_CASE("addresses that are no multiples of what the operation wants") {
  const auto at = [](bool wrong) { return emulation::position.shared + (wrong ? 8 : 16); };
  check_twins(Rule::misaligned, 1, [=](bool wrong) { copy_async(at(wrong), global); });
  check_twins(Rule::misaligned, 1, [](bool wrong) { copy_async(piece(0), global + (wrong ? 8 : 16)); });
  check_twins(Rule::misaligned, 1, [](bool wrong) {
    shared_store(reinterpret_cast<int*>(emulation::position.shared + (wrong ? 2 : 4)), 1);
  });
  check_twins(Rule::misaligned, 32, [=](bool wrong) {
    for (int i = 0; i < 4; ++i) copy(thread_index() * 4 + i);
    wait_copies<0>();
    sync_block();
    std::uint32_t values[4];
    load_matrices(values, at(wrong));
  });
}

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
    wrong && thread_index() % 2 == 0 ? any_collective() : load_rows(0);
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
