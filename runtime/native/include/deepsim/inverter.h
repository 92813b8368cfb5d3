// deepsim for C++17: a bundle, loaded for this machine's CPU or one of its GPUs, that encodes, decodes and re-encodes images.
//
//   deepsim::runtime::Inverter inverter("fc6.deepsim");
//   inverter.reconstruct(rgb_in, n, rgb_out);
//
// Images are uint8 RGB (n, side, side, 3), side = image_size(), features fp32 (n, C, H, W) or (n, C), all in the caller's
// memory. A bundle without an encoder that this library runs (can_encode()) decodes and interpolates only, one without a
// generator (can_decode()) encodes only. An Inverter may be shared by threads. Every error is a deepsim::Error with the text
// and code that Python gives.
#pragma once

#include <deepsim/deepsim.h>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace deepsim {

// kind() is the name of the error in Python, such as "BundleCorrupt"; exit_code() what a command exits with: 1 our bug,
// 2 usage, 3 bad input, 4 environment, 5 a numeric check failed.
class Error : public std::runtime_error {
 public:
  explicit Error(const deepsim_error& error) : std::runtime_error(error.message), kind_(error.kind), exit_code_(error.code) {}
  const std::string& kind() const noexcept { return kind_; }
  int exit_code() const noexcept { return exit_code_; }

 private:
  std::string kind_;
  int exit_code_;
};

namespace runtime {

struct Options {
  int max_batch = 64;            // images computed together, at most
  int threads = 0;               // 0: DEEPSIM_NUM_THREADS, else the CPUs that this process may use
  bool half_fc_weights = false;  // store fully connected weights as fp16 (arithmetic stays fp32)
  std::string isa;               // of the CPU: "": the best; "avx512", "avx2", "baseline"
  std::string device;            // "": "cpu"; or a GPU: "cuda:0" ...
  std::string precision;         // of a GPU: "": "fp16"; "bf16" for values beyond 65504; "fp32". Sums are fp32
  bool stable = false;           // on a GPU: an image's result has the same bits in every batch; slower for few images
};

// An address in the memory of a GPU, as the CUDA driver and runtime give it.
struct DeviceMemory {
  std::uint64_t address = 0;
  explicit DeviceMemory(std::uint64_t given) : address(given) {}
  explicit DeviceMemory(const void* given) : address(reinterpret_cast<std::uint64_t>(given)) {}
};

class Inverter {
 public:
  // Load a bundle folder. Throws Error: BundleError and its kinds, UsageError, DeviceError, OutOfMemory.
  explicit Inverter(const std::string& bundle, const Options& options = {}) {
    deepsim_options given{};
    given.size = sizeof given;
    given.max_batch = options.max_batch;
    given.threads = options.threads;
    given.half_fc_weights = options.half_fc_weights ? 1 : 0;
    given.isa = options.isa.empty() ? nullptr : options.isa.c_str();
    given.device = options.device.empty() ? nullptr : options.device.c_str();
    given.precision = options.precision.empty() ? nullptr : options.precision.c_str();
    given.stable = options.stable ? 1 : 0;
    deepsim_inverter* opened = nullptr;
    deepsim_error error;
    check(deepsim_open(bundle.c_str(), &given, &opened, &error), error);
    inverter_.reset(opened);
    check(deepsim_describe(opened, &info_, &error), error);
    bundle_.size = sizeof bundle_;
    check(deepsim_describe_bundle(opened, &bundle_, &error), error);
  }

  // Features of n images: images (n, side, side, 3) -> features (n, feature_size()).
  void encode(const std::uint8_t* images, std::int64_t n, float* features) {
    deepsim_error error;
    check(deepsim_encode(inverter_.get(), images, n, features, &error), error);
  }

  // Images from n finite features -> (n, side, side, 3), with `full` (n, S, S, 3), S = full_image_size().
  void decode(const float* features, std::int64_t n, std::uint8_t* images, bool full = false) {
    deepsim_error error;
    check(deepsim_decode(inverter_.get(), features, n, full ? 1 : 0, images, &error), error);
  }

  // The same images as fp32 grey levels, before they are clipped to 0-255 and rounded.
  void decode_raw(const float* features, std::int64_t n, float* images, bool full = false) {
    deepsim_error error;
    check(deepsim_decode_raw(inverter_.get(), features, n, full ? 1 : 0, images, &error), error);
  }

  // Encode and decode n images -> (n, side, side, 3).
  void reconstruct(const std::uint8_t* images, std::int64_t n, std::uint8_t* reconstructed) {
    reencode(images, n, 1, {1}, reconstructed);
  }

