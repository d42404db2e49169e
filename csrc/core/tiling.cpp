#include "core/tiling.hpp"

#include <algorithm>

namespace glai {

GatedMatmulTiling gated_matmul_tiling(DType dtype, std::int64_t n, std::int64_t p, std::int64_t c) {
  GatedMatmulTiling t;
  // Sums in registers: 64 of a thread's for the products, and as many columns again for y.
  t.rows = dtype == DType::float64 ? 64 : 128;
  // 64 columns read longer rows of weights; 16 where they would leave a fifth of a block idle.
  const std::int64_t in_16 = (c + 15) / 16 * 16, in_64 = (c + 63) / 64 * 64;
  t.columns = 5 * in_16 <= 4 * in_64 ? 16 : 64;
  t.paths = 128 / t.columns;
  // Two waves over the 132 multiprocessors of an H100: by their registers, most of these kernels fit
  // once on each. Not measured on a GPU yet.
  constexpr std::int64_t kBlocksWanted = 264;
  const std::int64_t tiles = ((n + t.rows - 1) / t.rows) * ((c + t.columns - 1) / t.columns);
  const std::int64_t groups = (p + t.paths - 1) / t.paths;
  t.splits = tiles == 0
                 ? 1
                 : std::clamp<std::int64_t>(kBlocksWanted / tiles, 1, std::max<std::int64_t>(groups, 1));
  return t;
}

DType sum_dtype(DType dtype) { return dtype == DType::float64 ? DType::float64 : DType::float32; }

}  // namespace glai
