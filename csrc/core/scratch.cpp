#include "core/scratch.hpp"

#include <memory>
#include <new>

namespace glai {
namespace {

constexpr std::align_val_t kAlignment{64};

struct Free {
  void operator()(std::byte* block) const { ::operator delete[](block, kAlignment); }
};

struct Block {
  std::unique_ptr<std::byte[], Free> data;
  std::size_t size = 0;
};

}  // namespace

std::byte* scratch(Scratch kind, std::size_t bytes) {
  thread_local Block blocks[3];
  Block& block = blocks[static_cast<int>(kind)];
  if (block.size < bytes) {
    block.data.reset();  // before the new one: never both
    block.size = 0;
    block.data.reset(new (kAlignment) std::byte[bytes]);
    block.size = bytes;
  }
  return block.data.get();
}

void throw_out_of_memory() { throw std::bad_alloc(); }

}  // namespace glai
