// The native training of a selector's network: gather a batch, its layers, loss, their gradients, Adam;
// no Python in between. A layer's activations give way to their gradients.
#pragma once

#include <cstdint>

#include "core/args.hpp"
#include "core/gates.hpp"
#include "cpu/adamw.hpp"
#include "cpu/gates.hpp"
#include "cpu/losses.hpp"
#include "cpu/products/dense_outer_product.hpp"
#include "cpu/products/dense_product.hpp"
#include "cpu/views.hpp"

namespace glai::GLAI_ISA {

constexpr std::int64_t kRowsAhead = 4;  // sent for while rows before them are copied

// The rows `ids` of x, side by side.
template <class T>
void gather_rows(const TensorView& x, const std::int64_t* ids, std::int64_t count, const TensorView& out,
                 int threads) {
  const std::int64_t d = x.shape[1];
  parallel_rows(count, static_cast<double>(count * d), threads, [&](auto begin, auto end) {
    for (std::int64_t i = begin; i < end; ++i) {
      if (i + kRowsAhead < end) {
        const T* ahead = x.as<const T>() + ids[i + kRowsAhead] * x.stride[0];
        for (std::int64_t j = 0; j < d; j += 64 / static_cast<std::int64_t>(sizeof(T)))
          __builtin_prefetch(ahead + j);
      }
      const T* from = x.as<const T>() + ids[i] * x.stride[0];
      T* to = out.as<T>() + i * out.stride[0];
      for (std::int64_t j = 0; j < d; ++j) to[j] = from[j];
    }
  });
}

// values = max(values, 0), and which of them were positive; NaN was not.
template <class T>
void rectify(const TensorView& values, const TensorView& words, int threads) {
  const std::int64_t n = values.shape[0], h = values.shape[1], w = words.shape[1];
  parallel_rows(n, static_cast<double>(n * h), threads, [&](auto begin, auto end) {
    for (std::int64_t i = begin; i < end; ++i) {
      T* row = values.as<T>() + i * values.stride[0];
      auto* bits = words.as<std::uint32_t>() + i * w;
      const auto keep = [bits](T* from, std::int64_t word) {
        bits[word] = positive_word(from);
        for (int j = 0; j < kWordBits; j += Vec<T>::width) {
          Vec<T>::load(from + j).only(bits[word] >> j).store(from + j);
        }
      };
      const std::int64_t whole = h / kWordBits, rest = h % kWordBits;
      for (std::int64_t word = 0; word < whole; ++word) keep(row + word * kWordBits, word);
      if (rest == 0) continue;
      T last[kWordBits] = {};
      for (std::int64_t j = 0; j < rest; ++j) last[j] = row[whole * kWordBits + j];
      keep(last, whole);
      for (std::int64_t j = 0; j < rest; ++j) row[whole * kWordBits + j] = last[j];
    }
  });
}

// One batch: the gradient of its mean loss by the parameters; returns the loss.
template <class T>
double structure_gradient(const StructureStepsArgs& a, const std::int64_t* ids, std::int64_t count) {
  const int threads = a.exec.threads;
  const auto below = [&](std::int64_t l) {  // what layer l reads
    return rows_of(l == 0 ? a.batch_x : a.hidden[l - 1], count);
  };
  const auto of = [&](std::int64_t l) {
    return rows_of(l < a.n_hidden ? a.hidden[l] : a.output, count);
  };
  gather_rows<T>(a.x, ids, count, a.batch_x, threads);
  std::int64_t flat = 0;
  for (std::int64_t l = 0; l <= a.n_hidden; ++l) {
    const TensorView x = below(l), y = of(l);
    const std::int64_t k = x.shape[1], h = y.shape[1];
    const T* weight = a.parameters.as<const T>() + flat;
    dense_product<Exact<T>>(x, {weight, {1, h == 1 ? 1 : k}, weight + h * k}, y, threads);
    if (l < a.n_hidden) rectify<T>(y, rows_of(a.hidden_words[l], count), threads);
    flat += h * (k + 1);
  }
  const double loss = loss_gradient<T>(a, ids, count);
  for (std::int64_t l = a.n_hidden; l >= 0; --l) {
    const TensorView x = below(l), dy = of(l);
    const std::int64_t k = x.shape[1], h = dy.shape[1];
    flat -= h * (k + 1);
    T* gradient = a.gradient.as<T>() + flat;
    dense_outer_product<T>(dy, x, gradient, threads);
    column_sums<T>(dy, gradient + h * k, threads);
    if (l == 0) break;
    const TensorView words = rows_of(a.hidden_words[l - 1], count);
    dense_product<Exact<T>>(dy, {a.parameters.as<const T>() + flat, {k, 1}, nullptr}, x, threads,
                            {words.as<const std::uint32_t>(), words_per_row(k), 0});
  }
  return loss;
}

template <class T>
void structure_steps_of(const StructureStepsArgs& a) {
  const std::int64_t count = a.order.shape[0], b = a.output.shape[0];
  const AdamWState<T> state{a.parameters.as<T>(), a.exp_avg.as<T>(), a.exp_avg_sq.as<T>(), nullptr};
  for (std::int64_t i = 0; i < a.losses.shape[0]; ++i) {
    const std::int64_t begin = i * b, rows = count - begin < b ? count - begin : b;
    a.losses.as<double>()[i] = structure_gradient<T>(a, a.order.as<const std::int64_t>() + begin, rows);
    adamw_step<T>({state, AdamWStep<T>(a.adamw, a.step + i + 1, 1)}, a.gradient.as<const T>(),
                  a.parameters.shape[0], a.exec.threads);
  }
}

inline void structure_steps(const StructureStepsArgs& a) {
  if (a.x.dtype == DType::float64) return structure_steps_of<double>(a);
  structure_steps_of<float>(a);
}

}  // namespace glai::GLAI_ISA
