// The matrix product of shift_gemm.h with the instructions of Hopper: the same layer, packed weights, order of steps and
// stores. One warpgroup copies: a lane of one warp feeds the weights of each step, a lane of another the input of each
// chunk with the rows that its taps reach. The other warpgroups multiply 64 rows each, straight from shared memory.
//
// Each buffer has two barriers. "full": the copying lane arrives with the bytes that it expects. "free": a lane of every
// multiplying warp arrives when the multiplications that read the buffer are over. The k-th use of a buffer (from 0)
// waits for parity k % 2 of full, and its refill for use k - 1 of free, parity (k - 1) % 2: so for k = 0, parity 1, it
// does not wait at all.
//
// The sums of a tile's chunks and taps are added in the order of shift_gemm.h, but inside a step the tensor cores add in
// an order that is theirs: results are as close to the exact ones, not equal to those of mma.sync bit for bit.
#pragma once

#include "epilogue.h"
#include "hopper.h"
#include "layers.h"
#include "tile.h"

namespace deepsim::cuda {

// What may be broken on purpose, to see that the checks notice.
struct HopperCorrect {
  static constexpr bool waits_until_full = true, waits_until_free = true;
  static constexpr unsigned full_parity = 0, free_parity = 0;  // 1: wait for the wrong phase
  static constexpr int lax = 0;  // groups of multiplications too many under way when a buffer is freed
  static constexpr int missing_bytes = 0;  // of what a phase expects
};

// Buffers used one after the other, and which phase of their barriers this is.
struct Ring {
  int count;
  int index = 0;
  unsigned parity = 0;

  DEEPSIM_DEVICE explicit Ring(int buffers) : count(buffers) {}
  DEEPSIM_DEVICE int before() const { return index == 0 ? count - 1 : index - 1; }
  DEEPSIM_DEVICE void advance() {
    if (++index < count) return;
    index = 0;
    parity ^= 1;
  }
};

enum class Signal { weights_full, weights_free, input_full, input_free };

template <class T, class Policy>
struct HopperProduct {
  const ShiftGemm& layer;
  unsigned char* shared;
  int first_row, column_tile, group;
  int input_rows, input_count;

  DEEPSIM_DEVICE HopperProduct(const ShiftGemm& l, unsigned char* memory)
      : layer(l), shared(memory), first_row(first_row_of(l, T::rows)), column_tile(block_y()), group(block_z()),
        input_rows(T::rows + l.span), input_count(T::input_buffers(l.kernel * l.kernel, l.chunks)) {}

  DEEPSIM_DEVICE Barrier* barrier(Signal signal, int buffer) const {
    return reinterpret_cast<Barrier*>(shared) + static_cast<int>(signal) * 8 + buffer;
  }
  DEEPSIM_DEVICE unsigned char* weights_at(int buffer) const { return shared + kBarrierBytes + buffer * T::weight_bytes; }
  DEEPSIM_DEVICE unsigned char* input_at(int buffer) const {
    return weights_at(T::stages) + buffer * T::planes * input_rows * kRow;
  }

  DEEPSIM_DEVICE void make_barriers() const {
    if (thread_index() == 0) {
      for (int i = 0; i < T::stages; ++i) {
        init_barrier(barrier(Signal::weights_full, i), 1);
        init_barrier(barrier(Signal::weights_free, i), T::consumers * 4);
      }
      for (int i = 0; i < input_count; ++i) {
        init_barrier(barrier(Signal::input_full, i), 1);
        init_barrier(barrier(Signal::input_free, i), T::consumers * 4);
      }
      publish_barriers();
    }
    sync_block();
  }

  // Wait for a free buffer and tell how many bytes will fill it.
  DEEPSIM_DEVICE void start_filling(Signal full, Signal free, const Ring& ring, int bytes) const {
    if (Policy::waits_until_free) wait_phase(barrier(free, ring.index), ring.parity ^ 1 ^ Policy::free_parity);
    arrive_expecting(barrier(full, ring.index), bytes);
  }

  // One lane: the input of every chunk. A plane's rows lie together in memory, and in shared memory.
  DEEPSIM_DEVICE void feed_input() const {
    const std::ptrdiff_t plane = static_cast<std::ptrdiff_t>(layer.in_plane) * kRow;
    const unsigned char* from = layer.in + group * layer.group_planes * plane +
                                static_cast<std::ptrdiff_t>(first_row + layer.first_shift) * kRow;
    Ring ring(input_count);
    for (int chunk = 0; chunk < layer.chunks; ++chunk, ring.advance()) {
      start_filling(Signal::input_full, Signal::input_free, ring, T::planes * input_rows * kRow);
      for (int p = 0; p < T::planes; ++p, from += plane)
        bulk_copy(input_at(ring.index) + p * input_rows * kRow, from, input_rows * kRow,
                  barrier(Signal::input_full, ring.index));
    }
  }

