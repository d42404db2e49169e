// Tasks over threads. What a task computes never depends on who runs it or on how many threads there
// are, so results have the same bits for any number of threads. OpenMP, because torch's own pool is
// OpenMP: where both use the same libgomp they share their threads instead of competing.
#pragma once

#include <cstdint>

#include "core/scratch.hpp"
#include "core/tensor.hpp"

namespace glai::GLAI_ISA {

// Under this many element operations waking a second thread costs more than it saves.
constexpr double kSerialWork = 32768.0;

template <class Task>
GLAI_ALWAYS_INLINE void parallel_for(std::int64_t n_tasks, double work, int threads, const Task& task) {
  const bool serial = threads <= 1 || n_tasks <= 1 || work < kSerialWork;
  // No exception may leave a parallel region; all that a task can run out of is working memory.
  bool failed = false;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (!serial)
  for (std::int64_t i = 0; i < n_tasks; ++i) {
    try {
      task(i);
    } catch (...) {
#pragma omp atomic write
      failed = true;
    }
  }
  if (failed) throw_out_of_memory();
}

}  // namespace glai::GLAI_ISA
