// A stack of its own for each emulated thread, and the switch to it and back.
#pragma once

#include <cstddef>
#include <functional>

#if !defined(DEEPSIM_PORTABLE_FIBERS) && !defined(__x86_64__) && !defined(__aarch64__)
#define DEEPSIM_PORTABLE_FIBERS
#endif
#if defined(DEEPSIM_PORTABLE_FIBERS)
#include <ucontext.h>
#endif

namespace deepsim::cuda::emulation {

// Resumed and suspended on one host thread. Where a stack was left off; what sanitizers want to know of it.
class Context {
 public:
  void switch_to(Context& other);

 private:
  friend class Fiber;
#if defined(DEEPSIM_PORTABLE_FIBERS)
  ucontext_t registers_ = {};
#else
  void* stack_pointer_ = nullptr;
#endif
  const void* stack_ = nullptr;
  std::size_t stack_bytes_ = 0;
  [[maybe_unused]] void* fake_stack_ = nullptr;    // AddressSanitizer's
  [[maybe_unused]] void* thread_state_ = nullptr;  // ThreadSanitizer's
  void enter_from(Context& previous);
};

// Runs one body after the other: a stack is made once and serves a thread of every block.
class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The body must not throw; the next resume enters it.
  void start(const std::function<void()>& body) { body_ = &body; }
  // From outside: run the body until it suspends or ends.
  void resume();
  // From inside the body: go back to who resumed.
  void suspend() { inside_.switch_to(outside_); }

 private:
  static void enter();
  void loop();
  void prepare();

  Context inside_, outside_;
  unsigned char* stack_;
  const std::function<void()>* body_ = nullptr;
};

}  // namespace deepsim::cuda::emulation
