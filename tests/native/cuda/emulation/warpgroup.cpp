#include "warpgroup.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "hopper.h"

namespace deepsim::cuda::emulation {

namespace {

constexpr int lanes = 32;

// PTX ISA, "Matrix Descriptor" of wgmma: what hopper.h writes, read by the book.
struct Operand {
  std::size_t address, leading, stride;

  explicit Operand(std::uint64_t descriptor)
      : address((descriptor & 0x3fffu) * 16),
        leading((descriptor >> 16 & 0x3fffu) * 16),
        stride((descriptor >> 32 & 0x3fffu) * 16) {}
  // In shared memory, of the eight values from `k` of this row.
  std::size_t offset(int row, int k) const {
    const auto at = [](int value) { return static_cast<std::size_t>(value); };
    return address - shared_window + at(row / 8) * stride + at(row % 8) * 16 + at(k / 8) * leading;
  }
};

constexpr std::uint64_t bits_of_operand = 0x00003fff3fff3fffu;

// "Accumulator Register Fragments" of wgmma: sum i of a lane.
struct Spot {
  int row, column;
  Spot(int lane, int i) : row(lane / 4 + i / 2 % 2 * 8), column(i / 4 * 8 + lane % 4 * 2 + i % 2) {}
};

template <class Do>
void for_each_sum(int columns, const Do& each) {
  for (int lane = 0; lane < lanes; ++lane)
    for (int i = 0; i < columns / 2; ++i) {
      const Spot spot(lane, i);
      each(lane, i, static_cast<std::size_t>(spot.row * columns + spot.column));
    }
}

void widen_rows(const unsigned char* memory, const Operand& operand, int first_row, int rows, Widen widen, float* to) {
  for (int row = 0; row < rows; ++row)
    for (int k = 0; k < depth_of_multiply; k += 8) {
      std::uint16_t values[8];
      std::memcpy(values, memory + operand.offset(first_row + row, k), sizeof values);
      widen(values, 8, to + row * depth_of_multiply + k);
    }
}

}  // namespace

void Warpgroups::start_block(Async* async, int warps) {
  async_ = async;
  states_.assign(static_cast<std::size_t>(warps), State());
  said_.assign(static_cast<std::size_t>((warps + warps_together - 1) / warps_together), {});
}

void Warpgroups::end_block() const {
  for (std::size_t warp = 0; warp < states_.size(); ++warp) {
    const int thread = static_cast<int>(warp) * lanes;
    if (!states_[warp].under_way.empty()) {
      violate(Rule::unfinished, thread, Violation::no_offset, "ended while its multiplications are under way. Wait for them.");
    }
    if (states_[warp].started != said_[warp / warps_together].size()) {
      violate(Rule::divergent_warpgroup, thread, Violation::no_offset,
              "its warp started fewer multiplications than others of its warpgroup. Let all four start the same.");
    }
  }
}

void Warpgroups::fence(int warp) { states_[static_cast<std::size_t>(warp)].fenced = true; }

void Warpgroups::check_agreement(int warp, const Multiplication& call, const Actor& actor) {
  std::vector<Multiplication>& said = said_[static_cast<std::size_t>(warp / warps_together)];
  const std::uint32_t number = states_[static_cast<std::size_t>(warp)].started;
  if (number == said.size()) said.push_back(call);
  const Multiplication& first = said[number];
  const bool same_operands = first.left == call.left && first.right == call.right;
  if (same_operands && first.accumulate == call.accumulate && first.columns == call.columns) return;
  violate(Rule::divergent_warpgroup, actor.thread, Violation::no_offset,
          "multiplies other operands than another warp of its warpgroup. Let all four start the same.");
}

void Warpgroups::check_operands(int warp, const Multiplication& call, const Actor& actor) {
  const Knowledge known = async_->common_knowledge(warp * lanes, lanes);
  const std::uint32_t number = states_[static_cast<std::size_t>(warp)].started + 1;
  const auto check = [&](std::uint64_t descriptor, int first_row, int rows) {
    if ((descriptor & ~bits_of_operand) != 0) {
      violate(Rule::outside, actor.thread, Violation::no_offset,
              "a descriptor has bits that no unswizzled operand has. Use describe_operand.");
    }
    const Operand operand(descriptor);
    for (int row = first_row; row < first_row + rows; ++row)
      for (int k = 0; k < depth_of_multiply; k += 8) {
        const std::size_t offset = operand.offset(row, k);
        (void)async_->memory().offset_of(async_->data() + static_cast<std::ptrdiff_t>(offset), 16, 16, actor);
        async_->read(offset, warp, number, known, actor);
      }
  };
  check(call.left, warp % warps_together * rows_of_warp, rows_of_warp);
  check(call.right, 0, call.columns);
}

// Keep the sums aside; the lanes see NaNs.
std::size_t Warpgroups::hold(State& state, const Multiplication* const (&calls)[32]) {
  const int columns = calls[0]->columns;
  for (std::size_t i = 0; i < state.held.size(); ++i) {
    if (state.held[i].lanes[0] != calls[0]->sums || state.held[i].users == 0) continue;
    ++state.held[i].users;
    return i;
  }
  Held held;
  held.users = 1;
  held.rows.resize(static_cast<std::size_t>(rows_of_warp * columns));
  for (int lane = 0; lane < lanes; ++lane) held.lanes[lane] = calls[lane]->sums;
  for_each_sum(columns, [&](int lane, int i, std::size_t at) {
    held.rows[at] = std::exchange(held.lanes[lane][i], std::numeric_limits<float>::quiet_NaN());
  });
  state.held.push_back(std::move(held));
  return state.held.size() - 1;
}

void Warpgroups::start(int warp, const Multiplication* const (&calls)[32], const Actor& actor) {
  State& state = states_[static_cast<std::size_t>(warp)];
  const Multiplication& call = *calls[0];
  if (!state.fenced) {
    violate(Rule::unfenced, actor.thread, Violation::no_offset,
            "multiplies with no fence_multiplies since its last group. Put one before.");
  }
  for (const Multiplication* other : calls) {
    if (other->left == call.left && other->right == call.right && other->accumulate == call.accumulate) continue;
    violate(Rule::divergent_warpgroup, actor.thread, Violation::no_offset,
            "lanes multiply different operands. Let all start the same.");
  }
  check_agreement(warp, call, actor);
  check_operands(warp, call, actor);
  state.under_way.push_back({call, state.groups, hold(state, calls)});
  ++state.started;
}

void Warpgroups::commit(int warp) {
  State& state = states_[static_cast<std::size_t>(warp)];
  ++state.groups;
  state.fenced = false;
}

// The products of a multiplication are added to each other first and then to the sum: unlike multiply_add, so that no test
// comes to count on the order, which the ISA leaves open.
void Warpgroups::finish(State& state, int warp, const Started& started) {
  const Multiplication& call = started.call;
  const int first_row = warp % warps_together * rows_of_warp;
  std::vector<float> left(rows_of_warp * depth_of_multiply);
  std::vector<float> right(static_cast<std::size_t>(call.columns * depth_of_multiply));
  widen_rows(async_->data(), Operand(call.left), first_row, rows_of_warp, call.widen, left.data());
  widen_rows(async_->data(), Operand(call.right), 0, call.columns, call.widen, right.data());
  Held& held = state.held[started.held];
  for (int row = 0; row < rows_of_warp; ++row)
    for (int column = 0; column < call.columns; ++column) {
      const float* const a = &left[static_cast<std::size_t>(row * depth_of_multiply)];
      const float* const b = &right[static_cast<std::size_t>(column * depth_of_multiply)];
      float sum = a[0] * b[0];
      for (int k = 1; k < depth_of_multiply; ++k) sum += a[k] * b[k];
      float& to = held.rows[static_cast<std::size_t>(row * call.columns + column)];
      to = call.accumulate ? to + sum : sum;
    }
  if (--held.users > 0) return;
  for_each_sum(call.columns, [&](int lane, int i, std::size_t at) { held.lanes[lane][i] = held.rows[at]; });
}

void Warpgroups::wait(int warp, int pending) {
  State& state = states_[static_cast<std::size_t>(warp)];
  while (!state.under_way.empty() && state.under_way.front().group < state.groups - pending) {
    finish(state, warp, state.under_way.front());
    state.under_way.pop_front();
    ++state.done;
  }
  if (state.under_way.empty()) state.held.clear();
  for (int lane = 0; lane < lanes; ++lane) async_->learn_multiplies(warp * lanes + lane, state.done);
}

}  // namespace deepsim::cuda::emulation
