// Each rule of shared memory: the smallest kernel that breaks it is caught in every schedule, and its corrected twin passes.
#include "rule_kernels.h"

using namespace deepsim::cuda;
using namespace deepsim::tests;
using emulation::launch;
using emulation::Violation;

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
    check_twins(Rule::unsynchronised_read, threads,
                [=](bool wrong) {
                  store(thread_index());
                  store(100 + thread_index());
                  sync_block();
                  if (thread_index() == 0) store(0);
                  if (!wrong) sync_block();
                  if (thread_index() == threads - 1) load(0);
                  if (thread_index() == threads - 1) load(100);
                },
                {Rule::overwritten_read});
  }
}

TEST_CASE("a warp's collective orders the stores of its lanes, and of no other warp") {
  check_twins(Rule::unsynchronised_read, 64,
              [](bool wrong) {
                store(thread_index());
                sync_block();
                store(thread_index());
                any_collective();
                load(wrong ? 63 - thread_index() : thread_index() ^ 31);
              },
              {Rule::overwritten_read});
}

TEST_CASE("a collective does not order a store before itself with its own reads") {
  check_twins(Rule::unsynchronised_read, 32, [](bool wrong) {
    for (int i = 0; i < 4; ++i) store(4 * thread_index() + i);
    if (!wrong) any_collective();
    load_rows(0);
  });
}

TEST_CASE("a copy waited for is seen by its own thread, by others after a barrier only") {
  check_twins(Rule::unsynchronised_read, 64,
              [](bool wrong) {
                store(4 * thread_index());
                sync_block();
                copy(thread_index());
                wait_copies<0>();
                if (!wrong) sync_block();
                if (thread_index() == 63) load(0);
              },
              {Rule::overwritten_read});
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
    check_twins(Rule::overwritten_read, threads,
                [=](bool wrong) {
                  if (thread_index() == 0) store(0);
                  sync_block();
                  if (thread_index() == 0) load(0);
                  if (!wrong) sync_block();
                  if (thread_index() == threads - 1) store(0);
                },
                {Rule::unsynchronised_read});
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
  const auto is_reader = [](bool wrong) {
    return thread_index() == 3 || (wrong && (thread_index() == 2 || thread_index() == 4));
  };
  check_twins(Rule::overwritten_read, 32,
              [=](bool wrong) {
                if (thread_index() == 0) store(0);
                sync_block();
                if (thread_index() == 9) load(0);
                any_collective();
                if (is_reader(wrong)) load(0);
                if (thread_index() == 3) store(0);
              },
              {Rule::unsynchronised_read});
}

TEST_CASE("a buffer is filled again before all have read it") {
  check_twins(Rule::overwritten_read, 64,
              [](bool wrong) {
                for (int step = 0; step < 3; ++step) {
                  if (thread_index() < 32) copy(thread_index());
                  wait_copies<0>();
                  sync_block();
                  load_rows(0);
                  if (!wrong) sync_block();
                }
              },
              {Rule::in_flight, Rule::unsynchronised_read});
}

TEST_CASE("the lanes of one warp may fill a buffer again after their collective") {
  for (const auto& schedule : schedules) {
    CHECK(broken(
              32, shared_bytes,
              [] {
                for (int step = 0; step < 3; ++step) {
                  copy(thread_index());
                  wait_copies<0>();
                  sync_block();
                  load_rows(0);
                }
              },
              schedule) == std::nullopt);
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
  check_twins(Rule::misaligned, 1,
              [](bool wrong) { shared_store(reinterpret_cast<int*>(emulation::position.shared + (wrong ? 2 : 4)), 1); });
  check_twins(Rule::misaligned, 32, [=](bool wrong) {
    for (int i = 0; i < 4; ++i) copy(thread_index() * 4 + i);
    wait_copies<0>();
    sync_block();
    std::uint32_t values[4];
    load_matrices(values, at(wrong));
  });
}
