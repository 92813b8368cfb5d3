// The matrix product of shift_gemm.h with the instructions of Hopper: the same layer, packed weights, order of steps and
// stores. A lane of one warp copies: the input of each chunk with the rows that its taps reach, and the weights of each step
// in one piece. The warpgroups before it multiply 64 or 128 rows each, straight from shared memory. A block computes one tile
// after the other: what the next one needs is copied while this one is stored, and weights of few steps are copied once.
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
  static constexpr bool releases_at_end = true;  // of a tile, the buffers of its last step
  static constexpr int missing_bytes = 0;  // of what a phase expects
  static constexpr bool waits_for_earlier = true, waits_late = false;  // late: when the first input is already read
};

// Buffers used one after the other, and which phase of their barriers this is; after so many uses of them.
struct Ring {
  int count, index;
  unsigned parity;

  DEEPSIM_DEVICE Ring(int buffers, int uses)
      : count(buffers), index(uses % buffers), parity(static_cast<unsigned>(uses / buffers % 2)) {}
  DEEPSIM_DEVICE int before() const { return index == 0 ? count - 1 : index - 1; }
  DEEPSIM_DEVICE void advance() {
    if (++index < count) return;
    index = 0;
    parity ^= 1;
  }
};

enum class Signal { weights_full, weights_free, input_full, input_free };

// A tile of the product, or a part of its sum: blocks of whole sums take tiles column by column, those of parts the one that
// the grid has for them.
struct TileAt {
  int first_row, column_tile, group, split;

  template <class T, bool kInParts>
  DEEPSIM_DEVICE static TileAt of(const ShiftGemm& layer, int tile) {
    if (kInParts) {
      return {first_row_of(layer, T::rows, block_x()), block_y(), block_z() / layer.splits, block_z() % layer.splits};
    }
    const int column = divide(tile, layer.row_tiles), group = divide(column, layer.column_tiles);
    const int row_tile = tile - column * layer.row_tiles.value, column_tile = column - group * layer.column_tiles.value;
    return {first_row_of(layer, T::rows, row_tile), column_tile, group, 0};
  }
};

template <class T, class Policy>
struct HopperProduct {
  const ShiftGemm& layer;
  unsigned char* shared;
  int input_rows, input_count, taps;
  bool keeps_weights;  // the same for all tiles, and as many as there are buffers

  DEEPSIM_DEVICE HopperProduct(const ShiftGemm& l, unsigned char* memory)
      : layer(l),
        shared(memory),
        input_rows(T::rows + l.span),
        input_count(T::input_buffers(l.kernel * l.kernel, l.chunks_per_split)),
        taps(l.kernel * l.kernel),
        keeps_weights(l.splits == 1 && l.column_tiles.value * l.groups == 1 && l.chunks * taps <= T::stages) {}

  // The buffers of a block's tile number `turn`, all of whose tiles have as many steps.
  DEEPSIM_DEVICE Ring input_ring(int turn) const { return Ring(input_count, turn * layer.chunks); }
  DEEPSIM_DEVICE Ring stage_ring(int turn) const { return Ring(T::stages, keeps_weights ? 0 : turn * layer.chunks * taps); }

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

  DEEPSIM_DEVICE void feed_weights(const unsigned char*& weights, Ring& stages) const {
    start_filling(Signal::weights_full, Signal::weights_free, stages, T::weight_bytes - Policy::missing_bytes);
    bulk_copy(weights_at(stages.index), weights, T::weight_bytes, barrier(Signal::weights_full, stages.index));
    weights += T::weight_bytes;
    stages.advance();
  }

