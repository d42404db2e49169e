// Matrices that lie in the memory of a call's tensors.
#pragma once

#include <cstdint>

#include "core/tensor.hpp"

namespace glai::GLAI_ISA {

// A matrix, or a batch of them, that lies in memory of one of the call's tensors.
template <class T>
GLAI_ALWAYS_INLINE TensorView view_like(const TensorView& like, T* data, std::int64_t p,
                                        std::int64_t rows, std::int64_t columns) {
  TensorView v = like;
  v.data = data;
  v.ndim = 3;
  v.shape[0] = p;
  v.shape[1] = rows;
  v.shape[2] = columns;
  v.stride[0] = rows * columns;
  v.stride[1] = columns;
  v.stride[2] = 1;
  return v;
}

// The first `rows` of a matrix.
GLAI_ALWAYS_INLINE TensorView rows_of(const TensorView& matrix, std::int64_t rows) {
  TensorView v = matrix;
  v.shape[0] = rows;
  return v;
}

}  // namespace glai::GLAI_ISA
