// Tasks over threads. What a task computes never depends on who runs it or on how many threads there
// are, so results have the same bits for any number of threads.
#pragma once

#include <cstdint>

#include "core/scratch.hpp"
#include "core/team.hpp"
#include "core/tensor.hpp"

namespace glai::GLAI_ISA {

// Under this many element operations waking a second thread costs more than it saves.
constexpr double kSerialWork = 32768.0;

template <class Task>
GLAI_ALWAYS_INLINE void parallel_for(std::int64_t n_tasks, double work, int threads, const Task& task) {
  if (threads <= 1 || n_tasks <= 1 || work < kSerialWork) {
    for (std::int64_t i = 0; i < n_tasks; ++i) task(i);
    return;
  }
  // No exception may leave another thread's task; all that a task can run out of is working memory.
  struct Call {
    const Task& task;
    bool failed;
  } call{task, false};
  const auto run = [](void* context, std::int64_t i) {
    Call& of = *static_cast<Call*>(context);
    try {
      of.task(i);
    } catch (...) {
      __atomic_store_n(&of.failed, true, __ATOMIC_RELAXED);
    }
  };
  run_tasks(n_tasks, threads - 1, run, &call);
  if (call.failed) throw_out_of_memory();
}

}  // namespace glai::GLAI_ISA
