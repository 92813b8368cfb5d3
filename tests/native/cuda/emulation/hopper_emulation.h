// The operations of hopper.h on a host, for tests. Copies and multiplications are done as late as they may, and what is
// used too early, overwritten too early or waited for in vain is a Violation; see emulation/async.h and warpgroup.h.
#pragma once

namespace deepsim::cuda::emulation {

constexpr unsigned shared_window = 1024;  // where shared memory begins in its addresses; not at 0 on Hopper either

void arrive(Barrier* barrier, int bytes);
void wait_multiplies(int pending);
void multiply(float* sums, int columns, std::uint64_t left, std::uint64_t right, bool accumulate,
              void (*widen)(const std::uint16_t* from, int count, float* to));

template <class Element>
void widen(const std::uint16_t* from, int count, float* to) {
  for (int i = 0; i < count; ++i) to[i] = from_bits(from[i], Element{});
}

}  // namespace deepsim::cuda::emulation

namespace deepsim::cuda {

DEEPSIM_DEVICE unsigned shared_address(const void* shared) {
  const auto* bytes = static_cast<const unsigned char*>(shared);
  return emulation::shared_window + static_cast<unsigned>(bytes - emulation::position.shared);
}

void init_barrier(Barrier* barrier, int arrivals);
void publish_barriers();
DEEPSIM_DEVICE void arrive(Barrier* barrier) { emulation::arrive(barrier, 0); }
DEEPSIM_DEVICE void arrive_expecting(Barrier* barrier, int bytes) { emulation::arrive(barrier, bytes); }
void wait_phase(Barrier* barrier, unsigned parity);
void bulk_copy(void* shared, const void* global, int bytes, Barrier* barrier);

DEEPSIM_DEVICE bool elected() { return thread_index() % 32 == 0; }

void fence_multiplies();
void commit_multiplies();
template <int Pending>
DEEPSIM_DEVICE void wait_multiplies() {
  emulation::wait_multiplies(Pending);
}

template <int Count>
DEEPSIM_DEVICE void settle(float (&)[Count]) {}

template <class Element, int Sums>
DEEPSIM_DEVICE void multiply_warpgroup(float (&sums)[Sums], std::uint64_t left, std::uint64_t right, bool accumulate) {
  emulation::multiply(sums, 2 * Sums, left, right, accumulate, emulation::widen<Element>);
}

}  // namespace deepsim::cuda
