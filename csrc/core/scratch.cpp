#include "core/scratch.hpp"

#include <memory>
#include <new>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>

#include <utility>
#include <vector>
#endif

namespace glai {
namespace {

constexpr std::align_val_t kAlignment{64};

struct Free {
  void operator()(std::byte* block) const { ::operator delete[](block, kAlignment); }
};

#ifdef __SANITIZE_ADDRESS__
thread_local std::vector<std::pair<std::size_t, std::size_t>> gaps;
#endif

struct Block {
  std::unique_ptr<std::byte[], Free> data;
  std::size_t size = 0;
};

}  // namespace

std::byte* scratch(Scratch kind, std::size_t bytes) {
  thread_local Block blocks[4];
  Block& block = blocks[static_cast<int>(kind)];
  if constexpr (kGuardScratch) block.size = 0;  // a new block each time, which ends where it is said to
  if (block.size < bytes) {
    block.data.reset();  // before the new one: never both
    block.size = 0;
    block.data.reset(new (kAlignment) std::byte[bytes]);
    block.size = bytes;
  }
#ifdef __SANITIZE_ADDRESS__
  for (const auto& [begin, end] : gaps)
    __asan_poison_memory_region(block.data.get() + begin, end - begin);
  gaps.clear();
#endif
  return block.data.get();
}

#ifdef __SANITIZE_ADDRESS__
void forget_gaps() { gaps.clear(); }
void note_gap(std::size_t begin, std::size_t end) { gaps.emplace_back(begin, end); }
#endif

void throw_out_of_memory() { throw std::bad_alloc(); }

}  // namespace glai
