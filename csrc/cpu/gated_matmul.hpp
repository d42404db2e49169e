// gated_matmul by compaction: per path, the rows that are on are gathered and multiplied.
#pragma once

#include "core/args.hpp"
#include "core/gates.hpp"
#include "cpu/active_rows.hpp"
#include "cpu/parallel.hpp"
#include "cpu/tiles.hpp"

namespace glai::GLAI_ISA {

// Samples per task. More rows read each weight less often and fill the tiles better, fewer rows give
// more tasks; chosen by N alone, so that the result does not depend on the threads.
GLAI_ALWAYS_INLINE constexpr std::int64_t forward_rows_per_task(std::int64_t n) {
  if (n >= 1024) return 256;
  if (n >= 128) return 128;
  return 64;
}
constexpr std::int64_t kMaxRowsPerTask = 256;

// A panel of weights, [k step, tile columns], that stays in the first-level cache while all rows pass.
constexpr std::int64_t kPanelBytes = 24 * 1024;

template <class T>
void gated_matmul_compaction(const GatedMatmulArgs& a) {
  const std::int64_t n = a.x.shape[0], d = a.x.shape[1], p_count = a.n_gates;
  const std::int64_t c = a.weight.shape[2], w_words = words_per_row(p_count);
  const std::int64_t rows_per_task = forward_rows_per_task(n);
  const std::int64_t n_tasks = (n + rows_per_task - 1) / rows_per_task;
  const double work =
      static_cast<double>(n) * static_cast<double>(p_count * c) * static_cast<double>(d + 1);

  parallel_for(n_tasks, work, a.exec.threads, [&](std::int64_t task) {
    const std::int64_t begin = task * rows_per_task;
    const std::int64_t count = n - begin < rows_per_task ? n - begin : rows_per_task;
    const T* x = a.x.as<const T>() + begin * a.x.stride[0];
    T* y = a.y.as<T>() + begin * a.y.stride[0];
    const auto* words = a.words.as<const std::uint32_t>() + begin * w_words;
    for (std::int64_t i = 0; i < count; ++i) {
      for (std::int64_t j = 0; j < c; ++j) y[i * a.y.stride[0] + j] = T(0);
    }
    std::int32_t rows[kMaxRowsPerTask];
    for (std::int64_t p = 0; p < p_count; ++p) {
      const std::int64_t active = active_rows(words, w_words, p, 0, count, rows);
      if (active == 0) continue;
      const T* weight = a.weight.as<const T>() + p * a.weight.stride[0];
      for_column_tiles<T>(c, [&](std::int64_t column, int vecs, Tail<T> tail) {
        const T* bias = a.bias ? a.bias->as<const T>() + p * a.bias->stride[0] + column : nullptr;
        const std::int64_t panel_row = vecs * Vec<T>::width * static_cast<std::int64_t>(sizeof(T));
        const std::int64_t k_step = kPanelBytes / panel_row;
        const EvenSplit groups(active, gather_tile_rows(vecs));
        // At least one step, so that the bias is added when D is 0.
        for (std::int64_t k = 0; k == 0 || k < d; k += k_step) {
          const std::int32_t* group = rows;
          for (std::int64_t g = 0; g < groups.parts; ++g) {
            const int m = static_cast<int>(groups.size(g));
            run_gather_tile<T>(m, vecs,
                               {x + k, a.x.stride[0], group, weight + k * a.weight.stride[1] + column,
                                a.weight.stride[1], d - k < k_step ? d - k : k_step,
                                k == 0 ? bias : nullptr, y + column, a.y.stride[0], tail});
            group += m;
          }
        }
      });
    }
  });
}

inline void gated_matmul(const GatedMatmulArgs& a) {
  if (a.x.dtype == DType::float64) return gated_matmul_compaction<double>(a);
  return gated_matmul_compaction<float>(a);
}

}  // namespace glai::GLAI_ISA
