// The norm check of the reference form. It adds weights of paths that a sample has off and takes them
// away again; where these outweigh what the sample has on, their rounding would drown the result.
#pragma once

#include <cmath>

#include "core/args.hpp"
#include "core/gates.hpp"
#include "core/scratch.hpp"
#include "cpu/parallel.hpp"

namespace glai::GLAI_ISA {

constexpr int kNibble = 4;
constexpr std::int64_t kRowsPerNormTask = 256;

// Square root of the sum of squares of one path's weights and bias.
template <class T>
GLAI_ALWAYS_INLINE double path_norm(const GatedMatmulArgs& a, std::int64_t p) {
  const bool by_columns = a.weight.shape[2] == 1 || a.weight.stride[2] == 1;
  const int inner = by_columns ? 2 : 1, outer = by_columns ? 1 : 2;
  const std::int64_t count = a.weight.shape[inner];
  Vec<T> squares[4] = {Vec<T>::zero(), Vec<T>::zero(), Vec<T>::zero(), Vec<T>::zero()};
  double rest = 0.0;
  for (std::int64_t i = 0; i < a.weight.shape[outer]; ++i) {
    const T* w = a.weight.as<const T>() + p * a.weight.stride[0] + i * a.weight.stride[outer];
    std::int64_t j = 0;
    for (; j + 4 * Vec<T>::width <= count; j += 4 * Vec<T>::width) {
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        const Vec<T> values = Vec<T>::load(w + j + v * Vec<T>::width);
        squares[v] = squares[v].plus_product(values, values);
      }
    }
    for (; j < count; ++j) rest += static_cast<double>(w[j]) * static_cast<double>(w[j]);
  }
  for (std::int64_t j = 0; a.bias && j < a.bias->shape[1]; ++j) {
    const auto b = static_cast<double>(a.bias->as<const T>()[p * a.bias->stride[0] + j]);
    rest += b * b;
  }
  const Vec<T> all = squares[0].plus(squares[1]).plus(squares[2].plus(squares[3]));
  return std::sqrt(static_cast<double>(all.total()) + rest);
}

// Whether every sample's majority paths that are off weigh at most as much as its paths that are on.
// majority_words: the majority as one row of gates [W].
template <class T>
bool majority_is_safe(const GatedMatmulArgs& a, const std::uint32_t* majority_words) {
  const std::int64_t n = a.x.shape[0], w = words_per_row(a.n_gates);
  const std::int64_t nibbles = w * kWordBits / kNibble;
  const std::int64_t tasks = (n + kRowsPerNormTask - 1) / kRowsPerNormTask;
  ScratchSizes sizes;
  const auto norms_at = sizes.add<double>(w * kWordBits);
  const auto table_at = sizes.add<double>(nibbles << kNibble);  // sums of norms of each four paths
  const auto safe_at = sizes.add<bool>(tasks);
  std::byte* memory = scratch(Scratch::call, sizes.bytes());
  auto* norms = reinterpret_cast<double*>(memory + norms_at);
  auto* table = reinterpret_cast<double*>(memory + table_at);
  auto* safe = reinterpret_cast<bool*>(memory + safe_at);
  const double work =
      static_cast<double>(a.n_gates * a.weight.shape[1]) * static_cast<double>(a.weight.shape[2]);
  parallel_for(w * kWordBits, work, a.exec.threads,
               [&](std::int64_t p) { norms[p] = p < a.n_gates ? path_norm<T>(a, p) : 0.0; });
  for (std::int64_t i = 0; i < nibbles; ++i) {
    for (int s = 0; s < 1 << kNibble; ++s) {
      double sum = 0.0;
      for (int bit = 0; bit < kNibble; ++bit)
        sum += (s >> bit & 1) != 0 ? norms[i * kNibble + bit] : 0.0;
      table[(i << kNibble) + s] = sum;
    }
  }
  parallel_for(tasks, static_cast<double>(n * nibbles), a.exec.threads, [&](std::int64_t task) {
    bool good = true;
    const std::int64_t begin = task * kRowsPerNormTask;
    for (std::int64_t r = begin; r < n && r < begin + kRowsPerNormTask; ++r) {
      const std::uint32_t* words = a.words.as<const std::uint32_t>() + r * w;
      double on = 0.0, off = 0.0;
      for (std::int64_t j = 0; j < w; ++j) {
        std::uint32_t gates = words[j], missing = majority_words[j] & ~gates;
        const double* sums = table + (j * (kWordBits / kNibble) << kNibble);
        for (int i = 0; i < kWordBits / kNibble; ++i, sums += 1 << kNibble) {
          on += sums[gates & 15u];
          off += sums[missing & 15u];
          gates >>= kNibble;
          missing >>= kNibble;
        }
      }
      good = good && off <= on;  // false for NaN
    }
    safe[task] = good;
  });
  bool all = true;
  for (std::int64_t i = 0; i < tasks; ++i) all = all && safe[i];
  return all;
}

}  // namespace glai::GLAI_ISA
