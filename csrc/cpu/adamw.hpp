// One step of AdamW over all parameters at once, and the running mean of the iterates.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/args.hpp"
#include "cpu/parallel.hpp"
#include "cpu/products/tiles.hpp"

namespace glai::GLAI_ISA {

constexpr std::int64_t kUpdatedValues = 4096;  // of a task

template <class T>
struct AdamWState {
  T* parameters;
  T* exp_avg;
  T* exp_avg_sq;
  T* mean;  // of the iterates; null: nobody wants it
};

// The factors of step number `step`, 1 for the first; `averaged` iterates are in the mean with this one.
template <class T>
struct AdamWStep {
  Vec<T> decay, beta1, beta2, one_minus_beta1, one_minus_beta2, rate, root_correction, eps, share;

  AdamWStep(const AdamW& a, std::int64_t step, std::int64_t averaged)
      : decay(Vec<T>::broadcast(T(1 - a.learning_rate * a.weight_decay))),
        beta1(Vec<T>::broadcast(T(a.beta1))),
        beta2(Vec<T>::broadcast(T(a.beta2))),
        one_minus_beta1(Vec<T>::broadcast(T(1 - a.beta1))),
        one_minus_beta2(Vec<T>::broadcast(T(1 - a.beta2))),
        rate(
            Vec<T>::broadcast(T(-a.learning_rate / (1 - std::pow(a.beta1, static_cast<double>(step)))))),
        root_correction(
            Vec<T>::broadcast(T(1 / std::sqrt(1 - std::pow(a.beta2, static_cast<double>(step)))))),
        eps(Vec<T>::broadcast(T(a.eps))),
        share(Vec<T>::broadcast(T(1.0 / static_cast<double>(averaged)))) {}

  // Of the parameters from i on, whose gradient is g.
  template <class... Lanes>
  GLAI_ALWAYS_INLINE void run(const AdamWState<T>& s, std::int64_t i, Vec<T> g, Lanes... lanes) const {
    const auto m = one_minus_beta1.times(g).plus_product(beta1, Vec<T>::load(s.exp_avg + i, lanes...));
    const auto v =
        one_minus_beta2.times(g).times(g).plus_product(beta2, Vec<T>::load(s.exp_avg_sq + i, lanes...));
    const auto denominator = eps.plus_product(v.root(), root_correction);
    const auto p =
        decay.times(Vec<T>::load(s.parameters + i, lanes...)).plus_product(rate, m.over(denominator));
    m.store(s.exp_avg + i, lanes...);
    v.store(s.exp_avg_sq + i, lanes...);
    p.store(s.parameters + i, lanes...);
    if (s.mean == nullptr) return;
    const auto mean = Vec<T>::load(s.mean + i, lanes...);
    const auto difference = p.plus_product(Vec<T>::broadcast(T(-1)), mean);
    mean.plus_product(share, difference).store(s.mean + i, lanes...);
  }
};

// A stretch of the gradient, taken as soon as it is known.
template <class T>
struct UpdateParameters {
  AdamWState<T> state;
  AdamWStep<T> step;

  // parameters: where the stretch begins in the state's.
  GLAI_ALWAYS_INLINE void operator()(T* parameters, const T* gradient, std::int64_t count) const {
    constexpr std::int64_t width = Vec<T>::width;
    const std::int64_t first = parameters - state.parameters;
    std::int64_t j = 0;
    for (; j + width <= count; j += width) step.run(state, first + j, Vec<T>::load(gradient + j));
    if (j == count) return;
    const Tail<T> tail(static_cast<int>(count - j));
    step.run(state, first + j, Vec<T>::load(gradient + j, tail), tail);
  }
};

template <class T>
void adamw_step(const UpdateParameters<T>& update, const T* gradient, std::int64_t count, int threads) {
  const std::int64_t tasks = (count + kUpdatedValues - 1) / kUpdatedValues;
  parallel_for(tasks, 4.0 * static_cast<double>(count), threads, [&](std::int64_t task) {
    const std::int64_t i = task * kUpdatedValues, left = count - i;
    update(update.state.parameters + i, gradient + i, left < kUpdatedValues ? left : kUpdatedValues);
  });
}

}  // namespace glai::GLAI_ISA
