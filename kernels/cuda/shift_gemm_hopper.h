// The matrix product of shift_gemm.h with the instructions of Hopper: the same layer, packed weights, order of steps and
// stores. A lane of one warp copies: the input of each chunk with the rows that its taps reach, and the weights of each step
// in one piece. The warpgroups before it multiply 64 or 128 rows each, straight from shared memory.
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
  int first_row, column_tile, group, split;
  int input_rows, input_count;

  DEEPSIM_DEVICE HopperProduct(const ShiftGemm& l, unsigned char* memory)
      : layer(l), shared(memory), first_row(first_row_of(l, T::rows)), column_tile(block_y()),
        group(block_z() / l.splits), split(block_z() % l.splits), input_rows(T::rows + l.span),
        input_count(T::input_buffers(l.kernel * l.kernel, l.chunks_per_split)) {}

  DEEPSIM_DEVICE int first_chunk() const { return split * layer.chunks_per_split; }
  DEEPSIM_DEVICE int chunk_count() const {
    const int left = layer.chunks - first_chunk();
    return left < layer.chunks_per_split ? left : layer.chunks_per_split;
  }
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

  // One lane: the input of every chunk, whose planes' rows lie together in memory and in shared memory, and after it the
  // weights of the chunk's steps.
  DEEPSIM_DEVICE void feed() const {
    const int taps = layer.kernel * layer.kernel, units = (layer.columns + kUnit - 1) / kUnit;
    const std::ptrdiff_t plane = static_cast<std::ptrdiff_t>(layer.in_plane) * kRow;
    const unsigned char* input = layer.in + (group * layer.group_planes + first_chunk() * T::planes) * plane +
                                 static_cast<std::ptrdiff_t>(first_row + layer.first_shift) * kRow;
    const unsigned char* weights = layer.weights + (static_cast<std::ptrdiff_t>(group * units + column_tile) * layer.chunks +
                                                    first_chunk()) * taps * T::weight_bytes;
    Ring inputs(input_count), stages(T::stages);
    for (int chunk = chunk_count(); chunk > 0; --chunk, inputs.advance()) {
      start_filling(Signal::input_full, Signal::input_free, inputs, T::planes * input_rows * kRow);
      for (int p = 0; p < T::planes; ++p, input += plane)
        bulk_copy(input_at(inputs.index) + p * input_rows * kRow, input, input_rows * kRow,
                  barrier(Signal::input_full, inputs.index));
      for (int tap = 0; tap < taps; ++tap, weights += T::weight_bytes, stages.advance()) {
        start_filling(Signal::weights_full, Signal::weights_free, stages, T::weight_bytes - Policy::missing_bytes);
        bulk_copy(weights_at(stages.index), weights, T::weight_bytes, barrier(Signal::weights_full, stages.index));
      }
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
  DEEPSIM_DEVICE void multiply(int input, int stage, int tap_shift, bool first, float (&sums)[T::matrices][T::columns / 2]) const {
    const int row = thread_index() / kWarpgroup * T::matrices * 64 + tap_shift;
    const unsigned left = shared_address(input_at(input)) + row * kRow, right = shared_address(weights_at(stage));
    fence_multiplies();
    DEEPSIM_UNROLL
    for (int k = 0; k < T::planes; k += 2)
      DEEPSIM_UNROLL
      for (int i = 0; i < T::matrices; ++i)
        multiply_warpgroup<typename T::Element>(
            sums[i], describe_operand(left + (k * input_rows + i * 64) * kRow, input_rows * kRow, 128),
            describe_operand(right + k * T::columns * kRow, T::columns * kRow, 128), !first || k > 0);
    commit_multiplies();
  }

  // Each step's multiplications start before those of the step before are waited for; then that step's buffers are free.
  DEEPSIM_DEVICE void consume(float (&sums)[T::matrices][T::columns / 2]) const {
    Ring input(input_count), weights(T::stages);
    for (int chunk = 0; chunk < chunk_count(); ++chunk, input.advance()) {
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
    DEEPSIM_UNROLL
    for (int i = 0; i < T::matrices; ++i) settle(sums[i]);
  }
};

template <class T, Store kStore, class Policy = HopperCorrect>
DEEPSIM_DEVICE void shift_gemm_hopper(const ShiftGemm& layer, unsigned char* shared) {
  static_assert(kStore != Store::pixels);
  using Element = typename T::Element;
  const HopperProduct<T, Policy> product(layer, shared);
  product.make_barriers();
  const bool consumes = thread_index() < T::consumers * kWarpgroup;
  constexpr int rows = T::matrices * 2, pairs = T::columns / 8;
  float sums[T::matrices][T::columns / 2];
  DEEPSIM_UNROLL
  for (int i = 0; i < T::matrices; ++i)
    DEEPSIM_UNROLL
    for (int j = 0; j < T::columns / 2; ++j) sums[i][j] = 0.0f;
  const Share share{product.group, product.split, product.column_tile * T::columns + thread_index() % 4 * 8, product.first_row};
  const int warp = thread_index() / 32, row = product.first_row + warp / 4 * T::matrices * 64 + warp % 4 * 16 + thread_index() % 32 / 4;
  const auto row_of_share = [&](int r) { return row + r / 2 * 64 + r % 2 * 8; };
  const auto sum = [&](int r, int j) { return Pair{sums[r / 2][j * 4 + r % 2 * 2], sums[r / 2][j * 4 + r % 2 * 2 + 1]}; };
  if (consumes) {
    product.consume(sums);
    if constexpr (kStore == Store::partial) {
      store_part<rows, pairs>(layer, share, row_of_share, sum);
    } else {
      store_values<kStore, Element, rows, pairs>(layer, share, row_of_share, sum);
    }
  } else if (elected()) {
    product.feed();
  }
  if constexpr (kStore == Store::partial) {
    if (!consumes) sync_warp();  // of whose lanes one copied
    const int tile = (product.group * layer.column_tiles + product.column_tile) * layer.row_tiles + block_x();
    if (!last_to_be_ready(layer.ready + tile, layer.splits) || !consumes) return;
    add_parts<rows, pairs>(layer, share, row_of_share, [&](int r, int j, int split, const Four& part) {
      DEEPSIM_UNROLL
      for (int i = 0; i < 4; ++i) {
        float& own = sums[r / 2][(j + i / 2) * 4 + r % 2 * 2 + i % 2];
        own = split == 0 ? part.values[i] : own + part.values[i];
      }
    });
    store_whole<Element, rows, pairs>(layer, share, row_of_share, sum);
  }
}

}  // namespace deepsim::cuda
