// What kernels that break a rule are made of, and the check that a rule is broken and its twin's is not.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>

#include "broken_rule.h"
#include "device.h"

namespace deepsim::tests {

using cuda::emulation::Rule;
using cuda::emulation::schedules;
using namespace cuda;

constexpr std::size_t shared_bytes = 4096;
alignas(16) inline const unsigned char global[8192] = {};

// body(true) breaks the rule; body(false) is the twin. Which of two threads comes first may give it another name: a read
// too early, or a store too early, but never none.
inline void check_twins(Rule rule, int threads, const std::function<void(bool wrong)>& body,
                        std::set<Rule> or_in_other_orders = {}) {
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

inline int* cell(int index) { return reinterpret_cast<int*>(emulation::position.shared) + index; }
inline void* piece(int index) { return emulation::position.shared + 16 * index; }
inline const void* global_piece(int index) { return global + 16 * index; }
inline void store(int index) { shared_store(cell(index), index); }
inline void load(int index) { shared_load(static_cast<const int*>(cell(index))); }

inline void copy(int index) {
  copy_async(piece(index), global_piece(index));
  commit_copies();
}

inline void load_rows(int first_piece) {
  std::uint32_t values[4];
  load_matrices(values, piece(first_piece + thread_index() % 32));
}

inline void any_collective() {
  float sums[4] = {};
  const std::uint32_t left[4] = {};
  multiply_add<Half>(sums, left, 0, 0);
}

}  // namespace deepsim::tests
