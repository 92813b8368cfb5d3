#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__
#endif
#if __has_feature(thread_sanitizer) && !defined(__SANITIZE_THREAD__)
#define __SANITIZE_THREAD__
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

#if !defined(DEEPSIM_PORTABLE_FIBERS)
// Keep what the calling convention wants kept on the stack that is left, then take it from the one that is entered.
// swapcontext would do, but asks the kernel for the signal mask on each switch: hundreds of nanoseconds instead of a few.
extern "C" void deepsim_switch_stack(void** left, void* entered);
#endif

#if defined(DEEPSIM_PORTABLE_FIBERS)
#elif defined(__x86_64__)
asm(R"(
.text
.hidden deepsim_switch_stack
.globl deepsim_switch_stack
.type deepsim_switch_stack, @function
deepsim_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size deepsim_switch_stack, . - deepsim_switch_stack
)");
#else
asm(R"(
.text
.hidden deepsim_switch_stack
.globl deepsim_switch_stack
.type deepsim_switch_stack, %function
deepsim_switch_stack:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size deepsim_switch_stack, . - deepsim_switch_stack
)");
#endif

namespace deepsim::cuda::emulation {

namespace {

constexpr std::size_t stack_bytes = 256 * 1024;

thread_local Fiber* entered = nullptr;     // a new stack's first function takes no argument
thread_local Context* left_for = nullptr;  // who switched to the running context

std::size_t guard_bytes() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

}  // namespace

void Context::switch_to(Context& other) {
  left_for = this;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&fake_stack_, other.stack_, other.stack_bytes_);
#endif
#if defined(__SANITIZE_THREAD__)
  if (thread_state_ == nullptr) thread_state_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(other.thread_state_, 0);
#endif
#if defined(DEEPSIM_PORTABLE_FIBERS)
  swapcontext(&registers_, &other.registers_);
#else
  deepsim_switch_stack(&stack_pointer_, other.stack_pointer_);
#endif
  enter_from(*left_for);
}

void Context::enter_from([[maybe_unused]] Context& previous) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack_, &previous.stack_, &previous.stack_bytes_);
#endif
}

Fiber::Fiber() {
  const std::size_t bytes = guard_bytes() + stack_bytes;
  void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  mprotect(mapped, guard_bytes(), PROT_NONE);  // a stack that grows too deep ends here, not in its neighbour
  stack_ = static_cast<unsigned char*>(mapped) + guard_bytes();
  inside_.stack_ = stack_;
  inside_.stack_bytes_ = stack_bytes;
#if defined(__SANITIZE_THREAD__)
  inside_.thread_state_ = __tsan_create_fiber(0);
#endif
  prepare();
}

// The stack is left in loop(), where nothing waits to be destroyed.
Fiber::~Fiber() {
#if defined(__SANITIZE_THREAD__)
  __tsan_destroy_fiber(inside_.thread_state_);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(stack_, stack_bytes);
#endif
  munmap(stack_ - guard_bytes(), guard_bytes() + stack_bytes);
}

// What the first switch finds: enter() to return to, its stack aligned as after a call, all kept registers zero.
void Fiber::prepare() {
#if defined(DEEPSIM_PORTABLE_FIBERS)
  getcontext(&inside_.registers_);
  inside_.registers_.uc_stack.ss_sp = stack_;
  inside_.registers_.uc_stack.ss_size = stack_bytes;
  makecontext(&inside_.registers_, &Fiber::enter, 0);
#else
  void** const top = reinterpret_cast<void**>(stack_ + stack_bytes);
#if defined(__x86_64__)
  constexpr int saved = 8, entry = -2;
#else
  constexpr int saved = 20, entry = -9;
#endif
  top[entry] = reinterpret_cast<void*>(&Fiber::enter);
  inside_.stack_pointer_ = top - saved;
#endif
}

void Fiber::enter() { entered->loop(); }

void Fiber::loop() {
  inside_.enter_from(*left_for);
  for (;;) {
    (*body_)();
    suspend();
  }
}

void Fiber::resume() {
  entered = this;
  outside_.switch_to(inside_);
}

}  // namespace deepsim::cuda::emulation
