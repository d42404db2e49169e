// Compiled without ThreadSanitizer's instrumentation (GLAI_TSAN says that the rest has it): what the
// executor itself does is not the kernel's.
#include "fiber.hpp"

#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(GLAI_TSAN)
#include <sanitizer/tsan_interface.h>
extern "C" {
void __tsan_read_range(void* address, unsigned long bytes);
void __tsan_write_range(void* address, unsigned long bytes);
}
#endif

#ifndef __x86_64__
#error "the executor switches stacks on x86-64 only"
#endif

// void glai_switch_stack(void** stopped_at, void* go_on_at): what a call preserves is pushed, stacks are
// exchanged, and the other stack's is popped.
asm(R"(
.text
.type glai_switch_stack, @function
glai_switch_stack:
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
.size glai_switch_stack, .-glai_switch_stack
.type glai_enter_fiber, @function
glai_enter_fiber:
  movq %r12, %rdi
  call *%r13
  ud2
.size glai_enter_fiber, .-glai_enter_fiber
)");
extern "C" {
void glai_switch_stack(void** stopped_at, void* go_on_at);
void glai_enter_fiber();
}

namespace glai::simt {

Fiber::Fiber() : stack_(new std::byte[kStackBytes]) {
#if defined(GLAI_TSAN)
  thread_ = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
#if defined(GLAI_TSAN)
  __tsan_destroy_fiber(thread_);
#endif
}

void Fiber::start(const std::function<void()>* body) {
  body_ = body;
  // As glai_switch_stack leaves a stack: r15, r14, r13, r12, rbx, rbp, return address. A call aligns
  // to 16.
  const auto top = reinterpret_cast<std::uintptr_t>(stack_.get() + kStackBytes) / 16 * 16;
  auto** stack = reinterpret_cast<void**>(top) - 9;
  stack[0] = stack[1] = stack[4] = stack[5] = nullptr;
  stack[2] = reinterpret_cast<void*>(&Fiber::enter);
  stack[3] = this;
  stack[6] = reinterpret_cast<void*>(&glai_enter_fiber);
  stopped_at_ = stack;
  fake_stack_ = nullptr;
}

void Fiber::enter(Fiber* self) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &self->outside_stack_, &self->outside_stack_bytes_);
#endif
  (*self->body_)();
  self->leave(nullptr);
}

void Fiber::resume() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&outside_fake_stack_, stack_.get(), kStackBytes);
#endif
#if defined(GLAI_TSAN)
  outside_thread_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(thread_, __tsan_switch_to_fiber_no_sync);
#endif
  glai_switch_stack(&outside_, stopped_at_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(outside_fake_stack_, nullptr, nullptr);
#endif
}

void Fiber::leave([[maybe_unused]] void** fake_stack) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(fake_stack, outside_stack_, outside_stack_bytes_);
#endif
#if defined(GLAI_TSAN)
  __tsan_switch_to_fiber(outside_thread_, __tsan_switch_to_fiber_no_sync);
#endif
  glai_switch_stack(&stopped_at_, outside_);
}

void Fiber::yield() {
  leave(&fake_stack_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack_, &outside_stack_, &outside_stack_bytes_);
#endif
}

#if defined(GLAI_TSAN)
void announce(void* place) { __tsan_release(place); }
void observe(void* place) { __tsan_acquire(place); }
void announce_read(const void* address, std::size_t bytes) {
  __tsan_read_range(const_cast<void*>(address), bytes);
}
void announce_write(void* address, std::size_t bytes) { __tsan_write_range(address, bytes); }
#else
void announce(void*) {}
void observe(void*) {}
void announce_read(const void*, std::size_t) {}
void announce_write(void*, std::size_t) {}
#endif

}  // namespace glai::simt
