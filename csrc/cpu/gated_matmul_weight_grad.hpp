// gated_matmul_weight_grad: one product where all gates are on, copied to all paths; buckets otherwise.
#pragma once

#include <cstdint>

#include "core/args.hpp"
#include "core/plan.hpp"
#include "core/scratch.hpp"
#include "cpu/gated_matmul.hpp"
#include "cpu/gated_matmul_weight_grad_buckets.hpp"
#include "cpu/parallel.hpp"
#include "cpu/products/dense_outer_product.hpp"
#include "cpu/products/panel.hpp"
#include "cpu/products/tiles.hpp"

namespace glai::GLAI_ISA {

constexpr std::int64_t kCopiedValues = 16384;  // of a task, where all gates are on

// One path's share of gates that are all on: words of one gate [N], every one set.
GLAI_ALWAYS_INLINE TensorView all_on_words(std::uint32_t* words, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) words[i] = 1u;
  TensorView view;
  view.data = words;
  view.ndim = 2;
  view.shape[0] = n;
  view.shape[1] = view.stride[0] = view.stride[1] = 1;
  return view;
}

constexpr std::int64_t kThinRows = 32;       // summed at a time
constexpr std::int64_t kThinFeatures = 256;  // of a task

// out [D, C] = xᵀ · dy, summed over the samples: of few outputs and many samples it reads x once and
// does little besides, so samples come a few at a time, along their rows.
template <class T>
void thin_outer_product(const TensorView& x, const TensorView& dy, T* out, int threads) {
  constexpr std::int64_t lanes = Vec<T>::width;
  const std::int64_t n = x.shape[0], d = x.shape[1], c = dy.shape[1];
  const EvenSplit passes(n, kThinRows), slices(d, kThinFeatures);
  const int most_vecs = outer_tile_vecs(c);
  const EvenSplit rows(c, outer_tile_rows(most_vecs));
  const double work = static_cast<double>(n * d) * static_cast<double>(c);
  parallel_for(slices.parts, work, threads, [&](std::int64_t slice) {
    const std::int64_t d0 = slices.begin(slice), dn = slices.size(slice);
    const std::int64_t width = (dn + lanes - 1) / lanes * lanes;
    ScratchSizes sizes;
    sizes.add<T>(c * width);
    T* sums = reinterpret_cast<T*>(scratch(Scratch::task, sizes.bytes()));  // [C, features]
    for (std::int64_t pass = 0; pass < passes.parts; ++pass) {
      const std::int64_t first = passes.begin(pass);
      const T* from_x = x.as<const T>() + first * x.stride[0] + d0;
      const T* from_dy = dy.as<const T>() + first * dy.stride[0];
      for_column_tiles<T>(
          dn,
          [&](std::int64_t column, int vecs, Tail<T> tail) {
            for (std::int64_t r = 0; pass + 1 < passes.parts && r < passes.size(pass + 1); ++r) {
              const T* next = from_x + (passes.size(pass) + r) * x.stride[0] + column;
              for (int v = 0; v < vecs; ++v) __builtin_prefetch(next + v * lanes, 0, 2);
            }
            for (std::int64_t g = 0; g < rows.parts; ++g) {
              const std::int64_t i = rows.begin(g);
              run_outer_tile<T, false, false>(
                  static_cast<int>(rows.size(g)), vecs,
                  {from_dy + i, dy.stride[0], from_x + column, x.stride[0], nullptr, passes.size(pass),
                   tail, sums + i * width + column, width, false, pass > 0});
            }
          },
          most_vecs);
    }
    pack_transposed(sums, width, dn, c, out + d0 * c, c);
  });
}

// Copies of dw and db of one path; past the caches where they would not keep them.
constexpr std::int64_t kStreamedGradientBytes = 8 << 20;

