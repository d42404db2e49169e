// Compiled without ThreadSanitizer's instrumentation, like fiber.cpp.
#include "executor.hpp"

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "fiber.hpp"

namespace glai::simt {
namespace {

struct Copy {
  void* to;
  const void* from;
  int size, bytes;
};

enum class State { ready, at_meeting, at_barrier, done };

struct Thread {
  Fiber fiber;
  State state = State::ready;
  void* brought = nullptr;
  std::vector<std::vector<Copy>> committed;  // groups, oldest first
  std::vector<Copy> open;
};

struct Warp {
  const char* meeting = nullptr;  // its name, null while nobody is there
  const void* place = nullptr;    // in the code
  int arrived = 0;
};

struct Block {
  std::vector<std::unique_ptr<Thread>> threads;
  std::vector<Warp> warps;
  std::unique_ptr<std::byte[]> shared;
  std::int64_t index = 0, count = 0;
  int syncs = 0;
  char order_places[2] = {};  // what sync_block orders by, in turns: one thread may be at the next
  char begin_place = 0, end_place = 0;  // what one block after another orders by, its threads not
  std::exception_ptr error;
};

Block* block = nullptr;
int current = 0;  // thread

Thread& thread() { return *block->threads[current]; }
Warp& warp() { return block->warps[current / kWarpSize]; }

void land(const std::vector<Copy>& copies) {
  for (const Copy& copy : copies) {
    std::byte bytes[16] = {};
    std::memcpy(bytes, copy.from, copy.bytes);
    announce_write(copy.to, copy.size);
    std::memcpy(copy.to, bytes, copy.size);
  }
}

std::vector<int> in_order(int count, std::mt19937_64& random) {
  std::vector<int> order(count);
  std::iota(order.begin(), order.end(), 0);
  if (schedule().order == LaneOrder::reverse) std::reverse(order.begin(), order.end());
  if (schedule().order == LaneOrder::shuffled) std::shuffle(order.begin(), order.end(), random);
  return order;
}

// Lets the threads of a warp run until none is ready.
void run_warp(int index, std::mt19937_64& random) {
  for (bool ran = true; ran;) {
    ran = false;
    for (const int lane : in_order(kWarpSize, random)) {
      current = index * kWarpSize + lane;
      if (thread().state != State::ready) continue;
      ran = true;
      thread().fiber.resume();
      if (block->error) std::rethrow_exception(block->error);
    }
  }
}

std::string where(const Block& b) {
  std::string text = "block " + std::to_string(b.index);
  for (std::size_t w = 0; w < b.warps.size(); ++w) {
    const Warp& warp = b.warps[w];
    if (warp.arrived == 0) continue;
    text += ", warp " + std::to_string(w) + ": " + std::to_string(warp.arrived) + " threads at " +
            warp.meeting;
  }
  int counts[4] = {};
  for (const auto& t : b.threads) ++counts[static_cast<int>(t->state)];
  return text + ", " + std::to_string(counts[static_cast<int>(State::at_barrier)]) +
         " threads at the block's barrier, " + std::to_string(counts[static_cast<int>(State::done)]) +
         " done";
}

void run_block(const std::function<void()>& body, std::mt19937_64& random) {
  for (auto& t : block->threads) {
    t->state = State::ready;
    t->committed.clear();
    t->open.clear();
    t->fiber.start(&body);
  }
  const int n_threads = static_cast<int>(block->threads.size());
  for (;;) {
    for (const int w : in_order(n_threads / kWarpSize, random)) run_warp(w, random);
    const auto at = [&](State state) {
      return std::count_if(block->threads.begin(), block->threads.end(),
                           [&](const auto& t) { return t->state == state; });
    };
    if (at(State::done) == n_threads) return;
    if (at(State::at_barrier) != n_threads) {
      throw std::logic_error("threads wait in vain: " + where(*block));
    }
    for (auto& t : block->threads) t->state = State::ready;
    ++block->syncs;
  }
}

}  // namespace

Schedule& schedule() {
  static Schedule the;
  return the;
}

std::size_t& most_shared_bytes() {
  static std::size_t bytes = 99 * 1024;
  return bytes;
}

void launch(std::int64_t blocks, int threads, std::size_t shared_bytes,
            const std::function<void()>& kernel) {
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  if (threads < kWarpSize || threads % kWarpSize != 0 || threads > 1024) {
    throw std::logic_error("a block must have 32 to 1024 threads, in whole warps, got " +
                           std::to_string(threads));
  }
  if (blocks < 1 || blocks > 0x7fffffff) {
    throw std::logic_error("a launch must have 1 to 2^31 - 1 blocks, got " + std::to_string(blocks));
  }
  if (shared_bytes > most_shared_bytes()) {
    throw std::logic_error("a block must have at most " + std::to_string(most_shared_bytes()) +
                           " bytes of shared memory, got " + std::to_string(shared_bytes));
  }
  static std::vector<std::unique_ptr<Thread>> idle;  // threads of earlier launches, with their stacks
  Block b;
  for (int i = 0; i < threads; ++i) {
    if (idle.empty()) idle.push_back(std::make_unique<Thread>());
    b.threads.push_back(std::move(idle.back()));
    idle.pop_back();
  }
  b.warps.resize(threads / kWarpSize);
  b.count = blocks;
  block = &b;
  std::mt19937_64 random(schedule().seed);
  const std::function<void()> body = [&] {
    observe(&b.begin_place);
    try {
      kernel();
    } catch (...) {
      b.error = std::current_exception();
    }
    announce(&b.end_place);
    thread().state = State::done;
  };
  const auto put_back = [&] {
    block = nullptr;
    for (auto& t : b.threads) idle.push_back(std::move(t));
  };
  try {
    for (b.index = 0; b.index < blocks; ++b.index) {
      b.shared.reset(new std::byte[shared_bytes]);  // of this very size: a step past it is seen
      std::memset(b.shared.get(), 0xff, shared_bytes);
      for (Warp& w : b.warps) w = Warp();
      announce(&b.begin_place);
      run_block(body, random);
      observe(&b.end_place);
    }
  } catch (...) {
    put_back();
    throw;
  }
  put_back();
}

int thread_index() { return current; }
std::int64_t block_index() { return block->index; }
std::int64_t block_count() { return block->count; }
std::byte* shared_memory() { return block->shared.get(); }

void sync_block() {
  Thread& me = thread();
  char& place = block->order_places[block->syncs % 2];
  announce(&place);
  me.state = State::at_barrier;
  me.fiber.yield();
  observe(&place);
}

void meet(const char* name, const void* place, void* brought, Collective work) {
  Thread& me = thread();
  Warp& mine = warp();
  if (mine.arrived == 0) mine.meeting = name, mine.place = place;
  if (std::strcmp(mine.meeting, name) != 0 || mine.place != place) {
    throw std::logic_error("threads of a warp meet at different places: " + std::string(mine.meeting) +
                           " and " + name + " in " + where(*block));
  }
  me.brought = brought;
  if (++mine.arrived < kWarpSize) {
    me.state = State::at_meeting;
    me.fiber.yield();
    return;
  }
  const int first = current / kWarpSize * kWarpSize;
  void* all[kWarpSize];
  for (int lane = 0; lane < kWarpSize; ++lane) {
    all[lane] = block->threads[first + lane]->brought;
    block->threads[first + lane]->state = State::ready;
  }
  mine.arrived = 0;
  work(all);
}

void copy_async(void* to, const void* from, int size, int bytes) {
  const auto misplaced = [&](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % size != 0; };
  if (bytes < 0 || bytes > size || misplaced(to) || misplaced(from)) {
    throw std::logic_error("copy_async takes 0 to " + std::to_string(size) +
                           " bytes between multiples of as many");
  }
  const Copy copy{to, from, size, bytes};
  if (schedule().eager_copies) {
    land({copy});
  } else {
    thread().open.push_back(copy);
  }
}

void commit_copies() {
  Thread& me = thread();
  me.committed.push_back(std::move(me.open));
  me.open.clear();
}

void wait_copies(int pending_groups) {
  auto& groups = thread().committed;
  const auto landing = static_cast<std::ptrdiff_t>(groups.size()) - pending_groups;
  if (landing <= 0) return;
  for (std::ptrdiff_t i = 0; i < landing; ++i) land(groups[i]);
  groups.erase(groups.begin(), groups.begin() + landing);
}

}  // namespace glai::simt
