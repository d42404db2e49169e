// gated_matmul: by compaction (per path, the rows that are on are gathered and multiplied), or by the
// subset-sum tables of gated_matmul_subset_sums.hpp; choose_form says when.
#pragma once

#include "core/args.hpp"
#include "core/gates.hpp"
#include "cpu/active_rows.hpp"
#include "cpu/gated_matmul_subset_sums.hpp"
#include "cpu/panel.hpp"
#include "cpu/parallel.hpp"
#include "cpu/tiles.hpp"

namespace glai::GLAI_ISA {

// A task is a block of rows times a block of columns. Every block of rows reads all weights of its
// columns, so where these overflow the second-level cache the blocks are high; every block of columns
// looks for the active rows anew, so where a row is little work the blocks are wide; at least two tasks
// are made. Chosen by shape alone, so that the result does not depend on the threads.
GLAI_ALWAYS_INLINE constexpr std::int64_t forward_columns_per_task(std::int64_t d) {
  return d >= 128 ? 64 : 256;
}
constexpr std::int64_t kMaxRowsPerTask = 1024;
constexpr std::int64_t kCachedWeightBytes = std::int64_t{1} << 20;

GLAI_ALWAYS_INLINE constexpr std::int64_t forward_rows_per_task(std::int64_t n,
                                                                std::int64_t column_tasks,
                                                                std::int64_t weight_bytes) {
  const std::int64_t high = weight_bytes > kCachedWeightBytes ? kMaxRowsPerTask : 128;
  if (column_tasks > 1) return high;
  const std::int64_t half = (n + 1) / 2;
  return half < 32 ? 32 : half < high ? half : high;
}

template <class T>
void gated_matmul_compaction(const GatedMatmulArgs& a) {
  const std::int64_t n = a.x.shape[0], d = a.x.shape[1], p_count = a.n_gates;
  const std::int64_t c = a.weight.shape[2], w_words = words_per_row(p_count);
  const std::int64_t column_step = forward_columns_per_task(d);
  const std::int64_t column_tasks = (c + column_step - 1) / column_step;
  const std::int64_t row_step =
      forward_rows_per_task(n, column_tasks, p_count * d * c * static_cast<std::int64_t>(sizeof(T)));
  const std::int64_t row_tasks = (n + row_step - 1) / row_step;
  const double work =
      static_cast<double>(n) * static_cast<double>(p_count * c) * static_cast<double>(d + 1);
  const std::int64_t k_stride = a.weight.stride[1];
  // A single column has no stride of its own.
  const std::int64_t column_stride = c == 1 ? 1 : a.weight.stride[2];
  const bool far_apart = k_stride * static_cast<std::int64_t>(sizeof(T)) >= kFarApartBytes;

  parallel_for(row_tasks * column_tasks, work, a.exec.threads, [&](std::int64_t task) {
    const std::int64_t begin = task / column_tasks * row_step;
    const std::int64_t count = n - begin < row_step ? n - begin : row_step;
    const std::int64_t first = task % column_tasks * column_step;
    const std::int64_t columns = c - first < column_step ? c - first : column_step;
    const T* x = a.x.as<const T>() + begin * a.x.stride[0];
    T* y = a.y.as<T>() + begin * a.y.stride[0] + first;
    const auto* words = a.words.as<const std::uint32_t>() + begin * w_words;
    for (std::int64_t i = 0; i < count; ++i) {
      for (std::int64_t j = 0; j < columns; ++j) y[i * a.y.stride[0] + j] = T(0);
    }
    alignas(64) T packed[kPanelBytes / sizeof(T)];
    std::int32_t rows[kMaxRowsPerTask];
    for (std::int64_t p = 0; p < p_count; ++p) {
      const std::int64_t active = active_rows(words, w_words, p, 0, count, rows);
      if (active == 0) continue;
      const T* weight = a.weight.as<const T>() + p * a.weight.stride[0] + first * column_stride;
      const T* bias = a.bias ? a.bias->as<const T>() + p * a.bias->stride[0] + first : nullptr;
      for_column_tiles<T>(columns, [&](std::int64_t column, int vecs, Tail<T> tail) {
        const std::int64_t width = vecs * Vec<T>::width;
        const std::int64_t used = columns - column < width ? columns - column : width;
        const std::int64_t k_step = kPanelBytes / (width * static_cast<std::int64_t>(sizeof(T)));
        const EvenSplit groups(active, gather_tile_rows(vecs));
        // At least one step, so that the bias is added when D is 0.
        for (std::int64_t k = 0; k == 0 || k < d; k += k_step) {
          const std::int64_t k_count = d - k < k_step ? d - k : k_step;
          const T* panel = weight + k * k_stride + column * column_stride;
          std::int64_t panel_stride = k_stride;
          if (column_stride != 1) {
            pack_transposed(panel, column_stride, k_count, used, packed, width);
          } else if (far_apart && groups.parts > 1) {
            pack_rows(panel, k_stride, k_count, used, packed, width);
          }
          if (column_stride != 1 || (far_apart && groups.parts > 1)) {
            panel = packed;
            panel_stride = width;
          }
          const std::int32_t* group = rows;
          for (std::int64_t g = 0; g < groups.parts; ++g) {
            const int m = static_cast<int>(groups.size(g));
            run_gather_tile<T>(
                m, vecs,
                {x + k, a.x.stride[0], group, panel, panel_stride, k_count,
                 k == 0 && bias != nullptr ? bias + column : nullptr, y + column, a.y.stride[0], tail});
            group += m;
          }
        }
      });
    }
  });
}

// Subset sums cost the same at any density: they win where outputs are few (compaction then fills few
// lanes of a vector) and many gates are on. Set by `glai bench` on (256..4096, 25..256, 50..784, 10),
// one thread, AVX-512.
GLAI_ALWAYS_INLINE constexpr Form choose_form(std::int64_t n, std::int64_t d, std::int64_t c,
                                              double density) {
  return c <= 16 && d >= 32 && n >= 64 && density >= 0.4 ? Form::subset_sums : Form::compaction;
}

GLAI_ALWAYS_INLINE double density_of(const TensorView& words, std::int64_t n_gates) {
  const std::int64_t count = words.shape[0] * words.shape[1];
  std::int64_t on = 0;
  for (std::int64_t i = 0; i < count; ++i) on += __builtin_popcount(words.as<const std::uint32_t>()[i]);
  return count == 0 ? 0.0 : static_cast<double>(on) / static_cast<double>(words.shape[0] * n_gates);
}

inline void gated_matmul(const GatedMatmulArgs& a) {
  const bool wide = a.x.dtype == DType::float64;
  const Form form =
      a.form != Form::automatic
          ? a.form
          : choose_form(a.x.shape[0], a.x.shape[1], a.weight.shape[2], density_of(a.words, a.n_gates));
  if (form == Form::subset_sums) {
    return wide ? gated_matmul_subset_sums<double>(a) : gated_matmul_subset_sums<float>(a);
  }
  return wide ? gated_matmul_compaction<double>(a) : gated_matmul_compaction<float>(a);
}

}  // namespace glai::GLAI_ISA
