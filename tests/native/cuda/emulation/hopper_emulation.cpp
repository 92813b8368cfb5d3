#include "block.h"
#include "hopper.h"

namespace deepsim::cuda::emulation {

namespace {

void start_for_warp(Block& block, Warp& warp, int first_thread) {
  const Multiplication* calls[lanes];
  for (int lane = 0; lane < lanes; ++lane) calls[lane] = static_cast<const Multiplication*>(warp.operands[lane].call);
  block.warpgroups().start(first_thread / lanes, calls, block.actor());
}

void wait_for_warp(Block& block, Warp& warp, int first_thread) {
  block.warpgroups().wait(first_thread / lanes, *static_cast<const int*>(warp.operands[0].call));
}

void fence_for_warp(Block& block, Warp&, int first_thread) { block.warpgroups().fence(first_thread / lanes); }

void commit_for_warp(Block& block, Warp&, int first_thread) { block.warpgroups().commit(first_thread / lanes); }

Operands with(const void* call) {
  Operands operands = {};
  operands.call = call;
  return operands;
}

}  // namespace

void arrive(Barrier* barrier, int bytes) { this_block().arrive(barrier, bytes); }

void wait_multiplies(int pending) { this_block().meet(Collective::wait_multiplies, with(&pending), wait_for_warp); }

void multiply(float* sums, int columns, std::uint64_t left, std::uint64_t right, bool accumulate, Widen widen) {
  const Multiplication call{left, right, accumulate, columns, widen, sums};
  this_block().meet(Collective::start_multiply, with(&call), start_for_warp);
}

}  // namespace deepsim::cuda::emulation

namespace deepsim::cuda {

using emulation::Collective;
using emulation::this_block;

void init_barrier(Barrier* barrier, int arrivals) { this_block().async().init(barrier, arrivals, this_block().actor()); }
void publish_barriers() { this_block().async().publish(this_block().actor()); }
void wait_phase(Barrier* barrier, unsigned parity) { this_block().wait_phase(barrier, parity); }

void bulk_copy(void* shared, const void* global, int bytes, Barrier* barrier) {
  emulation::Block& block = this_block();
  block.async().start_copy(shared, block.source(global, static_cast<std::size_t>(bytes)), bytes, barrier, block.actor());
}

void fence_multiplies() { this_block().meet(Collective::fence_multiplies, {}, emulation::fence_for_warp); }
void commit_multiplies() { this_block().meet(Collective::commit_multiplies, {}, emulation::commit_for_warp); }

}  // namespace deepsim::cuda
