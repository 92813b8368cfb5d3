#include "gpu.h"

#include <utility>

#include "../environment.h"
#include "../error.h"
#include "graphs.h"

namespace deepsim::runtime::detail::cuda {

Precision precision_of(const std::string& name) {
  if (name.empty() || name == "fp16") return Precision::half;
  if (name == "bf16") return Precision::brain;
  if (name == "fp32") return Precision::single;
  throw Failure(ErrorKind::usage, "precision '" + name + "': unknown on a GPU, expected fp16, bf16 or fp32.");
}

std::string capability(int architecture) { return std::to_string(architecture / 10) + "." + std::to_string(architecture % 10); }

namespace {

constexpr int kFirstEarly = 90;  // compute capability 9.0

// Whether the environment lets kernels start early. Raises UsageError.
bool wants_overlap() {
  const std::string wanted = environment("DEEPSIM_CUDA_OVERLAP", "1");
  if (wanted == "0" || wanted == "1") return wanted == "1";
  throw Failure(ErrorKind::usage, "DEEPSIM_CUDA_OVERLAP: '" + wanted + "', expected 0 or 1.");
}

}  // namespace

void require_kernels(const DeviceFacts& facts, Precision precision) {
  if (kernel_image(precision) == nullptr) {
    throw Failure(ErrorKind::device,
                  "cuda: this libdeepsim was built without nvcc, so it has no kernels for GPUs. Install deepsim again with a "
                  "CUDA toolkit of version 12 or later, or use backend cpu.");
  }
  int driver = 0;
  check(Driver::get().driver_version(&driver), "read the driver's version");
  if (driver / 1000 < kernel_toolkit()) {
    const std::string toolkit = std::to_string(kernel_toolkit());
    throw Failure(ErrorKind::device,
                  "cuda: the driver knows CUDA " + std::to_string(driver / 1000) + "." + std::to_string(driver % 1000 / 10) +
                      ", expected " + toolkit + " or later, since a CUDA " + toolkit +
                      " toolkit compiled the kernels. Update the driver, or build deepsim with an " + "older toolkit.");
  }
  const int oldest = oldest_architecture(precision);
  if (facts.architecture < oldest) {
    throw Failure(ErrorKind::device, "cuda: " + facts.name + " has compute capability " + capability(facts.architecture) +
                                         ", expected " + capability(oldest) + " or later" +
                                         (precision == Precision::brain ? " for bf16. Use fp16." : ". Use backend cpu."));
  }
}

void require_memory(std::size_t bytes, const std::string& what, const char* advice) {
  std::size_t free = 0, total = 0;
  check(Driver::get().memory_info(&free, &total), "ask for the GPU's free memory");
  if (bytes <= free) return;
  const auto mebibytes = [](std::size_t count) { return std::to_string((count + (1 << 20) - 1) >> 20); };
  throw Failure(ErrorKind::out_of_memory, "cuda: " + what + " " + mebibytes(bytes) + " MiB of GPU memory, " +
                                              std::to_string(free >> 20) + " MiB are free. " + advice);
}

Gpu::Gpu(int ordinal, Precision precision) : ordinal_(ordinal), facts_(device_facts(ordinal)), precision_(precision) {
  require_kernels(facts_, precision);
  const bool overlaps = wants_overlap();
  const Driver& driver = Driver::get();
  const DuringCaptures during_captures;
  check(driver.device_get(&device_, ordinal), "open the GPU");
  check(driver.primary_retain(&context_, device_), "open the GPU's primary context");
  try {
    const Current current(*this);
    check(driver.module_load(&module_, kernel_image(precision)), "load the kernels");
    why_not_early_ = overlaps ? reason_against_early() : "DEEPSIM_CUDA_OVERLAP is 0";
  } catch (...) {
    close();
    throw;
  }
}

Gpu::~Gpu() { close(); }

void Gpu::close() const {
  if (module_ != nullptr) quietly([&](const Driver& driver) { (void)driver.module_unload(module_); });
  (void)Driver::get().primary_release(device_);
}

Gpu::Current::Current(const Gpu& gpu) { check(Driver::get().context_push(gpu.context_), "use the GPU's context"); }

Gpu::Current::~Current() {
  Context popped = nullptr;
  (void)Driver::get().context_pop(&popped);
}

Function Gpu::function(const char* kernel, int shared_bytes) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  Loaded& loaded = functions_[kernel];
  if (loaded.function == nullptr) {
    check(Driver::get().module_function(&loaded.function, module_, kernel), std::string("find the kernel ") + kernel);
    // A multiprocessor divides its memory anew between L1 and shared memory only when it is idle: for all kernels alike.
    if (starts_early()) {
      check(Driver::get().function_set(loaded.function, kSharedShare, 100),
            std::string("divide memory for the kernel ") + kernel);
    }
  }
  if (shared_bytes > loaded.shared_bytes) {
    check(Driver::get().function_set(loaded.function, kMaxDynamicShared, shared_bytes),
          std::string("give the kernel ") + kernel + " " + std::to_string(shared_bytes) + " bytes of shared memory");
    loaded.shared_bytes = shared_bytes;
  }
  return loaded.function;
}

