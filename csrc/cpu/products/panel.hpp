// Copies of pieces of matrices in the order in which tiles read them.
#pragma once

#include <cstdint>
#include <utility>

#include "core/tensor.hpp"

namespace glai::GLAI_ISA {

// Lanes of x and y, those of y counted from the end of x.
template <int... From, class V>
GLAI_ALWAYS_INLINE V shuffle(V x, V y) {
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(x, y, From...);
#else
  return __builtin_shuffle(x, y, decltype(x < y){From...});
#endif
}

// The lanes of x and y by turns: of their lower halves, or of their upper halves.
template <int Half, class V, int... Lane>
GLAI_ALWAYS_INLINE V interleave(V x, V y, std::integer_sequence<int, Lane...>) {
  constexpr int lanes = sizeof...(Lane);
  return shuffle<(Half * lanes / 2 + Lane / 2 + Lane % 2 * lanes)...>(x, y);
}

// The same within each four lanes.
template <int Half, class V, int... Lane>
GLAI_ALWAYS_INLINE V interleave_quads(V x, V y, std::integer_sequence<int, Lane...>) {
  constexpr int lanes = sizeof...(Lane);
  return shuffle<(Lane / 4 * 4 + Half * 2 + Lane % 4 / 2 + Lane % 2 * lanes)...>(x, y);
}

// out[j, i] = w[i, j] for four columns j of a vector's lanes of rows i.
template <class T>
GLAI_ALWAYS_INLINE void transpose_quad(const T* w, std::int64_t w_stride, T* out,
                                       std::int64_t out_stride) {
  constexpr int width = Vec<T>::width;
  constexpr auto lanes = std::make_integer_sequence<int, width>{};
  typedef T Row __attribute__((vector_size(width * sizeof(T))));
  Row rows[4], next[4];
  for (int i = 0; i < 4; ++i) rows[i] = (Row)Vec<T>::load_quads(w + i * w_stride, 4 * w_stride).v;
  for (int i = 0; i < 2; ++i) {
    next[2 * i] = interleave_quads<0>(rows[i], rows[i + 2], lanes);
    next[2 * i + 1] = interleave_quads<1>(rows[i], rows[i + 2], lanes);
  }
  for (int i = 0; i < 2; ++i) {
    const Row first = interleave_quads<0>(next[i], next[i + 2], lanes);
    const Row second = interleave_quads<1>(next[i], next[i + 2], lanes);
    __builtin_memcpy(out + 2 * i * out_stride, &first, sizeof(Row));
    __builtin_memcpy(out + (2 * i + 1) * out_stride, &second, sizeof(Row));
  }
}

// out[i, j] = w[j, i] for N x N elements: log2(N) rounds of interleaving row i with row i + N / 2.
template <class T, int N>
GLAI_ALWAYS_INLINE void transpose_block(const T* w, std::int64_t w_stride, T* out,
                                        std::int64_t out_stride) {
  typedef T Row __attribute__((vector_size(N * sizeof(T))));
  constexpr auto lanes = std::make_integer_sequence<int, N>{};
  Row rows[N];
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) __builtin_memcpy(&rows[i], w + i * w_stride, sizeof(Row));
#pragma GCC unroll 4
  for (int round = 1; round < N; round *= 2) {
    Row next[N];
#pragma GCC unroll 8
    for (int i = 0; i < N / 2; ++i) {
      next[2 * i] = interleave<0>(rows[i], rows[i + N / 2], lanes);
      next[2 * i + 1] = interleave<1>(rows[i], rows[i + N / 2], lanes);
    }
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) rows[i] = next[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) __builtin_memcpy(out + i * out_stride, &rows[i], sizeof(Row));
}

// out[k, column] = w[column, k] for k x columns elements, in blocks as wide as a vector, then of four.
template <class T, int N = Vec<T>::width>
GLAI_ALWAYS_INLINE void pack_transposed(const T* w, std::int64_t column_stride, std::int64_t k_count,
                                        std::int64_t columns, T* out, std::int64_t out_stride) {
  const std::int64_t whole_k = k_count / N * N, whole_columns = columns / N * N;
  for (std::int64_t k = 0; k < whole_k; k += N) {
    for (std::int64_t j = 0; j < whole_columns; j += N) {
      transpose_block<T, N>(w + j * column_stride + k, column_stride, out + k * out_stride + j,
                            out_stride);
    }
  }
  if constexpr (N > 4) {
    if (whole_columns < columns) {
      pack_transposed<T, 4>(w + whole_columns * column_stride, column_stride, whole_k,
                            columns - whole_columns, out + whole_columns, out_stride);
    }
    if (whole_k < k_count) {
      pack_transposed<T, 4>(w + whole_k, column_stride, k_count - whole_k, columns,
                            out + whole_k * out_stride, out_stride);
    }
  } else {
    for (std::int64_t k = 0; k < k_count; ++k) {
      for (std::int64_t j = k < whole_k ? whole_columns : 0; j < columns; ++j) {
        out[k * out_stride + j] = w[j * column_stride + k];
      }
    }
  }
}

}  // namespace glai::GLAI_ISA
