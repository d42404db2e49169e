// The norm check of the reference form. It adds weights of paths that a sample has off and takes them
// away again; where these outweigh what the sample has on, their rounding would drown the result.
// Checked for each sample and output, weights and biases apart, with the sum of a path's magnitudes as
// its norm.
#pragma once

#include "core/args.hpp"
#include "core/gates.hpp"
#include "core/scratch.hpp"
#include "cpu/parallel.hpp"
#include "cpu/products/tiles.hpp"

namespace glai::GLAI_ISA {

constexpr int kNibble = 4;
constexpr std::int64_t kRowsPerNormTask = 128;
constexpr std::int64_t kNormColumns = 64;  // outputs checked at a time

// norms[j] = sum over rows of |w[row, j]|, for a matrix with stride 1 in its columns or in its rows.
template <class T>
GLAI_ALWAYS_INLINE void column_norms(const T* w, std::int64_t rows, std::int64_t row_stride,
                                     std::int64_t columns, std::int64_t column_stride, T* norms) {
  for (std::int64_t j = 0; j < kNormColumns; ++j) norms[j] = T(0);
  if (column_stride == 1) {
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < columns; ++j) norms[j] += __builtin_fabs(w[i * row_stride + j]);
    }
    return;
  }
  constexpr std::int64_t kParts = 64 / sizeof(T);  // sums that the compiler can keep in vectors
  for (std::int64_t j = 0; j < columns; ++j) {
    const T* column = w + j * column_stride;
    T parts[kParts] = {};
    std::int64_t i = 0;
    for (; row_stride == 1 && i + kParts <= rows; i += kParts) {
      for (std::int64_t l = 0; l < kParts; ++l) parts[l] += __builtin_fabs(column[i + l]);
    }
    for (; i < rows; ++i) parts[0] += __builtin_fabs(column[i * row_stride]);
    for (std::int64_t l = 0; l < kParts; ++l) norms[j] += parts[l];
  }
}

// Whether, for every sample and every one of kNormColumns outputs, the norms of the majority's paths
// that are off add up to no more than those of the paths that are on, and these are finite.
template <class T>
GLAI_ALWAYS_INLINE bool off_outweighs_nothing(const GatedMatmulArgs& a, const std::uint32_t* majority,
                                              const T* norms, T* table, bool* safe) {
  const std::int64_t n = a.words.shape[0], w = words_per_row(a.n_gates);
  const std::int64_t nibbles = w * kWordBits / kNibble;
  // table[nibble, subset, output]: sums of the norms of each four paths.
  parallel_for(nibbles, static_cast<double>(nibbles * kNormColumns << kNibble), a.exec.threads,
               [&](std::int64_t i) {
                 T* sums = table + (i * kNormColumns << kNibble);
                 for (std::int64_t j = 0; j < kNormColumns; ++j) sums[j] = T(0);
                 for (int bit = 0; bit < kNibble; ++bit) {
                   const T* norm = norms + (i * kNibble + bit) * kNormColumns;
                   for (std::int64_t s = 0; s < kNormColumns << bit; ++s) {
                     sums[(kNormColumns << bit) + s] = sums[s] + norm[s % kNormColumns];
                   }
                 }
               });
  const EvenSplit tasks(n, kRowsPerNormTask);
  parallel_for(tasks.parts, static_cast<double>(n * nibbles * kNormColumns), a.exec.threads,
               [&](std::int64_t task) {
                 bool good = true;
                 for (std::int64_t r = tasks.begin(task); r < tasks.begin(task) + tasks.size(task);
                      ++r) {
                   const std::uint32_t* words = a.words.as<const std::uint32_t>() + r * w;
                   T on[kNormColumns] = {}, off[kNormColumns] = {};
                   for (std::int64_t j = 0; j < w; ++j) {
                     std::uint32_t gates = words[j], missing = majority[j] & ~gates;
                     const T* sums = table + (j * (kWordBits / kNibble) * kNormColumns << kNibble);
                     for (int i = 0; i < kWordBits / kNibble; ++i, sums += kNormColumns << kNibble) {
                       const T* with = sums + (gates & 15u) * kNormColumns;
                       const T* without = sums + (missing & 15u) * kNormColumns;
                       for (std::int64_t c = 0; c < kNormColumns; ++c) on[c] += with[c];
                       for (std::int64_t c = 0; (missing & 15u) != 0 && c < kNormColumns; ++c)
                         off[c] += without[c];
                       gates >>= kNibble;
                       missing >>= kNibble;
                     }
                   }
                   // An infinite sum less itself is not 0; false for NaN, too.
                   for (std::int64_t c = 0; c < kNormColumns; ++c)
                     good &= off[c] <= on[c] && on[c] - on[c] == T(0);
                 }
                 safe[task] = good;
               });
  bool all = true;
  for (std::int64_t i = 0; i < tasks.parts; ++i) all = all && safe[i];
  return all;
}

// majority: the gates that most samples have on, as one row of gates [W].
template <class T>
bool majority_is_safe(const GatedMatmulArgs& a, const std::uint32_t* majority) {
  const std::int64_t paths = words_per_row(a.n_gates) * kWordBits;
  const std::int64_t d = a.weight.shape[1], c = a.weight.shape[2];
  ScratchSizes sizes;
  const auto norms_at = sizes.add<T>(paths * kNormColumns);
  const auto table_at = sizes.add<T>((paths / kNibble * kNormColumns) << kNibble);
  const auto safe_at = sizes.add<bool>(EvenSplit(a.words.shape[0], kRowsPerNormTask).parts);
  std::byte* memory = scratch(Scratch::call, sizes.bytes());
  T* norms = reinterpret_cast<T*>(memory + norms_at);
  T* table = reinterpret_cast<T*>(memory + table_at);
  bool* safe = reinterpret_cast<bool*>(memory + safe_at);
  for (std::int64_t first = 0; first < c; first += kNormColumns) {
    const std::int64_t columns = c - first < kNormColumns ? c - first : kNormColumns;
    const auto check = [&](const T* w, std::int64_t path_stride, std::int64_t rows,
                           std::int64_t row_stride, std::int64_t column_stride) {
      parallel_for(paths, static_cast<double>(paths * rows) * static_cast<double>(columns),
                   a.exec.threads, [&](std::int64_t p) {
                     const std::int64_t real = p < a.n_gates ? rows : 0;
                     column_norms(w + (p < a.n_gates ? p : 0) * path_stride + first * column_stride,
                                  real, row_stride, columns, column_stride, norms + p * kNormColumns);
                   });
      return off_outweighs_nothing(a, majority, norms, table, safe);
    };
    const std::int64_t column_stride = c == 1 ? 1 : a.weight.stride[2];
    if (!check(a.weight.as<const T>(), a.weight.stride[0], d, a.weight.stride[1], column_stride))
      return false;
    if (a.bias && !check(a.bias->as<const T>(), a.bias->stride[0], 1, 0, 1)) return false;
  }
  return true;
}

}  // namespace glai::GLAI_ISA
