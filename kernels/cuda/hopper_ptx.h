// The operations of hopper.h as instructions of an NVIDIA GPU, compute capability 9.0a.
#pragma once

namespace deepsim::cuda {

// By one thread, before any other uses the barrier.
DEEPSIM_DEVICE void init_barrier(Barrier* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

// Let copies see the barriers that this thread has made; other threads see them after sync_block.
DEEPSIM_DEVICE void publish_barriers() { asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory"); }

DEEPSIM_DEVICE void arrive(Barrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(shared_address(barrier)) : "memory");
}

// Arrive, and let the phase wait for so many bytes of copies too (below 2^20).
DEEPSIM_DEVICE void arrive_expecting(Barrier* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}

DEEPSIM_DEVICE bool phase_is_over(Barrier* barrier, unsigned parity) {
  unsigned over;
  asm volatile(
      "{\n.reg .pred over;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 over, [%1], %2;\n"
      "selp.u32 %0, 1, 0, over;\n}\n"
      : "=r"(over)
      : "r"(shared_address(barrier)), "r"(parity)
      : "memory");
  return over != 0;
}

DEEPSIM_DEVICE void wait_phase(Barrier* barrier, unsigned parity) {
  while (!phase_is_over(barrier, parity)) {  // each try sleeps for a while
  }
}

// Start copying, both addresses and the size multiples of 16; the barrier's phase completes no earlier than the copy.
DEEPSIM_DEVICE void bulk_copy(void* shared, const void* global, int bytes, Barrier* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::"r"(shared_address(shared)),
      "l"(global), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
}

// One lane of a whole warp.
DEEPSIM_DEVICE bool elected() {
  unsigned is;
  asm volatile("{\n.reg .pred is;\nelect.sync _|is, 0xffffffff;\nselp.u32 %0, 1, 0, is;\n}\n" : "=r"(is));
  return is != 0;
}

// Before the first multiplication, and after other instructions used its registers.
DEEPSIM_DEVICE void fence_multiplies() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }

DEEPSIM_DEVICE void commit_multiplies() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }

// Wait until at most the Pending last groups of this warpgroup's multiplications are under way.
template <int Pending>
DEEPSIM_DEVICE void wait_multiplies() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(Pending) : "memory");
}

// The compiler must not use sums before the last wait: nothing but this says that a multiplication still writes them.
template <int Count>
DEEPSIM_DEVICE void settle(float (&sums)[Count]) {
  DEEPSIM_UNROLL
  for (int i = 0; i < Count; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

// Operands 0 to 9 as %0 ... %9; with t, %t0 ... %t9.
#define DEEPSIM_TEN(t) "%" #t "0,%" #t "1,%" #t "2,%" #t "3,%" #t "4,%" #t "5,%" #t "6,%" #t "7,%" #t "8,%" #t "9,"
#define DEEPSIM_64 DEEPSIM_TEN() DEEPSIM_TEN(1) DEEPSIM_TEN(2) DEEPSIM_TEN(3) DEEPSIM_TEN(4) DEEPSIM_TEN(5) "%60,%61,%62,%63"
#define DEEPSIM_SUMS_4(i) "+f"(sums[i]), "+f"(sums[i + 1]), "+f"(sums[i + 2]), "+f"(sums[i + 3])
#define DEEPSIM_SUMS_16(i) DEEPSIM_SUMS_4(i), DEEPSIM_SUMS_4(i + 4), DEEPSIM_SUMS_4(i + 8), DEEPSIM_SUMS_4(i + 12)
#define DEEPSIM_SUMS_64(i) DEEPSIM_SUMS_16(i), DEEPSIM_SUMS_16(i + 16), DEEPSIM_SUMS_16(i + 32), DEEPSIM_SUMS_16(i + 48)

// The operands after the sums: descriptors, then whether the sums count; 1, 1: no signs turned; 0, 0: both K-major.
#define DEEPSIM_WGMMA(columns, type, registers, left_at, right_at, counts_at, ...)                                  \
  asm volatile("{\n.reg .pred counts;\nsetp.ne.b32 counts, " counts_at                                              \
               ", 0;\n"                                                                                             \
               "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." #type "." #type " {" registers "}, " left_at \
               ", " right_at ", counts, 1, 1, 0, 0;\n}\n"                                                           \
               : __VA_ARGS__                                                                                        \
               : "l"(left), "l"(right), "r"(static_cast<int>(accumulate)))
#define DEEPSIM_MULTIPLY(columns, element, type, registers, left_at, right_at, counts_at, ...)                         \
  template <>                                                                                                          \
  DEEPSIM_DEVICE void multiply_warpgroup<element>(float (&sums)[columns / 2], std::uint64_t left, std::uint64_t right, \
                                                  bool accumulate) {                                                   \
    DEEPSIM_WGMMA(columns, type, registers, left_at, right_at, counts_at, __VA_ARGS__);                                \
  }

// Start sums[64][Columns] = left[64][16] right[16][Columns], plus the old sums with `accumulate`. Lane l of warp w holds
// rows 16 w + l / 4 + 8 h, columns 8 j + l % 4 * 2 + i in sums[4 j + 2 h + i].
template <class Element, int Sums>
DEEPSIM_DEVICE void multiply_warpgroup(float (&sums)[Sums], std::uint64_t left, std::uint64_t right, bool accumulate);

DEEPSIM_MULTIPLY(128, Half, f16, DEEPSIM_64, "%64", "%65", "%66", DEEPSIM_SUMS_64(0))
DEEPSIM_MULTIPLY(128, Brain, bf16, DEEPSIM_64, "%64", "%65", "%66", DEEPSIM_SUMS_64(0))

#undef DEEPSIM_MULTIPLY
#undef DEEPSIM_WGMMA
#undef DEEPSIM_SUMS_64
#undef DEEPSIM_SUMS_16
#undef DEEPSIM_SUMS_4
#undef DEEPSIM_64
#undef DEEPSIM_TEN

}  // namespace deepsim::cuda
