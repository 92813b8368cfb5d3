// One GPU: its primary context, our kernels loaded into it, memory, streams and launches. Everything raises DeviceError or
// OutOfMemory from what the driver answers.
#pragma once

#include <cstddef>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "driver.h"

namespace deepsim::runtime::detail::cuda {

enum class Precision { half, brain, single };  // fp16, bf16, fp32; sums are fp32
// By its name; "" for fp16. Raises UsageError.
Precision precision_of(const std::string& name);
constexpr std::size_t bytes_of(Precision precision) {
  switch (precision) {
    case Precision::half:
    case Precision::brain:
      return 2;
    case Precision::single:
      return 4;
  }
  return 0;
}

struct GridSize {
  int x = 1, y = 1, z = 1;
};

// Where a call reads and writes: memory of the caller's, or of a slot.
struct Ends {
  Address source = 0, result = 0;
};

// The field of a kernel's argument that points into what a call reads, or writes; without an end none does.
struct EndField {
  const void* field = nullptr;
  Address Ends::* end = nullptr;
};
struct EndOffset {  // the same, in bytes from the argument's beginning
  Address Ends::* end = nullptr;
  std::ptrdiff_t offset = 0;
};

// The device's primary context, shared with PyTorch, CuPy and pycuda, and the kernels of one precision in it.
class Gpu {
 public:
  // Raises DeviceError for no such device, an architecture below the oldest that the kernels are built for, or a library
  // built without them; UsageError for another DEEPSIM_CUDA_OVERLAP than 0 or 1.
  Gpu(int ordinal, Precision precision);
  ~Gpu();
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  // Makes the context current in this thread for as long as it lives.
  class Current {
   public:
    explicit Current(const Gpu& gpu);
    ~Current();
    Current(const Current&) = delete;
    Current& operator=(const Current&) = delete;

   private:
    DuringCaptures during_captures_;
  };

  // For destructors: run `body(driver)` with the context current, or not at all when even that fails (after a fault of
  // the GPU every call fails, and the driver gives everything back with the process).
  template <class Body>
  void quietly(const Body& body) const {
    const Driver& driver = Driver::get();
    const DuringCaptures during_captures;
    Context popped = nullptr;
    if (driver.context_push(context_) != 0) return;
    body(driver);
    (void)driver.context_pop(&popped);
  }

  int ordinal() const { return ordinal_; }
  Context context() const { return context_; }  // the primary one
  const DeviceFacts& facts() const { return facts_; }
  Precision precision() const { return precision_; }
  // Whether a kernel of a graph may start before the one before it is over, to wait for it by itself: on compute capability 9.0
  // and later, with kernels compiled for it, unless the environment has DEEPSIM_CUDA_OVERLAP=0; and why not, "" where it may.
  bool starts_early() const { return why_not_early_.empty(); }
  const std::string& why_not_early() const { return why_not_early_; }

  // Start a kernel with one plain struct as its argument. The context must be current.
  template <class Argument>
  void launch(const char* kernel, GridSize grid, int threads, int shared_bytes, Stream stream, const Argument& argument,
              EndField end = {}) const {
    Bytes bytes(sizeof argument);
    std::memcpy(bytes.data(), &argument, sizeof argument);
    EndOffset offset{end.end};
    if (end.end != nullptr) offset.offset = static_cast<const char*>(end.field) - reinterpret_cast<const char*>(&argument);
    launch(kernel, grid, threads, shared_bytes, stream, std::move(bytes), offset);
  }

 private:
  using Bytes = std::vector<unsigned char>;
  void launch(const char* kernel, GridSize grid, int threads, int shared_bytes, Stream stream, Bytes argument,
              EndOffset end) const;
  Function function(const char* kernel, int shared_bytes) const;
  std::string reason_against_early() const;
  void close() const;

  struct Loaded {
    Function function = nullptr;
    int shared_bytes = 48 << 10;
  };
  int ordinal_;
  DeviceFacts facts_;
  Precision precision_;
  Device device_ = 0;
  Context context_ = nullptr;
  Module module_ = nullptr;
  std::string why_not_early_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, Loaded> functions_;
};

// Memory of the device, freed with its owner.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  // Take memory, filled with zeros. Raises OutOfMemory naming need and what is free.
  DeviceMemory(std::shared_ptr<const Gpu> gpu, std::size_t bytes, Stream stream);
  ~DeviceMemory();
  DeviceMemory(DeviceMemory&& other) noexcept;
  DeviceMemory& operator=(DeviceMemory&& other) noexcept;

  Address address() const { return address_; }
  std::size_t bytes() const { return bytes_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(address_);  // NOLINT: a pointer for kernels, never followed here
  }

 private:
  std::shared_ptr<const Gpu> gpu_;
  Address address_ = 0;
  std::size_t bytes_ = 0;
};

// A compute capability as people write it: "9.0" for 90.
std::string capability(int architecture);

// Raise OutOfMemory when less than `bytes` of the current context's GPU are free: "cuda: <what> N MiB ... <advice>".
void require_memory(std::size_t bytes, const std::string& what, const char* advice);

// Raises DeviceError when the library has no kernels for such a GPU in this precision.
void require_kernels(const DeviceFacts& facts, Precision precision);

// The kernels as the driver loads them, nullptr where the library was built without nvcc.
const void* kernel_image(Precision precision);
// The architectures that they were compiled for, "75,80"; "" without any.
const char* kernel_architectures();
// Whether they hold machine code for this one; without, the driver compiles them anew from those for 80.
bool has_machine_code(int architecture);
// The oldest architecture (75 for compute capability 7.5) that kernel_image serves.
int oldest_architecture(Precision precision);
// The major version of the CUDA toolkit that compiled them; 0 without any.
int kernel_toolkit();

}  // namespace deepsim::runtime::detail::cuda
