// dw[p] = sum of the outer products x[n] dy[n] of the samples that have path p on, where these are few
// numbers D * C: a sample's outer product is made once, and added to one of sixteen sums for each four
// paths, that of its pattern of them. Nothing is sorted; what it takes does not depend on density.
#pragma once

#include <cstdint>

#include "core/gates.hpp"
#include "core/scratch.hpp"
#include "core/tensor.hpp"
#include "cpu/gates.hpp"
#include "cpu/parallel.hpp"
#include "cpu/products/tiles.hpp"

namespace glai::GLAI_ISA {

constexpr int kTabulatedGates = 4;  // whose patterns have a sum each
constexpr int kPatterns = 1 << kTabulatedGates;
constexpr int kTables = kWordBits / kTabulatedGates;  // of a word of gates
// Of an outer product; its tables take 128 times that. A training step of 512 samples, 513 paths, half
// of their gates on, one thread, AVX-512: with 14 numbers 0.65 of the time that it takes with sorted
// samples, with 32 numbers 0.82.
constexpr std::int64_t kFewNumbersBytes = 128;

// A word of fewer gates has tables that stay empty.
template <class T>
GLAI_ALWAYS_INLINE constexpr bool are_few_numbers(std::int64_t n_gates, std::int64_t d, std::int64_t c) {
  return n_gates >= kWordBits && d * c * static_cast<std::int64_t>(sizeof(T)) <= kFewNumbersBytes;
}

// The sums of all patterns of four gates become those of each gate: sums[1 << i] of gate i, in place.
template <class T, int V>
GLAI_ALWAYS_INLINE void fold_patterns(T* sums) {
  using Vector = Vec<T>;
  constexpr int size = V * Vector::width;
  for (int top = kPatterns / 2; top > 1; top /= 2) {
    for (int pattern = 1; pattern < top; ++pattern) {
      for (int v = 0; v < size; v += Vector::width) {
        const Vector both = Vector::load(sums + (top + pattern) * size + v);
        Vector::load(sums + pattern * size + v).plus(both).store(sums + pattern * size + v);
        Vector::load(sums + top * size + v).plus(both).store(sums + top * size + v);
      }
    }
  }
}

// products: [N, V vectors], lanes past D * C zero; dw [P, D, C], contiguous.
template <class T, int V>
void add_by_pattern(const T* products, const TensorView& words, const TensorView& dw, std::int64_t word,
                    T* tables) {
  using Vector = Vec<T>;
  constexpr int size = V * Vector::width;
  const std::int64_t n = words.shape[0], numbers = dw.shape[1] * dw.shape[2];
  for (std::int64_t j = 0; j < kTables * kPatterns * size; ++j) tables[j] = T(0);
  const auto* column = words.as<const std::uint32_t>() + word;
  for (std::int64_t i = 0; i < n; ++i, products += size, column += words.shape[1]) {
    Vector product[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) product[v] = Vector::load(products + v * Vector::width);
#pragma GCC unroll 8
    for (int t = 0; t < kTables; ++t) {
      const std::uint32_t pattern = *column >> (t * kTabulatedGates) & (kPatterns - 1);
      T* sum = tables + (t * kPatterns + static_cast<int>(pattern)) * size;
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        Vector::load(sum + v * Vector::width).plus(product[v]).store(sum + v * Vector::width);
      }
    }
  }
  for (int t = 0; t < kTables; ++t) {
    T* sums = tables + t * kPatterns * size;
    fold_patterns<T, V>(sums);
    for (int i = 0; i < kTabulatedGates; ++i) {
      const std::int64_t p = word * kWordBits + t * kTabulatedGates + i;
      if (p >= dw.shape[0]) return;
      T* out = dw.as<T>() + p * numbers;
      for (std::int64_t j = 0; j < numbers; ++j) out[j] = sums[(1 << i) * size + j];
    }
  }
}

// Of are_few_numbers(P, D, C). x [N, D] and dy [N, C], rows contiguous; words [N, ceil(P/32)]; dw [P, D,
// C], contiguous.
template <class T, int V = 1>
void few_numbers_weight_grad(const TensorView& x, const TensorView& words, const TensorView& dy,
                             const TensorView& dw, int threads) {
  constexpr std::int64_t size = V * Vec<T>::width;
  const std::int64_t n = x.shape[0], d = x.shape[1], c = dy.shape[1];
  if constexpr (size * static_cast<std::int64_t>(sizeof(T)) < kFewNumbersBytes) {
    if (d * c > size) return few_numbers_weight_grad<T, V + 1>(x, words, dy, dw, threads);
  }
  ScratchSizes sizes;
  const auto products_at = sizes.add<T>(n * size);
  T* products = reinterpret_cast<T*>(scratch(Scratch::call, sizes.bytes()) + products_at);
  parallel_rows(n, static_cast<double>(n * size), threads, [&](auto begin, auto end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const T *a = x.as<const T>() + i * x.stride[0], *b = dy.as<const T>() + i * dy.stride[0];
      T* out = products + i * size;
      for (std::int64_t k = 0; k < d; ++k) {
        for (std::int64_t j = 0; j < c; ++j) *out++ = a[k] * b[j];
      }
      while (out < products + (i + 1) * size) *out++ = T(0);
    }
  });
  const double work = static_cast<double>(n * dw.shape[0]) * static_cast<double>(size) / kTabulatedGates;
  parallel_for(words.shape[1], work, threads, [&](std::int64_t word) {
    ScratchSizes own;
    const auto tables_at = own.add<T>(kTables * kPatterns * size);
    T* tables = reinterpret_cast<T*>(scratch(Scratch::task, own.bytes()) + tables_at);
    add_by_pattern<T, V>(products, words, dw, word, tables);
  });
}

}  // namespace glai::GLAI_ISA
