// A stack and the place where its code stopped. Knows of AddressSanitizer and ThreadSanitizer, to which
// each fiber is a thread of its own; changing fibers orders nothing, only order_after does.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace glai::simt {

class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next resume calls body(), which must not throw; once it returns, resume must not be called
  // again.
  void start(const std::function<void()>* body);
  void resume();  // called outside fibers: runs until it yields
  void yield();   // called by the fiber

 private:
  static void enter(Fiber* self);
  void leave(void** fake_stack);

  static constexpr std::size_t kStackBytes = 256 * 1024;
  std::unique_ptr<std::byte[]> stack_;
  const std::function<void()>* body_ = nullptr;
  void* stopped_at_ = nullptr;  // stack pointer
  void* outside_ = nullptr;     // likewise, of who resumed it
  // Sanitizers' own.
  void* thread_ = nullptr;
  void* outside_thread_ = nullptr;
  void* fake_stack_ = nullptr;
  void* outside_fake_stack_ = nullptr;
  const void* outside_stack_ = nullptr;
  std::size_t outside_stack_bytes_ = 0;
};

// For ThreadSanitizer: what a fiber did before announce(place) comes before what another does after
// observe(place).
void announce(void* place);
void observe(void* place);
void announce_read(const void* address, std::size_t bytes);
void announce_write(void* address, std::size_t bytes);

}  // namespace glai::simt
