// The operations of device.h as instructions of an NVIDIA GPU, compute capability 7.5 and later.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define DEEPSIM_DEVICE __device__ __forceinline__
#define DEEPSIM_KERNEL(threads, blocks) __global__ void __launch_bounds__(threads, blocks)
#define DEEPSIM_ARGUMENT const __grid_constant__
#define DEEPSIM_SHARED_MEMORY(name) extern __shared__ __align__(128) unsigned char name[]
#define DEEPSIM_UNROLL _Pragma("unroll")
#define DEEPSIM_NO_UNROLL _Pragma("unroll 1")

namespace deepsim::cuda {

DEEPSIM_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
// What is made of it is computed where it is used, instead of kept in registers that are wanted for something else.
DEEPSIM_DEVICE int anew(int value) {
  asm volatile("" : "+r"(value));
  return value;
}
DEEPSIM_DEVICE int block_x() { return static_cast<int>(blockIdx.x); }
DEEPSIM_DEVICE int block_y() { return static_cast<int>(blockIdx.y); }
DEEPSIM_DEVICE int block_z() { return static_cast<int>(blockIdx.z); }

DEEPSIM_DEVICE std::uint32_t high_product(std::uint32_t a, std::uint32_t b) { return __umulhi(a, b); }

DEEPSIM_DEVICE void sync_block() { __syncthreads(); }
DEEPSIM_DEVICE void sync_warp() { __syncwarp(); }

// A kernel may start before the one before it has ended (runtime/native/src/cuda/graphs.h). Until a thread has waited for it,
// it uses only what no kernel ever writes. The next kernel may start as soon as all blocks have told so, or ended, and waits
// for this one's end all the same; blocks tell it after their own wait, so that no third kernel is under way.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
constexpr bool kStartsEarly = true;
DEEPSIM_DEVICE void wait_for_earlier() { asm volatile("griddepcontrol.wait;\n" ::: "memory"); }
DEEPSIM_DEVICE void let_later_start() { asm volatile("griddepcontrol.launch_dependents;\n" ::: "memory"); }
#else
constexpr bool kStartsEarly = false;
DEEPSIM_DEVICE void wait_for_earlier() {}
DEEPSIM_DEVICE void let_later_start() {}
#endif

// Tell that this block's part of something is ready, and whether it was the last of `count`: who it is reads what the others
// stored before, by load_fresh. `ready` counts up from 0, and is 0 again afterwards.
DEEPSIM_DEVICE bool last_to_be_ready(unsigned* ready, int count) {
  __syncthreads();  // the atomic operation then tells of all threads' stores, as the barrier after it does of what it heard
  bool last = false;
  if (threadIdx.x == 0) {
    unsigned before;
    const unsigned most = static_cast<unsigned>(count) - 1;
    asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;\n"
                 : "=r"(before)
                 : "l"(__cvta_generic_to_global(ready)), "r"(most)
                 : "memory");
    last = before == most;
  }
  return __syncthreads_or(last) != 0;
}

// From the cache of all multiprocessors.
DEEPSIM_DEVICE Four load_fresh(const Four* from) {
  Four four;
  asm volatile("ld.global.cg.v4.f32 {%0,%1,%2,%3}, [%4];\n"
               : "=f"(four.values[0]), "=f"(four.values[1]), "=f"(four.values[2]), "=f"(four.values[3])
               : "l"(__cvta_generic_to_global(from))
               : "memory");
  return four;
}

// What no kernel ever writes, so that stores in between do not delay the load.
DEEPSIM_DEVICE Four load_constant(const float* from) {
  const float4 four = __ldg(reinterpret_cast<const float4*>(from));
  return {{four.x, four.y, four.z, four.w}};
}

DEEPSIM_DEVICE unsigned shared_address(const void* shared) { return static_cast<unsigned>(__cvta_generic_to_shared(shared)); }

// Where something is in shared memory: an address of 32 bits, which a kernel moves on from step to step. Made of a pointer
// in each step, it would be computed from the block's place among those that share memory, each time anew.
struct SharedBytes {
  unsigned address;
  DEEPSIM_DEVICE SharedBytes operator+(int bytes) const { return {address + static_cast<unsigned>(bytes)}; }
  DEEPSIM_DEVICE SharedBytes& operator+=(int bytes) { return *this = *this + bytes; }
};
DEEPSIM_DEVICE SharedBytes in_shared(unsigned char* shared) { return {shared_address(shared)}; }

// 16 bytes on their way from global to shared memory, both addresses multiples of 16; no kernel writes the former meanwhile
// (below compute capability 8.0, where no kernel starts early).
using Sixteen = uint4;
DEEPSIM_DEVICE Sixteen load_sixteen(const void* global) { return __ldg(static_cast<const uint4*>(global)); }
DEEPSIM_DEVICE void store_sixteen(SharedBytes to, const Sixteen& value) {
  asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};\n" ::"r"(to.address), "r"(value.x), "r"(value.y), "r"(value.z),
               "r"(value.w)
               : "memory");
}

// Start copying 16 bytes. Without cp.async (7.5) the copy is done at once.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool kCopiesBeside = false;
DEEPSIM_DEVICE void copy_async(SharedBytes to, const void* global) { store_sixteen(to, load_sixteen(global)); }
#else
constexpr bool kCopiesBeside = true;
DEEPSIM_DEVICE void copy_async(SharedBytes to, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(to.address), "l"(global) : "memory");
}
#endif

DEEPSIM_DEVICE void commit_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}

