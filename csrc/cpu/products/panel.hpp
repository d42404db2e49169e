// Copies of pieces of matrices in the order in which tiles read them.
#pragma once

#include <cstddef>
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

// out[i, j] = w[j, i] for R rows of N elements each, powers of two, R <= N: log2(R) rounds of
// interleaving row i with row i + R / 2 leave R elements of a column side by side. The first `used`
// elements of the rows.
template <class T, int N, int R = N>
GLAI_ALWAYS_INLINE void transpose_block(const T* w, std::int64_t w_stride, T* out,
                                        std::int64_t out_stride, std::int64_t used = N) {
  typedef T Row __attribute__((vector_size(N * sizeof(T))));
  constexpr auto lanes = std::make_integer_sequence<int, N>{};
  Row rows[R];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) __builtin_memcpy(&rows[i], w + i * w_stride, sizeof(Row));
#pragma GCC unroll 4
  for (int round = 1; round < R; round *= 2) {
    Row next[R];
#pragma GCC unroll 8
    for (int i = 0; i < R / 2; ++i) {
      next[2 * i] = interleave<0>(rows[i], rows[i + R / 2], lanes);
      next[2 * i + 1] = interleave<1>(rows[i], rows[i + R / 2], lanes);
    }
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) rows[i] = next[i];
  }
  const auto* columns = reinterpret_cast<const std::byte*>(&rows);
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) {
    if (i < used) __builtin_memcpy(out + i * out_stride, columns + i * R * sizeof(T), R * sizeof(T));
  }
}

// out[k, column] = w[column, k] for k_count, a multiple of N, x columns elements, fewer than 2 * R of
// them.
template <class T, int N, int R>
GLAI_ALWAYS_INLINE void pack_transposed_columns(const T* w, std::int64_t column_stride,
                                                std::int64_t k_count, std::int64_t columns, T* out,
                                                std::int64_t out_stride) {
  if (columns >= R) {
    for (std::int64_t k = 0; k < k_count; k += N) {
      transpose_block<T, N, R>(w + k, column_stride, out + k * out_stride, out_stride);
    }
    w += R * column_stride, out += R, columns -= R;
  }
  if constexpr (R > 1) {
    pack_transposed_columns<T, N, R / 2>(w, column_stride, k_count, columns, out, out_stride);
  }
}

// out[k, column] = w[column, k] for k x columns elements, in blocks as wide as a vector; what is left of
// k in blocks of four.
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
  if (whole_columns < columns && whole_k > 0) {
    pack_transposed_columns<T, N, N / 2>(w + whole_columns * column_stride, column_stride, whole_k,
                                         columns - whole_columns, out + whole_columns, out_stride);
  }
  if constexpr (N > 4) {
    // A block may read past a column's last element, which is in front of another column.
    std::int64_t j = 0;
    const std::int64_t last = (columns - 1) * column_stride + k_count - whole_k;
    for (; whole_k < k_count && (j + N - 1) * column_stride + N <= last; j += N) {
      transpose_block<T, N>(w + j * column_stride + whole_k, column_stride,
                            out + whole_k * out_stride + j, out_stride, k_count - whole_k);
    }
    if (whole_k < k_count && j < columns) {
      pack_transposed<T, 4>(w + j * column_stride + whole_k, column_stride, k_count - whole_k,
                            columns - j, out + whole_k * out_stride + j, out_stride);
    }
  } else {
    for (std::int64_t k = whole_k; k < k_count; ++k) {
      for (std::int64_t j = 0; j < columns; ++j) out[k * out_stride + j] = w[j * column_stride + k];
    }
  }
}

}  // namespace glai::GLAI_ISA
