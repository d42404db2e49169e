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
  const T* gradient;
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

  template <class... Lanes>
  GLAI_ALWAYS_INLINE void run(const AdamWState<T>& s, std::int64_t i, Lanes... lanes) const {
    const auto g = Vec<T>::load(s.gradient + i, lanes...);
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

template <class T>
void adamw_step(const AdamWState<T>& state, std::int64_t count, const AdamWStep<T>& step, int threads) {
  constexpr std::int64_t width = Vec<T>::width;
  const std::int64_t tasks = (count + kUpdatedValues - 1) / kUpdatedValues;
  parallel_for(tasks, 4.0 * static_cast<double>(count), threads, [&](std::int64_t task) {
    std::int64_t i = task * kUpdatedValues;
    const std::int64_t end = i + kUpdatedValues < count ? i + kUpdatedValues : count;
    for (; i + width <= end; i += width) step.run(state, i);
    if (i < end) step.run(state, i, Tail<T>(static_cast<int>(end - i)));
  });
}

}  // namespace glai::GLAI_ISA
