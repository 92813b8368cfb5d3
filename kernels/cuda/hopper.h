// What the kernel for Hopper (shift_gemm_hopper.h) uses of a GPU beyond device.h, one function for each operation:
// instructions of compute capability 9.0a (hopper_ptx.h), or their models on a host (hopper_emulation.h).
//
// Threads and copies meet at barriers in shared memory (PTX ISA, "mbarrier"). A phase of a barrier completes when all
// arrivals that it was made for have come and all bytes that they expect have been copied; the next phase begins at once.
// A wait names the parity of a phase: 0 for the first, 1 for the second, 0 for the third. It is over when that phase is
// complete, so that on a new barrier a wait for parity 1 is over at once.
//
// Copies and multiplications are asynchronous and use shared memory through the same ("async") proxy. What a copy wrote is
// visible to whoever waited for its barrier; a multiplication has read its operands when it was waited for. No thread
// loads or stores what they use, so that no fence.proxy.async is needed, which orders ordinary accesses with theirs.
#pragma once

#include "device.h"

namespace deepsim::cuda {

// An operand of a multiplication, in shared memory (PTX ISA, "Matrix Descriptor" of wgmma; K-major, no swizzle): rows of
// eight values, 16 bytes. Eight rows lie together, 128 bytes, a core matrix. The next eight rows lie `stride` bytes
// further ("stride dimension byte offset"), the same rows' next eight values `leading` bytes further ("leading dimension
// byte offset": from the first to the second column of an operand 16 values wide).
//   bits 0-13: address, 16-29: leading, 32-45: stride, all in units of 16 bytes; 49-51: 0, of use with a swizzle only;
//   62-63: 0, no swizzle.
// Planes of eight channels have just this layout. Rows follow each other without a gap, so stride is 128 wherever a tap
// makes the operand begin; leading is the size of a plane. Without a swizzle an address need be a multiple of 16 only.
DEEPSIM_DEVICE std::uint64_t describe_operand(unsigned address, int leading, int stride) {
  const std::uint64_t in_sixteens = (address & 0x3ffffu) >> 4;
  return in_sixteens | static_cast<std::uint64_t>(leading >> 4) << 16 | static_cast<std::uint64_t>(stride >> 4) << 32;
}

using Barrier = std::uint64_t;  // in shared memory, a multiple of 8

constexpr int kWarpgroup = 128;  // threads that multiply together

}  // namespace deepsim::cuda

#if defined(__CUDACC__)
#include "hopper_ptx.h"
#else
#include "hopper_emulation.h"
#endif