// All gates on: one product, copied to all paths.
template <class Kind>
void gated_matmul_weight_grad_all_on(const GatedMatmulWeightGradArgs& a) {
  using T = typename Kind::Value;
  const std::int64_t n = a.x.shape[0], d = a.x.shape[1], c = a.dy.shape[1];
  ScratchSizes sizes;
  const auto dw_at = sizes.add<T>(d * c);
  const auto db_at = sizes.add<T>(c);
  const auto words_at = sizes.add<std::uint32_t>(n);
  std::byte* memory = scratch(Scratch::plan, sizes.bytes());
  if (!Kind::kRounds && n > 0 && d > 0) {
    T* out = reinterpret_cast<T*>(memory + dw_at);
    if (features_across<T>(d, c)) {
      thin_outer_product<T>(a.x, a.dy, out, a.exec.threads);
    } else {
      dense_outer_product<T>(a.x, a.dy, out, a.exec.threads);
    }
    if (a.db) column_sums<T>(a.dy, reinterpret_cast<T*>(memory + db_at), a.exec.threads);
  } else {
    GatedMatmulWeightGradArgs one = a;
    one.n_gates = 1;
    one.words = all_on_words(reinterpret_cast<std::uint32_t*>(memory + words_at), n);
    one.accumulate = false;
    one.dw.data = memory + dw_at;
    one.dw.shape[0] = 1;
    one.dw.stride[0] = d * c;
    one.dw.stride[1] = c;
    if (one.db) {
      one.db->data = memory + db_at;
      one.db->shape[0] = 1;
      one.db->stride[0] = c;
    }
    gated_matmul_weight_grad_buckets<Kind>(one, 1);
  }
  const T* dw = reinterpret_cast<const T*>(memory + dw_at);
  const T* db = reinterpret_cast<const T*>(memory + db_at);
  const EvenSplit tasks(a.n_gates, (kCopiedValues + d * c) / (d * c + 1));
  constexpr std::int64_t lanes = Vec<T>::width;
  const bool streamed =
      !a.accumulate && a.dw.stride[1] == c && a.dw.stride[0] % lanes == 0 &&
      reinterpret_cast<std::uintptr_t>(a.dw.data) % (lanes * sizeof(T)) == 0 &&
      a.n_gates * d * c * static_cast<std::int64_t>(sizeof(T)) > kStreamedGradientBytes;
  parallel_for(
      tasks.parts, 0.25 * static_cast<double>(a.n_gates * d) * static_cast<double>(c), a.exec.threads,
      [&](std::int64_t task) {
        const bool flat = a.dw.stride[1] == c;
        const std::int64_t rows = flat ? 1 : d, columns = flat ? d * c : c;
        const auto copy = [&](const T* from, std::int64_t count, T* out) {
          constexpr std::int64_t lanes = Vec<T>::width;
          if (a.accumulate) {
            for (std::int64_t j = 0; j < count; ++j) out[j] += from[j];
            return;
          }
          std::int64_t j = 0;
          if (streamed) {
            for (; j + lanes <= count; j += lanes) Vec<T>::load(from + j).stream(out + j);
          }
          for (; j < count; ++j) out[j] = from[j];
        };
        for (std::int64_t p = tasks.begin(task); p < tasks.begin(task) + tasks.size(task); ++p) {
          for (std::int64_t k = 0; k < rows; ++k) {
            copy(dw + k * columns, columns, a.dw.as<T>() + p * a.dw.stride[0] + k * a.dw.stride[1]);
          }
          for (std::int64_t j = 0; a.db && j < c; ++j) {
            T& out = a.db->as<T>()[p * a.db->stride[0] + j];
            out = a.accumulate ? out + db[j] : db[j];
          }
        }
        if (streamed) stream_fence();
      });
}

// update: as above; not where all gates are on.
template <class Kind, class Write = WriteGradient<typename Kind::Value>>
void gated_matmul_weight_grad_of(const GatedMatmulWeightGradArgs& a, const Write* update = nullptr) {
  const double density = density_of(a.words, a.n_gates);
  if (density >= 1.0 && a.form == Form::automatic) return gated_matmul_weight_grad_all_on<Kind>(a);
  const GatedShape shape{a.x.shape[0], a.n_gates, a.x.shape[1], a.dy.shape[1]};
  const GatedMatmulPlan plan = plan_gated_matmul_weight_grad(shape, density, a.form);
  gated_matmul_weight_grad_buckets<Kind>(a, plan.group_gates, update);
}

template <class Bf16>
void gated_matmul_weight_grad(const GatedMatmulWeightGradArgs& a) {
  if (a.x.dtype == DType::float64) return gated_matmul_weight_grad_of<Exact<double>>(a);
  if (a.precision == Precision::bf16) return gated_matmul_weight_grad_of<Bf16>(a);
  return gated_matmul_weight_grad_of<Exact<float>>(a);
}

}  // namespace glai::GLAI_ISA
