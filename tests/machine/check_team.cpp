// What ThreadSanitizer is asked to watch of core/team.cpp: short calls one after another, of several
// threads at once, with helpers that come and go; each task must run once, and be seen by its caller.
#include <sched.h>

#include <cstdint>
#include <cstdio>
#include <thread>
#include <vector>

#include "core/team.hpp"

namespace {

struct Call {
  std::vector<std::int64_t> done;  // how often each task ran; not atomic, so that missing order shows
  int nested = 0;
};

bool calls(int seed) {
  std::uint32_t state = static_cast<std::uint32_t>(seed) * 2654435761u + 1;
  for (int round = 0; round < 3000; ++round) {
    state = state * 1664525u + 1013904223u;
    const std::int64_t n = 1 + (state >> 16) % 9;
    const int helpers = static_cast<int>((state >> 8) % 5);
    Call call{std::vector<std::int64_t>(static_cast<std::size_t>(n), 0)};
    glai::run_tasks(
        n, helpers,
        [](void* context, std::int64_t i) {
          auto& of = *static_cast<Call*>(context);
          of.done[static_cast<std::size_t>(i)] += i + 1;
          if (i == 0) {
            glai::run_tasks(3, 2, [](void* c, std::int64_t) { ++static_cast<Call*>(c)->nested; }, &of);
          }
          if (i % 4 == 3) sched_yield();
        },
        &call);
    if (call.nested != 3) return false;
    for (std::int64_t i = 0; i < n; ++i) {
      if (call.done[static_cast<std::size_t>(i)] != i + 1) return false;
    }
  }
  return true;
}

}  // namespace

int main() {
  bool right = true;
  for (int lives = 0; lives < 3; ++lives) {  // helpers of threads that have ended
    std::vector<std::thread> callers;
    std::vector<char> results(3, 0);
    for (int i = 0; i < 3; ++i) {
      callers.emplace_back([i, lives, &results] { results[i] = calls(3 * lives + i); });
    }
    for (std::thread& caller : callers) caller.join();
    for (const char result : results) right = right && result != 0;
  }
  right = right && calls(99);
  std::puts(right ? "each task ran once" : "a task ran twice, or not at all");
  return right ? 0 : 1;
}
