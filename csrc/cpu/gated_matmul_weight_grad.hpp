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

// Active rows gathered at a time, from samples scanned a few at a time: enough to pay for loading and
// storing the sums, whatever the density, and few enough that their slices stay in the second-level
// cache.
template <class T>
constexpr std::int64_t kGradRows = 768 / sizeof(T);
constexpr std::int64_t kScanRows = 32;
constexpr std::int64_t kMaxScanned = std::int64_t{1} << 30;
// Features per task.
constexpr std::int64_t kGradFeatures = 256;
// With at most this many outputs the features may be the vector lanes instead.
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

// Rows this far apart share few sets of the first-level cache and evict each other while a tile walks
// down.
template <class T>
GLAI_ALWAYS_INLINE bool rows_collide(std::int64_t stride) {
  return stride * static_cast<std::int64_t>(sizeof(T)) % 512 == 0;
}

// out[i, j] (+)= sum over n_rows rows of a[row, i] * b[row, j], for na x nb results.
template <class T>
GLAI_ALWAYS_INLINE void add_outer_products(const Rows<T>& a, std::int64_t na, const Rows<T>& b,
                                           std::int64_t nb, std::int64_t n_rows, T* out,
                                           std::int64_t out_stride, bool fresh) {
  for_column_tiles<T>(nb, [&](std::int64_t column, int vecs, Tail<T> tail) {
    const EvenSplit groups(na, outer_tile_rows(vecs));
    std::int64_t i = 0;
    for (std::int64_t g = 0; g < groups.parts; ++g) {
      const int m = static_cast<int>(groups.size(g));
      run_outer_tile<T>(m, vecs,
                        {{a.data + i, a.stride, a.rows},
                         {b.data + column, b.stride, b.rows},
                         n_rows,
                         out + i * out_stride + column,
                         out_stride,
                         fresh,
                         tail});
      i += m;
    }
  });
}

template <class T>
void gated_matmul_weight_grad_compaction(const GatedMatmulWeightGradArgs& a) {
  const std::int64_t n = a.x.shape[0], d = a.x.shape[1], c = a.dy.shape[1];
  const std::int64_t p_count = a.n_gates, w_words = words_per_row(p_count);
  const std::int64_t x_stride = a.x.stride[0], dy_stride = a.dy.stride[0];
  const bool across = features_across<T>(d, c), copy_x = !across && rows_collide<T>(x_stride);
  // One slice at least, so that the bias gradient is written when D is 0.
  const std::int64_t slices = d == 0 ? 1 : (d + kGradFeatures - 1) / kGradFeatures;
  const double work =
      static_cast<double>(n) * static_cast<double>(p_count * c) * static_cast<double>(d + 1);

  parallel_for(p_count * slices, work, a.exec.threads, [&](std::int64_t task) {
    const std::int64_t p = task / slices, d0 = task % slices * kGradFeatures;
    const std::int64_t dn = d - d0 < kGradFeatures ? d - d0 : kGradFeatures;
    const auto* words = a.words.as<const std::uint32_t>();
    const std::int64_t dw_stride = a.dw.stride[1];
    T* dw = a.dw.as<T>() + p * a.dw.stride[0] + d0 * dw_stride;
    T* db = a.db && d0 == 0 ? a.db->as<T>() + p * a.db->stride[0] : nullptr;
    for (std::int64_t j = 0; db != nullptr && !a.accumulate && j < c; ++j) db[j] = T(0);

    constexpr std::int64_t kCopyStride = kGradFeatures + 64 / sizeof(T);  // an odd number of cache lines
    T copied[kGradRows<T> * kCopyStride];                                 // used when copy_x
    T transposed[kMaxOutputsAcross * kGradFeatures];                      // [c, dn], used when across
    std::int32_t rows[kGradRows<T>], in_order[kGradRows<T>];
    for (std::int32_t r = 0; r < kGradRows<T>; ++r) in_order[r] = r;

    // Nothing has been written to the result yet: its first products overwrite it.
    bool fresh = across || !a.accumulate;
    for (std::int64_t begin = 0, end = 0; begin < n; begin = end) {
      std::int64_t active = 0;
      while (end < n && active + kScanRows <= kGradRows<T> && end - begin < kMaxScanned) {
        const std::int64_t stop = n - end < kScanRows ? n : end + kScanRows;
        active +=
            active_rows(words + begin * w_words, w_words, p, end - begin, stop - begin, rows + active);
        end = stop;
      }
      if (active == 0) continue;
      Rows<T> x{a.x.as<const T>() + begin * x_stride + d0, x_stride, rows};
      const Rows<T> dy{a.dy.as<const T>() + begin * dy_stride, dy_stride, rows};
      for (std::int64_t r = 0; db != nullptr && r < active; ++r) {
        for (std::int64_t j = 0; j < c; ++j) db[j] += dy.data[rows[r] * dy_stride + j];
      }
      if (copy_x) {
        for (std::int64_t r = 0; r < active; ++r) {
          for (std::int64_t i = 0; i < dn; ++i) {
            copied[r * kCopyStride + i] = x.data[rows[r] * x_stride + i];
          }
        }
        x = {copied, kCopyStride, in_order};
      }
      if (across) {
        add_outer_products<T>(dy, c, x, dn, active, transposed, dn, fresh);
      } else {
        add_outer_products<T>(x, dn, dy, c, active, dw, dw_stride, fresh);
      }
      fresh = false;
    }
    if (across && !fresh) {
      for (std::int64_t i = 0; i < dn; ++i) {
        for (std::int64_t j = 0; j < c; ++j) {
          const T sum = transposed[j * dn + i];
          dw[i * dw_stride + j] = a.accumulate ? dw[i * dw_stride + j] + sum : sum;
        }
      }
    } else if (fresh && !a.accumulate) {  // never on
      for (std::int64_t i = 0; i < dn; ++i) {
        for (std::int64_t j = 0; j < c; ++j) dw[i * dw_stride + j] = T(0);
      }
    }
  });
}

inline void gated_matmul_weight_grad(const GatedMatmulWeightGradArgs& a) {
  if (a.x.dtype == DType::float64) return gated_matmul_weight_grad_compaction<double>(a);
  return gated_matmul_weight_grad_compaction<float>(a);
}

}  // namespace glai::GLAI_ISA
