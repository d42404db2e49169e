// Losses of a batch, and their gradients by the outputs.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <optional>

#include "core/tensor.hpp"
#include "cpu/gates.hpp"

namespace glai::GLAI_ISA {

GLAI_ALWAYS_INLINE double exponential(double x) { return std::exp(x); }

// e^x for x <= 0, to two units in the last place, in steps that compilers turn into vectors: 2^k times
// the Taylor polynomial of the rest, |rest| <= ln(2) / 2. Under -32, far below what float32 keeps of a
// sum that is 1 at least, 0: products of such gradients, and their squares, would be subnormal, and
// steps of classes that are told apart took twenty times as long.
GLAI_ALWAYS_INLINE float exponential(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves no fraction
  const float k = (x * 1.44269504f + kRound) - kRound;
  const float r = (x - k * 0.693359375f) + k * 2.12194440e-4f;  // ln(2) in two parts
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const float clamped = k > -126.0f ? k : -126.0f;  // NaN too, which no integer holds
  const auto power = std::bit_cast<float>((static_cast<std::int32_t>(clamped) + 127) << 23);
  return x < -32.0f ? 0.0f : p * power;
}

// A row of logits [C] becomes weight * (softmax - one-hot of `target`); returns weight * loss.
template <class T>
GLAI_ALWAYS_INLINE double cross_entropy_row(T* row, std::int64_t c, std::int64_t target, double weight,
                                            double share) {
  T most = row[0];
  for (std::int64_t j = 1; j < c; ++j) most = row[j] > most ? row[j] : most;
  const double logit = static_cast<double>(row[target] - most);
  for (std::int64_t j = 0; j < c; ++j) row[j] = exponential(row[j] - most);
  double sum = 0;
  for (std::int64_t j = 0; j < c; ++j) sum += static_cast<double>(row[j]);
  const T scale = static_cast<T>(weight * share / sum);
  for (std::int64_t j = 0; j < c; ++j) row[j] *= scale;
  row[target] -= static_cast<T>(weight * share);
  return weight * (std::log(sum) - logit);
}

// A row of outputs [C] becomes the gradient of weight * (mean over C of (output - value)^2); returns
// that.
template <class T>
GLAI_ALWAYS_INLINE double squared_error_row(T* row, std::int64_t c, const T* values, double weight,
                                            double share) {
  double sum = 0;
  const T scale = static_cast<T>(2 * weight * share / static_cast<double>(c));
  for (std::int64_t j = 0; j < c; ++j) {
    const T error = row[j] - values[j];
    sum += static_cast<double>(error) * static_cast<double>(error);
    row[j] = scale * error;
  }
  return weight * sum / static_cast<double>(c);
}

// Outputs of a batch, the samples `ids`, become the gradient of its mean loss, which is returned.
// a: of a loop of steps; its output, targets, sample_weight and row_losses.
template <class T, class Args>
double loss_gradient(const Args& a, const std::int64_t* ids, std::int64_t count) {
  const TensorView &output = a.output, &targets = a.targets, &row_losses = a.row_losses;
  const std::optional<TensorView>& sample_weight = a.sample_weight;
  const std::int64_t c = output.shape[1];
  const double share = 1.0 / static_cast<double>(count);
  double* losses = row_losses.as<double>();
  parallel_rows(count, 8.0 * static_cast<double>(count * c), a.exec.threads, [&](auto begin, auto end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t id = ids[i];
      const double weight =
          sample_weight
              ? static_cast<double>(sample_weight->as<const T>()[id * sample_weight->stride[0]])
              : 1.0;
      T* row = output.as<T>() + i * c;
      losses[i] =
          targets.dtype == DType::int64
              ? cross_entropy_row(row, c, targets.as<const std::int64_t>()[id * targets.stride[0]],
                                  weight, share)
              : squared_error_row(row, c, targets.as<const T>() + id * targets.stride[0], weight, share);
    }
  });
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += losses[i];
  return sum * share;
}

}  // namespace glai::GLAI_ISA
