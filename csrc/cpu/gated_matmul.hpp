// gated_matmul: counts the gates, takes the form that the plan names, and steps aside from the reference
// form where weights nearly cancel.
#pragma once

#include "core/args.hpp"
#include "core/plan.hpp"
#include "core/scratch.hpp"
#include "cpu/few_features.hpp"
#include "cpu/gated_matmul_buckets.hpp"
#include "cpu/gated_matmul_features.hpp"
#include "cpu/gates.hpp"
#include "cpu/parallel.hpp"
#include "cpu/products/dense_product.hpp"
#include "cpu/products/tiles.hpp"
#include "cpu/products/weight_norms.hpp"

namespace glai::GLAI_ISA {

constexpr std::int64_t kSummedValues = 4096;

// Mean of the gates; 0 when there are none.
GLAI_ALWAYS_INLINE double density_of(const TensorView& words, std::int64_t n_gates) {
  const std::int64_t count = words.shape[0] * words.shape[1];
  std::int64_t on = 0;
  for (std::int64_t i = 0; i < count; ++i) on += __builtin_popcount(words.as<const std::uint32_t>()[i]);
  return count == 0 ? 0.0 : static_cast<double>(on) / static_cast<double>(words.shape[0] * n_gates);
}

// out[j] = sum of rows[list[i], j] over n rows, eight at a time: so many streams of memory at once.
template <class T>
GLAI_ALWAYS_INLINE void add_rows(const T* rows, std::int64_t stride, const std::int32_t* list,
                                 std::int64_t n, std::int64_t columns, T* out) {
  for (std::int64_t j = 0; j < columns; ++j) out[j] = T(0);
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const T* r[8];
    for (int k = 0; k < 8; ++k) r[k] = rows + list[i + k] * stride;
    for (std::int64_t j = 0; j < columns; ++j) {
      out[j] +=
          ((r[0][j] + r[1][j]) + (r[2][j] + r[3][j])) + ((r[4][j] + r[5][j]) + (r[6][j] + r[7][j]));
    }
  }
  for (; i < n; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) out[j] += rows[list[i] * stride + j];
  }
}

// Samples that have the same paths on, and no others.
struct AlikeSamples {
  std::int64_t first, count;
  const std::int32_t* paths;
  std::int64_t path_count;
};

// One product with the sum of the weights of the paths that are on.
template <class Kind>
void multiply_by_sum(const GatedMatmulArgs& a, const AlikeSamples& samples, std::byte* memory) {
  using T = typename Kind::Value;
  // The dimension of the weights with stride 1 comes last, here and in their sum.
  const bool by_columns = a.weight.shape[2] == 1 || a.weight.stride[2] == 1;
  const int inner = by_columns ? 2 : 1, outer = by_columns ? 1 : 2;
  const std::int64_t rows = a.weight.shape[outer], columns = a.weight.shape[inner];
  const bool flat = a.weight.stride[outer] == columns;
  T* sum = reinterpret_cast<T*>(memory);
  T* bias_sum = sum + rows * columns;
  // A few values at a time, so that their sums stay in the first-level cache.
  const std::int64_t row = flat ? rows * columns : columns;
  const EvenSplit parts(row, kSummedValues);
  parallel_for((flat ? 1 : rows) * parts.parts,
               static_cast<double>(samples.path_count * rows) * static_cast<double>(columns),
               a.exec.threads, [&](std::int64_t task) {
                 const std::int64_t i = task / parts.parts, begin = parts.begin(task % parts.parts);
                 const std::int64_t count = parts.size(task % parts.parts);
                 const T* w = a.weight.as<const T>() + i * a.weight.stride[outer] + begin;
                 add_rows(w, a.weight.stride[0], samples.paths, samples.path_count, count,
                          sum + i * columns + begin);
               });
  if (a.bias) {
    add_rows(a.bias->as<const T>(), a.bias->stride[0], samples.paths, samples.path_count,
             a.bias->shape[1], bias_sum);
  }
  TensorView x = a.x, y = a.y;
  x.data = a.x.as<T>() + samples.first * x.stride[0];
  y.data = a.y.as<T>() + samples.first * y.stride[0];
  x.shape[0] = y.shape[0] = samples.count;
  if constexpr (!Kind::kRounds) {
    if (plan_sums_by_features({samples.count, 1, a.weight.shape[1], a.weight.shape[2]})) {
      GatedMatmulArgs one = a;
      one.x = x;
      one.y = y;
      one.weight.data = sum;
      one.weight.shape[0] = 1;
      one.weight.stride[outer] = columns;
      one.weight.stride[inner] = 1;
      if (a.bias) one.bias->data = bias_sum;
      return dense_product_by_features<T>(one);
    }
  }
  dense_product<Kind>(
      x, {sum, {by_columns ? columns : 1, by_columns ? 1 : columns}, a.bias ? bias_sum : nullptr}, y,
      a.exec.threads);
}

