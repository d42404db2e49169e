// How CUDA blocks divide a gated product among them. A function of shapes and types alone, so that
// neither the device nor what else runs on it changes the order of sums.
#pragma once

#include <cstdint>

#include "core/tensor.hpp"

namespace glai {

struct GatedMatmulTiling {
  std::int64_t rows, columns;  // of y that a block owns
  std::int64_t paths;          // that it takes at a time
  std::int64_t splits;         // of the paths: each gives partial sums, which are added up in order
};

// y [n, c] over p paths.
GatedMatmulTiling gated_matmul_tiling(DType dtype, std::int64_t n, std::int64_t p, std::int64_t c);

// What products of a type are summed in.
DType sum_dtype(DType dtype);

}  // namespace glai
