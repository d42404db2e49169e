// gated_matmul: counts the gates, takes the form that the plan names, and steps aside from the reference
// form where weights nearly cancel.
#pragma once

#include "core/args.hpp"
#include "core/plan.hpp"
#include "core/scratch.hpp"
#include "cpu/dense_product.hpp"
#include "cpu/gated_matmul_buckets.hpp"
#include "cpu/gates.hpp"
#include "cpu/parallel.hpp"
#include "cpu/tiles.hpp"
#include "cpu/weight_norms.hpp"

namespace glai::GLAI_ISA {

constexpr std::int64_t kSummedValues = 4096;

// Mean of the gates; 0 when there are none.
GLAI_ALWAYS_INLINE double density_of(const TensorView& words, std::int64_t n_gates) {
  const std::int64_t count = words.shape[0] * words.shape[1];
  std::int64_t on = 0;
  for (std::int64_t i = 0; i < count; ++i) on += __builtin_popcount(words.as<const std::uint32_t>()[i]);
  return count == 0 ? 0.0 : static_cast<double>(on) / static_cast<double>(words.shape[0] * n_gates);
}

// out[j] = sum of rows[i, j] over n rows, eight at a time: so many streams of memory at once.
template <class T>
GLAI_ALWAYS_INLINE void add_rows(const T* rows, std::int64_t stride, std::int64_t n,
                                 std::int64_t columns, T* out) {
  for (std::int64_t j = 0; j < columns; ++j) out[j] = T(0);
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const T* r = rows + i * stride;
    const T* s = r + 4 * stride;
    for (std::int64_t j = 0; j < columns; ++j) {
      out[j] += ((r[j] + r[stride + j]) + (r[2 * stride + j] + r[3 * stride + j])) +
                ((s[j] + s[stride + j]) + (s[2 * stride + j] + s[3 * stride + j]));
    }
  }
  for (; i < n; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) out[j] += rows[i * stride + j];
  }
}

// All gates on: one product with the sum of all paths' weights.
template <class Kind>
void gated_matmul_all_on(const GatedMatmulArgs& a) {
  using T = typename Kind::Value;
  const std::int64_t p_count = a.n_gates;
  // The dimension of the weights with stride 1 comes last, here and in their sum.
  const bool by_columns = a.weight.shape[2] == 1 || a.weight.stride[2] == 1;
  const int inner = by_columns ? 2 : 1, outer = by_columns ? 1 : 2;
  const std::int64_t rows = a.weight.shape[outer], columns = a.weight.shape[inner];
  const bool flat = a.weight.stride[outer] == columns;
  ScratchSizes sizes;
  const auto weight_at = sizes.add<T>(rows * columns);
  const auto bias_at = sizes.add<T>(a.weight.shape[2]);
  std::byte* memory = scratch(Scratch::plan, sizes.bytes());
  T* sum = reinterpret_cast<T*>(memory + weight_at);
  T* bias_sum = reinterpret_cast<T*>(memory + bias_at);
  // A few values at a time, so that their sums stay in the first-level cache.
  const std::int64_t row = flat ? rows * columns : columns;
  const EvenSplit parts(row, kSummedValues);
  parallel_for((flat ? 1 : rows) * parts.parts,
               static_cast<double>(p_count * rows) * static_cast<double>(columns), a.exec.threads,
               [&](std::int64_t task) {
                 const std::int64_t i = task / parts.parts, begin = parts.begin(task % parts.parts);
                 const std::int64_t count = parts.size(task % parts.parts);
                 const T* w = a.weight.as<const T>() + i * a.weight.stride[outer] + begin;
                 add_rows(w, a.weight.stride[0], p_count, count, sum + i * columns + begin);
               });
  if (a.bias) add_rows(a.bias->as<const T>(), a.bias->stride[0], p_count, a.bias->shape[1], bias_sum);
  const std::int64_t outer_stride = columns;
  dense_product<Kind>(
      a.x,
      {sum, {by_columns ? outer_stride : 1, by_columns ? 1 : outer_stride}, a.bias ? bias_sum : nullptr},
      a.y, a.exec.threads);
}

template <class Kind>
void gated_matmul_of(const GatedMatmulArgs& a) {
  using T = typename Kind::Value;
  const double density = density_of(a.words, a.n_gates);
  if (density >= 1.0 && a.form == Form::automatic) return gated_matmul_all_on<Kind>(a);
  const GatedShape shape{a.x.shape[0], a.n_gates, a.x.shape[1], a.weight.shape[2]};
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
