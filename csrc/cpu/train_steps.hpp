// The native training loop: gather a batch, product, loss, masked gradient, AdamW; no Python in between.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/args.hpp"
#include "core/gates.hpp"
#include "core/scratch.hpp"
#include "cpu/adamw.hpp"
#include "cpu/few_numbers.hpp"
#include "cpu/few_outputs.hpp"
#include "cpu/gated_linear.hpp"
#include "cpu/gated_matmul.hpp"
#include "cpu/gated_matmul_weight_grad.hpp"
#include "cpu/gates.hpp"
#include "cpu/losses.hpp"
#include "cpu/products/dense_product.hpp"
#include "cpu/views.hpp"

namespace glai::GLAI_ISA {

// The samples of a batch, side by side; the last feature stays 1.
template <class T>
void gather_batch(const TrainStepsArgs& a, const std::int64_t* ids, std::int64_t count) {
  const std::int64_t d = a.x.shape[1], w = words_per_row(a.n_gates);
  parallel_rows(count, static_cast<double>(count * (d + w)), a.exec.threads, [&](auto begin, auto end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const T* from = a.x.as<const T>() + ids[i] * a.x.stride[0];
      T* to = a.batch_x.as<T>() + i * a.batch_x.stride[0];
      for (std::int64_t j = 0; j < d; ++j) to[j] = from[j];
      to[d] = T(1);
      const auto* from_words = a.words.as<const std::uint32_t>() + ids[i] * w;
      auto* to_words = a.batch_words.as<std::uint32_t>() + i * w;
      for (std::int64_t j = 0; j < w; ++j) to_words[j] = from_words[j];
    }
  });
}

constexpr std::int64_t kOuterColumns = 128;  // of a task

// out[j, c] = sum_n x[n, j] * dy[n, c]: the gradient of one path that every sample has on, a few columns
// at a time, since one path is one task.
template <class T>
void outer_sums(const TensorView& x, const TensorView& dy, const TensorView& out,
                const Execution& exec) {
  std::byte* memory = scratch(Scratch::plan, x.shape[0] * sizeof(std::uint32_t));
  const TensorView words = all_on_words(reinterpret_cast<std::uint32_t*>(memory), x.shape[0]);
  const EvenSplit slices(dy.shape[1], kOuterColumns);
  const double work = static_cast<double>(x.shape[0] * x.shape[1]) * static_cast<double>(dy.shape[1]);
  parallel_for(slices.parts, work, exec.threads, [&](std::int64_t slice) {
    TensorView columns = dy, sums = out;
    columns.data = dy.as<T>() + slices.begin(slice);
    sums.data = out.as<T>() + slices.begin(slice);
    columns.shape[1] = sums.shape[2] = slices.size(slice);
    gated_matmul_weight_grad_buckets<Exact<T>>(
        {x, words, 1, columns, sums, std::nullopt, false, Form::compaction, {}}, 1);
  });
}

// Output of a batch becomes the gradient of its loss, which is returned.
template <class T>
double full_path_loss(const TrainStepsArgs& a, const std::int64_t* ids, std::int64_t count) {
  const std::int64_t d = a.batch_x.shape[1], c = a.output.shape[1];
  const TensorView x = rows_of(a.batch_x, count), words = rows_of(a.batch_words, count);
  const TensorView y = rows_of(a.output, count);
  const TensorView weight = view_like(a.parameters, a.parameters.as<T>(), a.n_gates, d, c);
  if (c <= kFewOutputs && density_of(words, a.n_gates) >= kFewOutputsDensity) {
    few_outputs_product<T>(x, words, weight, y, a.exec.threads);
  } else {
    gated_matmul_of<Exact<T>>({x, words, a.n_gates, weight, std::nullopt, y, Form::automatic, a.exec});
  }
  return loss_gradient<T>(a, ids, count);
}

