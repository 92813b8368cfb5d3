#include "places.h"

#include <string>

#include "../error.h"

namespace deepsim::runtime::detail::cuda {

void check_place(const Gpu& gpu, Address memory, const char* what, std::size_t alignment) {
  int ordinal = -1;
  const Driver& driver = Driver::get();
  const bool known = driver.pointer_attribute(&ordinal, kPointerOrdinal, memory) == 0;
  if (!known || ordinal != gpu.ordinal()) {
    throw Failure(ErrorKind::usage, std::string(what) + ": in memory of " +
                                        (known ? "GPU " + std::to_string(ordinal) : std::string("no GPU")) + ", expected GPU " +
                                        std::to_string(gpu.ordinal()) + ". Copy it there.");
  }
  if (memory % alignment != 0) {
    throw Failure(ErrorKind::usage, std::string(what) + ": at an address that is no multiple of " + std::to_string(alignment) +
                                        ", expected one for float32. Copy it to memory of its own.");
  }
  Context context = nullptr;  // stays null for memory of a pool, which belongs to none
  const bool told = driver.pointer_attribute(&context, kPointerContext, memory) == 0;
  if (!told || context == nullptr || context == gpu.context()) return;
  throw Failure(ErrorKind::usage, std::string(what) +
                                      ": in memory of another context, expected the GPU's primary one. Use that one "
                                      "(pycuda.autoprimaryctx instead of pycuda.autoinit).");
}

void check_not_captured(Stream stream) {
  if (!captured(stream)) return;
  throw Failure(ErrorKind::usage,
                "stream: it is being captured into a graph, which cannot hold calls of an Inverter. Call it outside of the "
                "capture.");
}

void check_apart(Address in, std::size_t in_bytes, Address out, std::size_t out_bytes) {
  if (in + in_bytes <= out || out + out_bytes <= in) return;
  throw Failure(ErrorKind::usage, "result: it overlaps with what the call reads, expected memory of its own. Take some.");
}

}  // namespace deepsim::runtime::detail::cuda
