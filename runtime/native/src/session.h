// The session: a bundle, planned and packed for a device, that encodes, decodes and re-encodes.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bundle.h"

namespace deepsim::runtime::detail {

struct SessionOptions {
  int max_batch = 64;           // images that pass through the fully connected layers together, at most kMaxChunk
  int threads = 0;              // 0: DEEPSIM_NUM_THREADS, else the CPUs that this process may use
  bool half_fc_weights = false;  // store fully connected weights as fp16; arithmetic stays fp32
  std::size_t spare_bytes = std::size_t{256} << 20;  // see WeightLimit
  std::string isa;              // "" for the best; "avx512", "avx2", "baseline"
  std::string device;           // "" or "cpu"; "cuda:0" ... for a GPU
  std::string precision;        // of a GPU: "" or "fp16"; "bf16", "fp32"
  std::string kernels;          // of a GPU: see kernels_of in cuda/products.h; "" for DEEPSIM_CUDA_KERNELS or the default
  bool stable = false;          // on a GPU: an image's result has the same bits in every batch
};

// Safe to share: calls wait for each other. Raises DeviceError in a process forked after construction.
class Session {
 public:
  virtual ~Session() = default;

  // (n, side, side, 3) uint8 RGB -> (n, C, H, W) or (n, C) fp32. To encode and to re-encode is for bundles that can
  // (require_encoder), side() of the manifest.
  virtual void encode(const std::uint8_t* rgb, std::int64_t n, float* features) = 0;
  // -> (n, side, side, 3), with `full` (n, S, S, 3)
  virtual void decode(const float* features, std::int64_t n, bool full, std::uint8_t* rgb) = 0;
  // The same images as fp32 grey levels, before they are clipped and rounded.
  virtual void decode_raw(const float* features, std::int64_t n, bool full, float* rgb) = 0;
  // Iteration k is decode(encode(.)) k times over its own uint8 output; keeps iterations keep[0] < keep[1] < ...
  // -> (n, keep_count, side, side, 3)
  virtual void reencode(const std::uint8_t* rgb, std::int64_t n, int iterations, const int* keep, int keep_count,
                        std::uint8_t* rgb_out) = 0;

  // The same on memory of the session's GPU, queued behind what `stream` (a CUstream) holds and before what it is given
  // next; returns at once. Features are not looked at. Raises UsageError on the CPU and for memory elsewhere.
  virtual void encode_on_device(std::uint64_t rgb, std::int64_t n, std::uint64_t features, void* stream);
  virtual void decode_on_device(std::uint64_t features, std::int64_t n, bool full, bool raw, std::uint64_t rgb, void* stream);
  virtual void reencode_on_device(std::uint64_t rgb, std::int64_t n, int iterations, const int* keep, int keep_count,
                                  std::uint64_t rgb_out, void* stream);
  // Images of `steps` features on the line from one to another, both included -> (steps, side, side, 3).
  virtual void interpolate_on_device(std::uint64_t start, std::uint64_t end, int steps, std::uint64_t rgb, void* stream);
  // Memory of the session's GPU, from a pool, for use on `stream`.
  virtual std::uint64_t take_on_device(std::size_t bytes, void* stream);
  virtual void free_on_device(std::uint64_t memory, void* stream);
  // What `later` is given from now on begins after what `first` holds now.
  virtual void order_streams(void* first, void* later);
  virtual void copy_from_device(std::uint64_t memory, std::size_t bytes, void* to, void* stream);

  // Which step of the encoder or generator each kernel of a call for n images is of, in order. UsageError on the CPU.
  virtual std::vector<int> steps_of_kernels(bool decoding, std::int64_t n) const;

  // Whether a child of a fork may delete its parent's session: memory and threads can be left, a GPU cannot.
  virtual bool may_close_in_child() const { return true; }

  virtual int threads() const = 0;             // that a call uses; 0 on a GPU
  virtual const std::string& isa() const = 0;  // "avx512", "sm_90"
};

// Raises UsageError or DeviceError when no session can be made with these options here, whatever the bundle.
void check_device(const SessionOptions& options);

// Which kernels a session with these options would run here, and why, in words. Raises as check_device; on a GPU also where
// they cannot be loaded.
std::string describe_kernels(const SessionOptions& options);

// Raises BundleError and its kinds, UsageError (options), DeviceError (no such device or instruction set), OutOfMemory,
// NumericError.
std::unique_ptr<Session> open_session(const Bundle& bundle, const SessionOptions& options);

struct Roofs {
  double gmacs;                 // 1e9 fp32 multiply-adds per second, all threads
  double gigabytes_per_second;  // 1e9 bytes per second read from memory, all threads
};

// Measure the arithmetic and memory roofs in about half a second. Raises as Session for `threads` and `isa`.
Roofs measure_roofs(int threads, const std::string& isa);

}  // namespace deepsim::runtime::detail