// From the gradient by the output to the new parameters. In a batch of one block, where not all gates
// are on, each stretch of the gradient makes its step where it was summed, and is written nowhere.
template <class T>
void full_path_step(const TrainStepsArgs& a, std::int64_t count, const UpdateParameters<T>& update) {
  const std::int64_t d = a.batch_x.shape[1], c = a.output.shape[1];
  const TensorView x = rows_of(a.batch_x, count), words = rows_of(a.batch_words, count);
  if (are_few_numbers<T>(a.n_gates, d, c)) {
    few_numbers_weight_grad<T>(x, words, rows_of(a.output, count),
                               view_like(a.gradient, a.gradient.as<T>(), a.n_gates, d, c),
                               a.exec.threads);
    adamw_step<T>(update, a.gradient.as<const T>(), a.parameters.shape[0], a.exec.threads);
    return;
  }
  const bool at_once = count <= kMaxBlockRows && density_of(words, a.n_gates) < 1.0;
  const TensorView gradient =
      view_like(a.gradient, (at_once ? a.parameters : a.gradient).template as<T>(), a.n_gates, d, c);
  const GatedMatmulWeightGradArgs args{x,        words,        a.n_gates, rows_of(a.output, count),
                                       gradient, std::nullopt, false,     Form::automatic,
                                       a.exec};
  if (at_once) {
    gated_matmul_weight_grad_of<Exact<T>>(args, &update);
  } else {
    gated_matmul_weight_grad_of<Exact<T>>(args);
    adamw_step<T>(update, a.gradient.as<const T>(), a.parameters.shape[0], a.exec.threads);
  }
}

template <class T>
double directions_gradient(const TrainStepsArgs& a, const std::int64_t* ids, std::int64_t count) {
  const std::int64_t d = a.batch_x.shape[1], c = a.output.shape[1], p = a.n_gates;
  const TensorView x = rows_of(a.batch_x, count), words = rows_of(a.batch_words, count);
  const TensorView y = rows_of(a.output, count), dh = rows_of(*a.hidden_grad, count);
  const TensorView features = rows_of(*a.hidden, count);
  TensorView h = features;
  h.shape[1] = p;
  const T* u = a.parameters.as<const T>();
  const ColumnGates gates{words.as<const std::uint32_t>(), words_per_row(p), 0};
  dense_product<Exact<T>>(x, {u, {p, 1}, nullptr}, h, a.exec.threads, gates);
  T* last_path = a.output_weights->as<T>() + p * c;
  for (std::int64_t i = 0; i < d * c; ++i) last_path[i] = u[d * p + i];
  dense_product<Exact<T>>(features, {a.output_weights->as<const T>(), {c, 1}, nullptr}, y,
                          a.exec.threads);
  const double loss = loss_gradient<T>(a, ids, count);
  dense_product<Exact<T>>(y, {a.directions->as<const T>(), {1, a.directions->stride[0]}, nullptr}, dh,
                          a.exec.threads, gates);
  T* gradient = a.gradient.as<T>();
  outer_sums<T>(x, dh, view_like(a.gradient, gradient, 1, d, p), a.exec);
  outer_sums<T>(x, y, view_like(a.gradient, gradient + d * p, 1, d, c), a.exec);
  return loss;
}

template <class T>
void train_steps_of(const TrainStepsArgs& a) {
  const std::int64_t count = a.order.shape[0], parameters = a.parameters.shape[0];
  const AdamWState<T> state{a.parameters.as<T>(), a.exp_avg.as<T>(), a.exp_avg_sq.as<T>(),
                            a.mean.as<T>()};
  if (a.directions) {
    const std::int64_t c = a.output.shape[1];
    for (std::int64_t i = 0; i < a.n_gates; ++i) {
      for (std::int64_t j = 0; j < c; ++j) {
        a.output_weights->as<T>()[i * c + j] =
            a.directions->as<const T>()[i * a.directions->stride[0] + j];
      }
    }
  }
  for (std::int64_t i = 0; i < a.losses.shape[0]; ++i) {
    const std::int64_t begin = i * a.batch_size;
    const std::int64_t rows = count - begin < a.batch_size ? count - begin : a.batch_size;
    const std::int64_t* ids = a.order.as<const std::int64_t>() + begin;
    gather_batch<T>(a, ids, rows);
    const double loss =
        a.directions ? directions_gradient<T>(a, ids, rows) : full_path_loss<T>(a, ids, rows);
    a.losses.as<double>()[i] = loss;
    if (!std::isfinite(loss)) return;
    const UpdateParameters<T> update{state, AdamWStep<T>(a.adamw, a.step + i + 1, a.averaged + i + 1)};
    if (a.directions) {
      adamw_step<T>(update, a.gradient.as<const T>(), parameters, a.exec.threads);
    } else {
      full_path_step<T>(a, rows, update);
    }
  }
}

inline void train_steps(const TrainStepsArgs& a) {
  if (a.x.dtype == DType::float64) return train_steps_of<double>(a);
  train_steps_of<float>(a);
}

}  // namespace glai::GLAI_ISA
