// Runs a CUDA kernel's source on the host: the threads of a block are fibers, blocks run one after
// another. What a kernel asks of the machine (csrc/cuda/tiles/primitives.cuh) ends here.
//
// A warp runs until all its threads wait: a schedule that a GPU may take, and the one that leaves the
// other warps furthest behind, so that a missing barrier shows. Threads of a warp run in the order asked
// for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace glai::simt {

constexpr int kWarpSize = 32;

enum class LaneOrder { forward, reverse, shuffled };

struct Schedule {
  LaneOrder order = LaneOrder::forward;
  bool eager_copies = false;  // cp.async lands at once; otherwise only when it is waited for
  std::uint64_t seed = 1;     // of the shuffled order
};
Schedule& schedule();

// What a block's shared memory may take: at first, as on the smallest GPU that is built for, 99 KiB.
std::size_t& most_shared_bytes();

// Runs kernel() in every thread of every block. Throws std::logic_error when threads wait for each other
// in vain, or meet at different places.
void launch(std::int64_t blocks, int threads, std::size_t shared_bytes,
            const std::function<void()>& kernel);

// --- called by the kernel's threads ---

int thread_index();
std::int64_t block_index();
std::int64_t block_count();
std::byte* shared_memory();  // as many bytes as the launch said, all of them NaN at first

void sync_block();

// All threads of a warp meet; the last one runs work on what each brought, before any goes on. They must
// give the same name, and the same place in their code where they give one.
using Collective = void (*)(void* const brought[kWarpSize]);
void meet(const char* name, const void* place, void* brought, Collective work);

void copy_async(void* to, const void* from, int size, int bytes);  // 4 or 16, zero past `bytes`
void commit_copies();
void wait_copies(int pending_groups);

}  // namespace glai::simt
