// Working memory of kernels: blocks that each thread keeps between calls, so that a kernel neither
// allocates each time nor fills a thread's stack.
#pragma once

#include <cstddef>

#include "core/tensor.hpp"

namespace glai {

// Which block: a task has its own, a call may have two that its tasks share, and a dense product within
// it one of its weights.
enum class Scratch : unsigned char { task, call, plan, weights };

// This thread's block of that kind, of at least `bytes`, aligned to a cache line; what it held is lost.
std::byte* scratch(Scratch kind, std::size_t bytes);

[[noreturn]] void throw_out_of_memory();

#ifdef __SANITIZE_ADDRESS__
constexpr bool kGuardScratch = true;  // bytes that nobody may touch behind each array
#else
constexpr bool kGuardScratch = false;
#endif
// Of the block that this thread asks for next: none, and one more.
void forget_gaps();
void note_gap(std::size_t begin, std::size_t end);

// Cuts arrays from this thread's block: sizes are added up first, then the arrays taken in the same
// order.
class ScratchSizes {
 public:
  GLAI_ALWAYS_INLINE ScratchSizes() {
    if constexpr (kGuardScratch) forget_gaps();
  }
  template <class T>
  GLAI_ALWAYS_INLINE std::size_t add(std::size_t count) {
    const std::size_t offset = bytes_;
    // More than any machine has, kept so that it is refused: a size that overflows would be small.
    if (count > kMost / sizeof(T)) count = kMost / sizeof(T);
    bytes_ += (count * sizeof(T) + kLine - 1) / kLine * kLine;
    if constexpr (kGuardScratch) {
      bytes_ += kLine;
      note_gap(offset + count * sizeof(T), bytes_);
    }
    if (bytes_ > kMost) bytes_ = kMost;
    return offset;
  }
  GLAI_ALWAYS_INLINE std::size_t bytes() const { return bytes_; }

 private:
  static constexpr std::size_t kLine = 64, kMost = std::size_t{1} << 62;
  std::size_t bytes_ = 0;
};

}  // namespace glai