  // The packed weights of one of the tile's units of columns; where the layer has no more, of the last, never stored.
  DEEPSIM_DEVICE const unsigned char* weights_of(int unit) const {
    const int units = (layer.columns + kUnit - 1) / kUnit, wanted = column_tile * (T::columns / kUnit) + unit;
    const int index = group * units + (wanted < units ? wanted : units - 1);
    const int steps = layer.chunks * layer.kernel * layer.kernel;
    return layer.weights + static_cast<std::ptrdiff_t>(index) * steps * (T::planes * kUnit * kRow);
  }

  // One lane: the weights of every step. A unit's planes lie together in memory; in shared memory a plane's units do,
  // so that its columns follow each other at one stride.
  DEEPSIM_DEVICE void feed_weights() const {
    constexpr int units = T::columns / kUnit;
    const unsigned char* from[units];
    DEEPSIM_UNROLL
    for (int unit = 0; unit < units; ++unit) from[unit] = weights_of(unit);
    Ring ring(T::stages);
    for (int left = layer.chunks * layer.kernel * layer.kernel; left > 0; --left, ring.advance()) {
      start_filling(Signal::weights_full, Signal::weights_free, ring, T::weight_bytes - Policy::missing_bytes);
      DEEPSIM_UNROLL
      for (int p = 0; p < T::planes; ++p)
        DEEPSIM_UNROLL
        for (int unit = 0; unit < units; ++unit, from[unit - 1] += kUnit * kRow)
          bulk_copy(weights_at(ring.index) + (p * T::columns + unit * kUnit) * kRow, from[unit], kUnit * kRow,
                    barrier(Signal::weights_full, ring.index));
    }
  }

  DEEPSIM_DEVICE void wait_full(Signal full, const Ring& ring) const {
    if (Policy::waits_until_full) wait_phase(barrier(full, ring.index), ring.parity ^ Policy::full_parity);
  }

  // A lane of each warp arrives: that a warp's wait covers the other three's part of a multiplication, the ISA does not
  // say plainly.
  DEEPSIM_DEVICE void release(Signal free, int buffer) const {
    if (thread_index() % 32 == 0) arrive(barrier(free, buffer));
  }

  // Start sums += the input, shifted by this tap, times the step's weights.
  DEEPSIM_DEVICE void multiply(int input, int stage, int tap_shift, bool first, float (&sums)[T::columns / 2]) const {
    const int row = thread_index() / kWarpgroup * 64 + tap_shift;
    const unsigned left = shared_address(input_at(input)) + row * kRow, right = shared_address(weights_at(stage));
    fence_multiplies();
    DEEPSIM_UNROLL
    for (int k = 0; k < T::planes; k += 2)
      multiply_warpgroup<typename T::Element>(sums, describe_operand(left + k * input_rows * kRow, input_rows * kRow, 128),
                                              describe_operand(right + k * T::columns * kRow, T::columns * kRow, 128),
                                              !first || k > 0);
    commit_multiplies();
  }

  // Each step's multiplications start before those of the step before are waited for; then that step's buffers are free.
  DEEPSIM_DEVICE void consume(float (&sums)[T::columns / 2]) const {
    Ring input(input_count), weights(T::stages);
    for (int chunk = 0; chunk < layer.chunks; ++chunk, input.advance()) {
      wait_full(Signal::input_full, input);
      for (int row = 0; row < layer.kernel; ++row)
        for (int column = 0; column < layer.kernel; ++column, weights.advance()) {
          wait_full(Signal::weights_full, weights);
          const bool first_tap = row + column == 0, first = first_tap && chunk == 0;
          multiply(input.index, weights.index, row * layer.pitch + column, first, sums);
          wait_multiplies<1 + Policy::lax>();
          if (!first) release(Signal::weights_free, weights.before());
          if (!first && first_tap) release(Signal::input_free, input.before());
        }
    }
    wait_multiplies<0>();
    settle(sums);
  }
};

// The registers of a multiprocessor are 64 x 1024: 3 x 128 threads start with 168 each, of which the copying warpgroup
// keeps 40 (all that it needs is a few addresses) and two others take 232.
template <class T, Store kStore, class Policy = HopperCorrect>
DEEPSIM_DEVICE void shift_gemm_hopper(const ShiftGemm& layer, unsigned char* shared) {
  static_assert(T::consumers == 2 && kStore != Store::pixels && kStore != Store::partial);
  const HopperProduct<T, Policy> product(layer, shared);
  product.make_barriers();
  const int warpgroup = thread_index() / kWarpgroup;
  if (warpgroup == T::consumers) {
    keep_registers<40>();
    const int thread = thread_index() % kWarpgroup;
    if (thread == 0) product.feed_weights();
    if (thread == 32) product.feed_input();
  } else {
    take_registers<232>();
    float sums[T::columns / 2];
    product.consume(sums);
    const int lane = thread_index() % 32, warp = thread_index() / 32;
    const int row = product.first_row + warp * 16 + lane / 4, column = product.column_tile * T::columns + lane % 4 * 2;
    store<kStore, typename T::Element, 2, T::columns / 8>(
        layer, {product.group, 0, column, product.first_row}, [&](int r) { return row + r * 8; },
        [&](int r, int j) { return Pair{sums[j * 4 + r * 2], sums[j * 4 + r * 2 + 1]}; }, shared);
  }
}

}  // namespace deepsim::cuda