// All samples alike, with all paths on, or one by one.
template <class Kind>
void gated_matmul_by_sums(const GatedMatmulArgs& a, bool all_on) {
  using T = typename Kind::Value;
  ScratchSizes sizes;
  const auto sums_at = sizes.add<T>((a.weight.shape[1] + 1) * a.weight.shape[2]);
  const auto paths_at = sizes.add<std::int32_t>(a.n_gates);
  std::byte* memory = scratch(Scratch::plan, sizes.bytes());
  auto* paths = reinterpret_cast<std::int32_t*>(memory + paths_at);
  if (all_on) {
    for (std::int64_t p = 0; p < a.n_gates; ++p) paths[p] = static_cast<std::int32_t>(p);
    multiply_by_sum<Kind>(a, {0, a.x.shape[0], paths, a.n_gates}, memory + sums_at);
    return;
  }
  const std::int64_t w = words_per_row(a.n_gates);
  for (std::int64_t n = 0; n < a.x.shape[0]; ++n) {
    std::int64_t count = 0;
    for (std::int64_t j = 0; j < w; ++j) {
      std::uint32_t word = a.words.as<const std::uint32_t>()[n * w + j];
      for (; word != 0; word &= word - 1) {
        paths[count++] = static_cast<std::int32_t>(j * kWordBits + __builtin_ctz(word));
      }
    }
    multiply_by_sum<Kind>(a, {n, 1, paths, count}, memory + sums_at);
  }
}

template <class Kind>
void gated_matmul_of(const GatedMatmulArgs& a) {
  using T = typename Kind::Value;
  const double density = density_of(a.words, a.n_gates);
  const GatedShape shape{a.x.shape[0], a.n_gates, a.x.shape[1], a.weight.shape[2]};
  const bool all_on = density >= 1.0;
  if (a.form == Form::automatic && (all_on || plan_takes_samples_alone(shape))) {
    return gated_matmul_by_sums<Kind>(a, all_on);
  }
  const std::int64_t w = words_per_row(a.n_gates);
  ScratchSizes sizes;
  const auto counts_at = sizes.add<std::int64_t>(a.n_gates);
  const auto order_at = sizes.add<std::int32_t>(a.n_gates);
  const auto majority_at = sizes.add<std::uint8_t>(a.n_gates);
  const auto words_at = sizes.add<std::uint32_t>(w);
  std::byte* memory = scratch(Scratch::plan, sizes.bytes());
  auto* counts = reinterpret_cast<std::int64_t*>(memory + counts_at);
  auto* majority_words = reinterpret_cast<std::uint32_t*>(memory + words_at);
  const PathOrder paths{reinterpret_cast<std::int32_t*>(memory + order_at),
                        reinterpret_cast<std::uint8_t*>(memory + majority_at)};

  const bool counted = plan_wants_counts(shape, density, a.form);
  if (counted) {
    TensorView view;
    view.data = counts;
    gate_counts({a.words, a.n_gates, view, a.exec});
  }
  GatedMatmulPlan plan = plan_gated_matmul(shape, density, counted ? counts : nullptr, a.form, paths);
  // A form that was asked for is taken; one that we chose steps aside.
  if (plan.form == Form::reference && a.form == Form::automatic) {
    for (std::int64_t j = 0; j < w; ++j) majority_words[j] = 0;
    for (std::int64_t p = 0; p < a.n_gates; ++p) {
      majority_words[p / kWordBits] |= std::uint32_t{paths.majority[p]} << (p % kWordBits);
    }
    if (!majority_is_safe<T>(a, majority_words)) {
      plan = plan_gated_matmul(shape, density, nullptr, a.form, paths);
    }
  }
  if constexpr (!Kind::kRounds) {
    if (plan.by_features) return gated_matmul_features<T>(a, plan, paths);
    if (plan.form != Form::reference && !a.bias && shape.d > 0 && shape.d <= kRegisterFeatures) {
      return few_features_product<T>(a, plan, paths);
    }
  }
  gated_matmul_buckets<Kind>(a, plan, paths);
}

// Bf16: the operands that precision "bf16" takes.
template <class Bf16>
void gated_matmul(const GatedMatmulArgs& a) {
  if (a.x.dtype == DType::float64) return gated_matmul_of<Exact<double>>(a);
  if (a.precision == Precision::bf16) return gated_matmul_of<Bf16>(a);
  return gated_matmul_of<Exact<float>>(a);
}

}  // namespace glai::GLAI_ISA