  // One lane: the input of every chunk, whose planes' rows lie together in memory and in shared memory, and after it the
  // weights of the chunk's steps; but those of the block's first steps come while the kernels before are still at work.
  DEEPSIM_DEVICE void feed(const TileAt& at, int turn) const {
    Ring inputs = input_ring(turn), stages = stage_ring(turn);
    const std::ptrdiff_t plane = static_cast<std::ptrdiff_t>(layer.in_plane) * kRow;
    const int first_chunk = at.split * layer.chunks_per_split, units = (layer.columns + kUnit - 1) / kUnit;
    const int chunks = chunks_of(layer, at.split);
    const unsigned char* input = layer.in + (at.group * layer.group_planes + first_chunk * T::planes) * plane +
                                 static_cast<std::ptrdiff_t>(at.first_row + layer.first_shift) * kRow;
    const unsigned char* weights =
        layer.weights +
        (static_cast<std::ptrdiff_t>(at.group * units + at.column_tile) * layer.chunks + first_chunk) * taps * T::weight_bytes;
    int fed = keeps_weights && turn > 0 ? chunks * taps : 0;  // steps whose weights need no copy any more
    if (turn == 0) {
      for (; fed < smaller(chunks * taps, T::stages); ++fed) feed_weights(weights, stages);
      if (Policy::waits_for_earlier && !Policy::waits_late) wait_for_earlier();
    }
    for (int chunk = 0; chunk < chunks; ++chunk, inputs.advance()) {
      start_filling(Signal::input_full, Signal::input_free, inputs, T::planes * input_rows * kRow);
      for (int p = 0; p < T::planes; ++p, input += plane)
        bulk_copy(input_at(inputs.index) + p * input_rows * kRow, input, input_rows * kRow,
                  barrier(Signal::input_full, inputs.index));
      if (Policy::waits_late && turn == 0 && chunk == 0) wait_for_earlier();
      for (; fed < (chunk + 1) * taps; ++fed) feed_weights(weights, stages);
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
  DEEPSIM_DEVICE void multiply(int input, int stage, int tap_shift, bool first,
                               float (&sums)[T::matrices][T::columns / 2]) const {
    const int row = thread_index() / kWarpgroup * T::matrices * 64 + tap_shift;
    const unsigned left = shared_address(input_at(input)) + row * kRow, right = shared_address(weights_at(stage));
    sync_warp();  // a lane or two may have waited longer
    fence_multiplies();
    DEEPSIM_UNROLL
    for (int k = 0; k < T::planes; k += 2) DEEPSIM_UNROLL
    for (int i = 0; i < T::matrices; ++i)
      multiply_warpgroup<typename T::Element>(
          sums[i], describe_operand(left + (k * input_rows + i * 64) * kRow, input_rows * kRow, 128),
          describe_operand(right + k * T::columns * kRow, T::columns * kRow, 128), !first || k > 0);
    commit_multiplies();
  }

  // Each step's multiplications start before those of the step before are waited for; then that step's buffers are free.
  DEEPSIM_DEVICE void consume(int chunks, int turn, float (&sums)[T::matrices][T::columns / 2]) const {
    Ring input = input_ring(turn), weights = stage_ring(turn);
    for (int chunk = 0; chunk < chunks; ++chunk, input.advance()) {
      wait_full(Signal::input_full, input);
      for (int row = 0; row < layer.kernel; ++row)
        for (int column = 0; column < layer.kernel; ++column, weights.advance()) {
          wait_full(Signal::weights_full, weights);
          const bool first_tap = row + column == 0, first = first_tap && chunk == 0;
          multiply(input.index, weights.index, row * layer.pitch + column, first, sums);
          wait_multiplies<1 + Policy::lax>();
          if (!first && !keeps_weights) release(Signal::weights_free, weights.before());
          if (!first && first_tap) release(Signal::input_free, input.before());
        }
    }
    wait_multiplies<0>();
    if (Policy::releases_at_end) {
      if (!keeps_weights) release(Signal::weights_free, weights.before());
      release(Signal::input_free, input.before());
    }
    DEEPSIM_UNROLL
    for (int i = 0; i < T::matrices; ++i) settle(sums[i]);
  }
};

// How the sums of a multiplying thread lie in registers, and what they are of.
template <class T>
struct HopperSums {
  static constexpr int rows = T::matrices * 2, pairs = T::columns / 8;
  float values[T::matrices][T::columns / 2];

  DEEPSIM_DEVICE float* pair(int r, int j) { return values[r / 2] + j * 4 + r % 2 * 2; }
  DEEPSIM_DEVICE static Share share(const TileAt& at) {
    return {at.group, at.split, at.column_tile * T::columns + anew(thread_index()) % 4 * 8};
  }
  DEEPSIM_DEVICE static int first_row(const TileAt& at) {
    const int thread = anew(thread_index()), warp = thread / 32;
    return at.first_row + warp / 4 * T::matrices * 64 + warp % 4 * 16 + thread % 32 / 4;
  }
  DEEPSIM_DEVICE static int row(int first, int r) { return first + r / 2 * 64 + r % 2 * 8; }
};

// A part of a tile's sum, and the sum of all parts by the block that is the last to be ready.
template <class T, class Policy>
DEEPSIM_DEVICE void add_up(const HopperProduct<T, Policy>& product, bool consumes) {
  using Sums = HopperSums<T>;
  const ShiftGemm& layer = product.layer;
  const TileAt at = TileAt::of<T, true>(layer, 0);
  const int first = Sums::first_row(at);
  const auto row = [&](int r) { return Sums::row(first, r); };
  Sums sums;
  const auto pair = [&](int r, int j) { return sums.pair(r, j); };
  if (consumes) {
    let_later_start();
    product.consume(chunks_of(layer, at.split), 0, sums.values);
    store_part<Sums::rows, Sums::pairs>(layer, Sums::share(at), row, pair);
  } else {
    if (elected()) product.feed(at, 0);
    sync_warp();  // of whose lanes one copied
  }
  if (!last_to_be_ready(ready_of(layer, at.group, at.column_tile), layer.splits) || !consumes) return;
  add_parts<Sums::rows, Sums::pairs>(layer, Sums::share(at), row, pair);
  store_whole<typename T::Element, Sums::rows, Sums::pairs>(layer, Sums::share(at), row, pair);
}

// The tile that a block takes in its turn.
DEEPSIM_DEVICE int tile_of(const ShiftGemm& layer, int turn) { return block_x() + turn * layer.blocks; }

// One tile after the other; what a tile's sums are of is looked at when they are there, and takes no registers before.
template <class T, Store kStore, class Policy>
DEEPSIM_DEVICE void compute_tiles(const HopperProduct<T, Policy>& product) {
  using Sums = HopperSums<T>;
  const ShiftGemm& layer = product.layer;
  for (int turn = 0; tile_of(layer, turn) < layer.tiles; ++turn) {
    Sums sums;
    if (tile_of(layer, turn + 1) >= layer.tiles) let_later_start();
    product.consume(layer.chunks, turn, sums.values);
    const TileAt at = TileAt::of<T, false>(layer, tile_of(layer, anew(turn)));
    const int first = Sums::first_row(at);
    store_values<kStore, typename T::Element, Sums::rows, Sums::pairs>(
        layer, Sums::share(at), [&](int r) { return Sums::row(first, r); }, [&](int r, int j) { return sums.pair(r, j); });
  }
}

template <class T, Store kStore, class Policy = HopperCorrect>
DEEPSIM_DEVICE void shift_gemm_hopper(const ShiftGemm& layer, unsigned char* shared) {
  static_assert(kStore != Store::pixels);
  const HopperProduct<T, Policy> product(layer, shared);
  product.make_barriers();
  const bool consumes = thread_index() < T::consumers * kWarpgroup;
  if (Policy::waits_for_earlier && consumes) wait_for_earlier();  // before they store
  if constexpr (kStore == Store::partial) {
    add_up<T>(product, consumes);
  } else if (consumes) {
    compute_tiles<T, kStore>(product);
  } else if (elected()) {
    for (int turn = 0; tile_of(layer, turn) < layer.tiles; ++turn)
      product.feed(TileAt::of<T, false>(layer, tile_of(layer, turn)), turn);
  }
}

}  // namespace deepsim::cuda
