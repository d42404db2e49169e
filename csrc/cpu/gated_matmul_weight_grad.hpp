// Masked gradient accumulation by compaction: per path, the outer products of the rows that are on are
// summed in registers. A task owns a slice of features of one path, so no two tasks write the same
// element and the sum over samples always runs in the same order.
#pragma once

#include "core/args.hpp"
#include "core/gates.hpp"
#include "cpu/active_rows.hpp"
#include "cpu/parallel.hpp"
#include "cpu/tiles.hpp"

namespace glai::GLAI_ISA {

// Samples whose rows are gathered at a time: their slices of x and dy stay in the second-level cache.
constexpr std::int64_t kGradRows = 256;
// Features per task; with fewer outputs than this, the features are the vector lanes instead.
constexpr std::int64_t kGradFeatures = 256;
constexpr std::int64_t kMaxOutputsAcross = 32;

// Lanes used of those paid for, when n columns are covered by whole vectors.
template <class T>
GLAI_ALWAYS_INLINE double lane_use(std::int64_t n) {
  constexpr std::int64_t width = Vec<T>::width;
  return static_cast<double>(n) / static_cast<double>((n + width - 1) / width * width);
}

// With few outputs most lanes of a vector of outputs are empty: vectors run along the features then,
// and the small result is transposed once per path.
template <class T>
GLAI_ALWAYS_INLINE bool features_across(std::int64_t d, std::int64_t c) {
  return c <= kMaxOutputsAcross && lane_use<T>(c) < 0.8 * lane_use<T>(d);
}

// out[i, j] += sum over rows of a[row, i] * b[row, j], for na x nb results.
template <class T>
GLAI_ALWAYS_INLINE void add_outer_products(const T* a, std::int64_t a_stride, std::int64_t na,
                                           const T* b, std::int64_t b_stride, std::int64_t nb,
                                           const std::int32_t* rows, std::int64_t n_rows, T* out,
                                           std::int64_t out_stride) {
  for_column_tiles<T>(nb, [&](std::int64_t column, int vecs, Tail<T> tail) {
    const EvenSplit groups(na, outer_tile_rows(vecs));
    std::int64_t i = 0;
    for (std::int64_t g = 0; g < groups.parts; ++g) {
      const int m = static_cast<int>(groups.size(g));
      run_outer_tile<T>(m, vecs,
                        {a + i, a_stride, b + column, b_stride, rows, n_rows,
                         out + i * out_stride + column, out_stride, tail});
      i += m;
    }
  });
}

template <class T>
void gated_matmul_weight_grad_compaction(const GatedMatmulWeightGradArgs& a) {
  const std::int64_t n = a.x.shape[0], d = a.x.shape[1], c = a.dy.shape[1];
  const std::int64_t p_count = a.n_gates, w_words = words_per_row(p_count);
  const std::int64_t xs = a.x.stride[0], ys = a.dy.stride[0];
  const bool across = features_across<T>(d, c);
  // One slice at least, so that the bias gradient is written when D is 0.
  const std::int64_t slices = d == 0 ? 1 : (d + kGradFeatures - 1) / kGradFeatures;
  const double work =
      static_cast<double>(n) * static_cast<double>(p_count * c) * static_cast<double>(d + 1);

  parallel_for(p_count * slices, work, a.exec.threads, [&](std::int64_t task) {
    const std::int64_t p = task / slices, d0 = task % slices * kGradFeatures;
    const std::int64_t dn = d - d0 < kGradFeatures ? d - d0 : kGradFeatures;
    const auto* words = a.words.as<const std::uint32_t>();
    const T* x = a.x.as<const T>() + d0;
    const T* dy = a.dy.as<const T>();
    T* dw = a.dw.as<T>() + p * a.dw.stride[0] + d0 * a.dw.stride[1];
    T* db = a.db && d0 == 0 ? a.db->as<T>() + p * a.db->stride[0] : nullptr;

    T transposed[kMaxOutputsAcross * kGradFeatures];  // [c, dn], used when across
    if (across) {
      for (std::int64_t i = 0; i < c * dn; ++i) transposed[i] = T(0);
    }
    if (!a.accumulate) {
      for (std::int64_t i = 0; i < dn; ++i) {
        for (std::int64_t j = 0; j < c; ++j) dw[i * a.dw.stride[1] + j] = T(0);
      }
      for (std::int64_t j = 0; db != nullptr && j < c; ++j) db[j] = T(0);
    }

    std::int32_t rows[kGradRows];
    for (std::int64_t begin = 0; begin < n; begin += kGradRows) {
      const std::int64_t end = n - begin < kGradRows ? n : begin + kGradRows;
      const std::int64_t active = active_rows(words, w_words, p, begin, end, rows);
      if (active == 0) continue;
      const T* xb = x + begin * xs;
      const T* yb = dy + begin * ys;
      if (across) {
        add_outer_products<T>(yb, ys, c, xb, xs, dn, rows, active, transposed, dn);
      } else {
        add_outer_products<T>(xb, xs, dn, yb, ys, c, rows, active, dw, a.dw.stride[1]);
      }
      for (std::int64_t r = 0; db != nullptr && r < active; ++r) {
        for (std::int64_t j = 0; j < c; ++j) db[j] += yb[rows[r] * ys + j];
      }
    }
    if (across) {
      for (std::int64_t i = 0; i < dn; ++i) {
        for (std::int64_t j = 0; j < c; ++j) dw[i * a.dw.stride[1] + j] += transposed[j * dn + i];
      }
    }
  });
}

inline void gated_matmul_weight_grad(const GatedMatmulWeightGradArgs& a) {
  if (a.x.dtype == DType::float64) return gated_matmul_weight_grad_compaction<double>(a);
  return gated_matmul_weight_grad_compaction<float>(a);
}

}  // namespace glai::GLAI_ISA
