#include "driver.h"

#include <dlfcn.h>

#include <cstdio>
#include <type_traits>

#include "../error.h"

namespace deepsim::runtime::detail::cuda {

namespace {

constexpr double kUnknownMemory = 8;  // bytes for each multiprocessor, where the driver tells no clock
const char* const kAdvice = ". Use backend cpu, or see deepsim doctor.";

// The driver, or why there is none. It has no destructor: static objects may have an Inverter.
struct Opened {
  Driver driver;
  char reason[192] = {};

  Opened() {
    void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);  // stays open: its threads outlive static objects
    if (library == nullptr) {
      give("no NVIDIA driver (libcuda.so.1 not found)");
      return;
    }
#define DEEPSIM_CUDA_FIND(member, name, parameters) find(library, #name, &driver.member);
    DEEPSIM_CUDA_DRIVER(DEEPSIM_CUDA_FIND)
#undef DEEPSIM_CUDA_FIND
    if (reason[0] != '\0') return;
#define DEEPSIM_CUDA_FIND(member, name, parameters) look_for(library, #name, &driver.member);
    DEEPSIM_CUDA_NEWER_DRIVER(DEEPSIM_CUDA_FIND)
#undef DEEPSIM_CUDA_FIND
    const Result started = driver.init(0);
    const char* const forked = started == kNotInitialized ? ": CUDA was used before this process was forked" : "";
    if (started != 0) give("the NVIDIA driver does not start (cuInit returned %d%s)", static_cast<int>(started), forked);
  }

  template <class... Values>
  void give(const char* format, Values... values) {
    std::snprintf(reason, sizeof reason, format, values...);
  }

  template <class Pointer>
  static void look_for(void* library, const char* name, Pointer* member) {
    *member = reinterpret_cast<Pointer>(dlsym(library, name));
  }

  template <class Pointer>
  void find(void* library, const char* name, Pointer* member) {
    look_for(library, name, member);
    if (*member == nullptr && reason[0] == '\0') give("the NVIDIA driver is too old (it has no %s)", name);
  }
};

// What to do after an error: faults of the GPU stay until the process ends.
const char* advice(Result result) {
  switch (result) {
    case kNotInitialized:
      return "CUDA was used before this process was forked, which it does not survive. Start processes with the spawn method.";
    case 214:  // uncorrectable memory error
    case 220:  // of NVLink
    case 226:  // contained error
    case 700:  // illegal address
    case 702:  // took too long
    case 709:  // the context is destroyed
    case 710:  // assertion
    case 714:  // hardware stack
    case 715:  // illegal instruction
    case 716:  // misaligned address
    case 717:  // address space
    case 718:  // program counter
    case 719:  // launch failed
      return "That is a fault of the GPU, after which it is of use to a new process only; see deepsim doctor.";
    default:
      return "See deepsim doctor.";
  }
}

std::string text_of(Result result) {
  const Driver& driver = Driver::get();
  const char *name = nullptr, *text = nullptr;
  if (driver.error_name(result, &name) != 0 || driver.error_text(result, &text) != 0 || name == nullptr || text == nullptr) {
    return "error " + std::to_string(result);
  }
  return std::string(name) + ", " + text;
}

int attribute(Device device, int which) {
  int value = 0;
  check(Driver::get().device_attribute(&value, which, device), "read an attribute of the GPU");
  return value;
}

int device_count() {
  int count = 0;
  check(Driver::get().device_count(&count), "count the GPUs");
  return count;
}

}  // namespace

const Driver& Driver::get() {
  static const Opened opened;
  static_assert(std::is_trivially_destructible_v<Opened>);
  if (opened.reason[0] != '\0') throw Failure(ErrorKind::device, std::string("cuda: ") + opened.reason + kAdvice);
  return opened.driver;
}

void check(Result result, const std::string& what) {
  if (result == 0) return;
  if (result == kOutOfMemory) {
    std::size_t free = 0, total = 0;
    const bool known = Driver::get().memory_info(&free, &total) == 0;
    throw Failure(ErrorKind::out_of_memory,
                  "cuda: could not " + what + (known ? ", " + std::to_string(free >> 20) + " MiB of GPU memory are free" : "") +
                      ". Use a smaller max_batch, or free memory.");
  }
  throw Failure(ErrorKind::device, "cuda: could not " + what + " (" + text_of(result) + "). " + advice(result));
}

bool captured(Stream stream) {
  int status = kNotCapturing;
  const Result result = Driver::get().stream_capturing(stream, &status);
  if (result == kCaptureImplicit) return true;
  check(result, "look at the stream");
  return status != kNotCapturing;
}

DeviceFacts device_facts(int ordinal) {
  const int count = device_count();
  if (ordinal < 0 || ordinal >= count) {
    throw Failure(ErrorKind::device, "device cuda:" + std::to_string(ordinal) + ": not here, the driver sees " +
                                         std::to_string(count) + " GPU" + (count == 1 ? "" : "s") + ".");
  }
  Device device = 0;
  check(Driver::get().device_get(&device, ordinal), "open the GPU");
  char name[256] = {};
  check(Driver::get().device_name(name, sizeof name, device), "read the GPU's name");
  DeviceFacts facts;
  facts.name = name;
  facts.architecture = attribute(device, kComputeMajor) * 10 + attribute(device, kComputeMinor);
  facts.multiprocessors = attribute(device, kMultiprocessors);
  facts.cache_bytes = attribute(device, kCacheBytes);
  facts.shared_bytes = attribute(device, kSharedOptin);
  const int clock = attribute(device, kClock), memory_clock = attribute(device, kMemoryClock);  // kHz
  const double each = 2.0 * memory_clock * attribute(device, kMemoryWidth) / 8;  // two transfers of so many bits
  facts.memory_bytes = clock > 0 && each > 0 ? each / clock : kUnknownMemory * facts.multiprocessors;
  return facts;
}

}  // namespace deepsim::runtime::detail::cuda