// Kernels that were compiled for an older GPU, from which the driver made those of this one, do not wait for the ones before.
std::string Gpu::reason_against_early() const {
  if (facts_.architecture < kFirstEarly) return "that takes compute capability " + capability(kFirstEarly);
  if (Driver::get().graph_add_edges == nullptr) return "the driver is older than CUDA 12.3";
  int compiled_for = 0;
  Function any = nullptr;
  check(Driver::get().module_function(&any, module_, "read_features"), "find the kernel read_features");
  check(Driver::get().function_get(&compiled_for, kCompiledFor, any), "ask what the kernels were compiled for");
  if (compiled_for < kFirstEarly) return "they were compiled for compute capability " + capability(compiled_for);
  return "";
}

void Gpu::launch(const char* kernel, GridSize grid, int threads, int shared_bytes, Stream stream, Bytes argument,
                 EndOffset end) const {
  void* arguments[] = {argument.data()};
  const auto size = [](int value) { return static_cast<unsigned>(value); };
  const std::string what = std::string("start the kernel ") + kernel;
  KernelNode node{function(kernel, shared_bytes), size(grid.x), size(grid.y), size(grid.z), size(threads)};
  node.shared_bytes = size(shared_bytes);
  node.arguments = arguments;
  if (Recording* const recording = Recording::on(stream)) {
    return recording->add(node, std::move(argument), end, what);
  }
  check(Driver::get().launch(node.function, node.grid_x, node.grid_y, node.grid_z, node.block_x, 1, 1, node.shared_bytes,
                             stream, arguments, nullptr),
        what);
}

DeviceMemory::DeviceMemory(std::shared_ptr<const Gpu> gpu, std::size_t bytes, Stream stream)
    : gpu_(std::move(gpu)), bytes_(bytes) {
  const Gpu::Current current(*gpu_);
  check(Driver::get().memory_take(&address_, bytes), "take " + std::to_string(bytes) + " bytes of GPU memory");
  const Result filled = Driver::get().fill(address_, 0, bytes, stream);
  if (filled != 0) {
    (void)Driver::get().memory_free(address_);
    check(filled, "fill GPU memory with zeros");
  }
}

DeviceMemory::~DeviceMemory() {
  if (address_ == 0) return;
  gpu_->quietly([&](const Driver& driver) { (void)driver.memory_free(address_); });
}

DeviceMemory::DeviceMemory(DeviceMemory&& other) noexcept
    : gpu_(std::move(other.gpu_)), address_(std::exchange(other.address_, 0)), bytes_(std::exchange(other.bytes_, 0)) {}

DeviceMemory& DeviceMemory::operator=(DeviceMemory&& other) noexcept {
  std::swap(gpu_, other.gpu_);
  std::swap(address_, other.address_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace deepsim::runtime::detail::cuda
