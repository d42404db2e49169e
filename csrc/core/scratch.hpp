// Working memory of kernels: blocks that each thread keeps between calls, so that a kernel neither
// allocates each time nor fills a thread's stack.
#pragma once

#include <cstddef>

#include "core/tensor.hpp"

namespace glai {

// Which block: a task has its own, a call may have two that its tasks share.
enum class Scratch : unsigned char { task, call, plan };

// This thread's block of that kind, of at least `bytes`, aligned to a cache line; what it held is lost.
std::byte* scratch(Scratch kind, std::size_t bytes);

[[noreturn]] void throw_out_of_memory();

// Cuts arrays from this thread's block: sizes are added up first, then the arrays taken in the same
// order.
class ScratchSizes {
 public:
  template <class T>
  GLAI_ALWAYS_INLINE std::size_t add(std::size_t count) {
    const std::size_t offset = bytes_;
    bytes_ += (count * sizeof(T) + kLine - 1) / kLine * kLine;
    return offset;
  }
  GLAI_ALWAYS_INLINE std::size_t bytes() const { return bytes_; }

 private:
  static constexpr std::size_t kLine = 64;
  std::size_t bytes_ = 0;
};

}  // namespace glai
