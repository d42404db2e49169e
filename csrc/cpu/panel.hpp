// A panel: the weights [k, columns] of one tile and one step of k, small enough to stay in the
// first-level cache while all active rows pass. Used where it lies when its rows are contiguous, copied
// otherwise.
#pragma once

#include <cstdint>

#include "core/tensor.hpp"

namespace glai::GLAI_ISA {

constexpr std::int64_t kPanelBytes = 24 * 1024;

// Rows of weights further apart than this fall on few cache sets and on a memory page each.
constexpr std::int64_t kFarApartBytes = 2048;

// Lanes A, B, C, D of x and y taken as one vector of eight.
template <int A, int B, int C, int D, class V>
GLAI_ALWAYS_INLINE V shuffle(V x, V y) {
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(x, y, A, B, C, D);
#else
  return __builtin_shuffle(x, y, decltype(x < y){A, B, C, D});
#endif
}

// out[k, column] = w[k, column] for k x columns elements; 4 x 4 blocks are transposed in registers.
template <class T>
GLAI_ALWAYS_INLINE void pack_transposed(const T* w, std::int64_t column_stride, std::int64_t k_count,
                                        std::int64_t columns, T* out, std::int64_t out_stride) {
  typedef T Four __attribute__((vector_size(4 * sizeof(T))));
  std::int64_t k = 0;
  for (; k + 4 <= k_count; k += 4) {
    std::int64_t j = 0;
    for (; j + 4 <= columns; j += 4) {
      Four r[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) __builtin_memcpy(&r[i], w + (j + i) * column_stride + k, sizeof(Four));
      const Four low01 = shuffle<0, 4, 1, 5>(r[0], r[1]);
      const Four low23 = shuffle<0, 4, 1, 5>(r[2], r[3]);
      const Four high01 = shuffle<2, 6, 3, 7>(r[0], r[1]);
      const Four high23 = shuffle<2, 6, 3, 7>(r[2], r[3]);
      r[0] = shuffle<0, 1, 4, 5>(low01, low23);
      r[1] = shuffle<2, 3, 6, 7>(low01, low23);
      r[2] = shuffle<0, 1, 4, 5>(high01, high23);
      r[3] = shuffle<2, 3, 6, 7>(high01, high23);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) __builtin_memcpy(out + (k + i) * out_stride + j, &r[i], sizeof(Four));
    }
    for (; j < columns; ++j) {
      for (int i = 0; i < 4; ++i) out[(k + i) * out_stride + j] = w[j * column_stride + k + i];
    }
  }
  for (; k < k_count; ++k) {
    for (std::int64_t j = 0; j < columns; ++j) out[k * out_stride + j] = w[j * column_stride + k];
  }
}

template <class T>
GLAI_ALWAYS_INLINE void pack_rows(const T* w, std::int64_t k_stride, std::int64_t k_count,
                                  std::int64_t columns, T* out, std::int64_t out_stride) {
  for (std::int64_t k = 0; k < k_count; ++k) {
    for (std::int64_t j = 0; j < columns; ++j) out[k * out_stride + j] = w[k * k_stride + j];
  }
}

}  // namespace glai::GLAI_ISA