  // Reconstruct n images, then their reconstructions, `iterations` times over; keep: increasing, from 1 to iterations
  // -> (n, keep.size(), side, side, 3). Iteration k equals reconstruct applied k times.
  void reencode(const std::uint8_t* images, std::int64_t n, int iterations, const std::vector<std::int32_t>& keep,
                std::uint8_t* kept) {
    deepsim_error error;
    const auto count = static_cast<std::int32_t>(keep.size());
    check(deepsim_reencode(inverter_.get(), images, n, iterations, keep.data(), count, kept, &error), error);
  }

  // Images of `steps` features on the line from one feature to another, both included -> (steps, side, side, 3).
  void interpolate(const float* start, const float* end, int steps, std::uint8_t* images) {
    deepsim_error error;
    check(deepsim_interpolate(inverter_.get(), start, end, steps, images, &error), error);
  }

  // The same on memory of the inverter's GPU, queued on `stream` (a CUstream or cudaStream_t); they return at once.
  void encode(DeviceMemory images, std::int64_t n, DeviceMemory features, void* stream) {
    deepsim_error error;
    check(deepsim_encode_on_device(inverter_.get(), images.address, n, features.address, stream, &error), error);
  }
  void decode(DeviceMemory features, std::int64_t n, DeviceMemory images, void* stream, bool full = false) {
    deepsim_error error;
    check(deepsim_decode_on_device(inverter_.get(), features.address, n, full ? 1 : 0, images.address, stream, &error), error);
  }
  void decode_raw(DeviceMemory features, std::int64_t n, DeviceMemory images, void* stream, bool full = false) {
    deepsim_error error;
    const int code =
        deepsim_decode_raw_on_device(inverter_.get(), features.address, n, full ? 1 : 0, images.address, stream, &error);
    check(code, error);
  }
  void reconstruct(DeviceMemory images, std::int64_t n, DeviceMemory reconstructed, void* stream) {
    reencode(images, n, 1, {1}, reconstructed, stream);
  }
  void reencode(DeviceMemory images, std::int64_t n, int iterations, const std::vector<std::int32_t>& keep, DeviceMemory kept,
                void* stream) {
    deepsim_error error;
    const auto count = static_cast<std::int32_t>(keep.size());
    check(deepsim_reencode_on_device(inverter_.get(), images.address, n, iterations, keep.data(), count, kept.address, stream,
                                     &error),
          error);
  }
  void interpolate(DeviceMemory start, DeviceMemory end, int steps, DeviceMemory images, void* stream) {
    deepsim_error error;
    check(deepsim_interpolate_on_device(inverter_.get(), start.address, end.address, steps, images.address, stream, &error),
          error);
  }

  std::string layer() const { return info_.layer; }      // of the encoder, that is inverted: "fc6"
  std::string encoder() const { return info_.encoder; }  // "caffenet"; "" where the bundle has none
  std::string isa() const { return info_.isa; }          // what the kernels in use are for: "avx512", "sm_90"
  int threads() const { return info_.threads; }
  bool can_encode() const { return bundle_.can_encode != 0; }
  bool can_decode() const { return bundle_.can_decode != 0; }
  std::string display() const { return bundle_.display; }  // of raw images: "clip"; "stretch", for which there is decode_raw
  std::string encoder_kind() const { return bundle_.encoder_kind; }  // "table", which this library runs; "graph" or "none"
  int image_size() const { return info_.image_size; }            // of a side, in pixels
  int full_image_size() const { return info_.full_image_size; }  // of the generator's whole output
  int image_offset() const { return bundle_.image_offset; }      // of an image in the whole output: its row and column
  // Of the square there. Where it is smaller than image_size(), images are to be enlarged, and only whole ones are decoded.
  int generated_size() const { return bundle_.generated_size; }
  // How a photograph becomes an image: resized by a rule ("warp", "shorter"), then cut to its central square.
  std::string resize() const { return bundle_.resize; }
  int resized() const { return bundle_.resized; }
  std::string interpolation() const { return bundle_.interpolation; }
  std::vector<int> feature_shape() const {                       // {C, H, W} or {C}
    return {info_.feature_shape, info_.feature_shape + info_.feature_rank};
  }
  std::int64_t feature_size() const {
    return std::int64_t{info_.feature_shape[0]} * info_.feature_shape[1] * info_.feature_shape[2];
  }

 private:
  static void check(int code, const deepsim_error& error) {
    if (code != 0) throw Error(error);
  }
  struct Close {
    void operator()(deepsim_inverter* inverter) const { deepsim_close(inverter); }
  };
  std::unique_ptr<deepsim_inverter, Close> inverter_;
  deepsim_info info_{};
  deepsim_bundle_info bundle_{};
};

}  // namespace runtime
}  // namespace deepsim