// Wait until at most the Pending last groups of this thread's copies are under way.
template <int Pending>
DEEPSIM_DEVICE void wait_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;\n" ::"n"(Pending) : "memory");
#endif
}

template <class T>
DEEPSIM_DEVICE T shared_load(const T* from) {
  return *from;
}

template <class T>
DEEPSIM_DEVICE void shared_store(T* to, T value) {
  *to = value;
}

DEEPSIM_DEVICE Four load_four(SharedBytes from) {
  Four four;
  asm volatile("ld.shared.v4.f32 {%0,%1,%2,%3}, [%4];\n"
               : "=f"(four.values[0]), "=f"(four.values[1]), "=f"(four.values[2]), "=f"(four.values[3])
               : "r"(from.address)
               : "memory");
  return four;
}

// Four 8x8 matrices of 16-bit values: lane l gives the address of row l % 8 of matrix l / 8.
DEEPSIM_DEVICE void load_matrices(std::uint32_t (&values)[4], SharedBytes row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(values[0]), "=r"(values[1]), "=r"(values[2]), "=r"(values[3])
               : "r"(row.address));
}

// c[16][8] += a[16][16] b[16][8], each spread over the warp as mma.m16n8k16 has it; fp32 sums.
template <class Element>
DEEPSIM_DEVICE void multiply_add(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1);

template <>
DEEPSIM_DEVICE void multiply_add<Half>(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(b0));
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}

template <>
DEEPSIM_DEVICE void multiply_add<Brain>(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  __trap();  // no bfloat16 before compute capability 8.0; the loader does not choose it there
#endif
}

// a b + c, rounded once.
DEEPSIM_DEVICE float multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }

template <class Element>
DEEPSIM_DEVICE typename Element::Two pack(float low, float high);
template <>
DEEPSIM_DEVICE std::uint32_t pack<Half>(float low, float high) {
  const __half2 packed = __floats2half2_rn(low, high);
  return reinterpret_cast<const std::uint32_t&>(packed);
}
template <>
DEEPSIM_DEVICE std::uint32_t pack<Brain>(float low, float high) {
  const __nv_bfloat162 packed = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const std::uint32_t&>(packed);
}
template <>
DEEPSIM_DEVICE std::uint64_t pack<Single>(float low, float high) {
  return __float_as_uint(low) | std::uint64_t{__float_as_uint(high)} << 32;
}

template <class Element>
DEEPSIM_DEVICE Pair unpack(typename Element::Two packed);
template <>
DEEPSIM_DEVICE Pair unpack<Half>(std::uint32_t packed) {
  const float2 values = __half22float2(reinterpret_cast<const __half2&>(packed));
  return {values.x, values.y};
}
template <>
DEEPSIM_DEVICE Pair unpack<Brain>(std::uint32_t packed) {
  return {__uint_as_float(packed << 16), __uint_as_float(packed & 0xffff0000u)};
}
template <>
DEEPSIM_DEVICE Pair unpack<Single>(std::uint64_t packed) {
  return {__uint_as_float(static_cast<std::uint32_t>(packed)), __uint_as_float(static_cast<std::uint32_t>(packed >> 32))};
}

// The larger of each of two neighbours; of a number and NaN the number.
template <class Element>
DEEPSIM_DEVICE typename Element::Two larger(typename Element::Two a, typename Element::Two b);
template <>
DEEPSIM_DEVICE std::uint32_t larger<Half>(std::uint32_t a, std::uint32_t b) {
  const __half2 most = __hmax2(reinterpret_cast<const __half2&>(a), reinterpret_cast<const __half2&>(b));
  return reinterpret_cast<const std::uint32_t&>(most);
}
template <>
DEEPSIM_DEVICE std::uint32_t larger<Brain>(std::uint32_t a, std::uint32_t b) {
  const __nv_bfloat162 most = __hmax2(reinterpret_cast<const __nv_bfloat162&>(a), reinterpret_cast<const __nv_bfloat162&>(b));
  return reinterpret_cast<const std::uint32_t&>(most);
}
template <>
DEEPSIM_DEVICE std::uint64_t larger<Single>(std::uint64_t a, std::uint64_t b) {
  const Pair left = unpack<Single>(a), right = unpack<Single>(b);
  return pack<Single>(fmaxf(left.low, right.low), fmaxf(left.high, right.high));
}

DEEPSIM_DEVICE float square_root(float x) { return __fsqrt_rn(x); }
DEEPSIM_DEVICE float reciprocal_root(float x) { return rsqrtf(x); }  // within 2 units in the last place
DEEPSIM_DEVICE float quotient(float a, float b) { return __fdiv_rn(a, b); }
DEEPSIM_DEVICE float hyperbolic_tangent(float x) { return tanhf(x); }

// Rounded half to even, from 0 to 255; 0 for NaN.
DEEPSIM_DEVICE std::uint32_t to_byte(float x) {
  std::uint32_t byte;
  asm("cvt.rni.sat.u8.f32 %0, %1;\n" : "=r"(byte) : "f"(x));
  return byte;
}

// Four bytes of shared memory at any address.
DEEPSIM_DEVICE std::uint32_t shared_word(const unsigned char* from) {
  const unsigned address = shared_address(from);
  std::uint32_t low, high;
  asm volatile("ld.shared.u32 %0, [%1];\n" : "=r"(low) : "r"(address / 4 * 4) : "memory");
  asm volatile("ld.shared.u32 %0, [%1];\n" : "=r"(high) : "r"((address + 3) / 4 * 4) : "memory");
  return __funnelshift_r(low, high, address % 4 * 8);
}

}  // namespace deepsim::cuda
