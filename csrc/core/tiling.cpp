#include "core/tiling.hpp"

#include <algorithm>

namespace glai {
namespace {

// Of an H100. Splits make one wave of blocks: with more than fit at once, most multiprocessors would
// idle while the last blocks run. Not measured on a GPU yet; set from counting.
constexpr std::int64_t kMultiprocessors = 132;

}  // namespace

GatedMatmulTiling gated_matmul_tiling(Form form, DType dtype, std::int64_t n, std::int64_t p,
                                      std::int64_t c) {
  GatedMatmulTiling t;
  t.rows = tile_rows(form, sum_dtype(dtype) == DType::float64 ? 8 : 4);
  t.columns = kCompactionColumns;
  t.paths = 1;
  if (form != Form::compaction) {
    // 64 columns read longer rows of weights; 16 where they would leave a fifth of a block idle.
    const std::int64_t in_16 = (c + 15) / 16 * 16, in_64 = (c + 63) / 64 * 64;
    t.columns = 5 * in_16 <= 4 * in_64 ? 16 : 64;
    t.paths = kDenseGroupColumns / t.columns;
  }
  const std::int64_t tiles = ((n + t.rows - 1) / t.rows) * ((c + t.columns - 1) / t.columns);
  const std::int64_t groups = (p + t.paths - 1) / t.paths;
  const std::int64_t wave = kMultiprocessors * blocks_at_once(form);
  t.splits =
      tiles == 0 ? 1 : std::clamp<std::int64_t>(wave / tiles, 1, std::max<std::int64_t>(groups, 1));
  return t;
}

DType sum_dtype(DType dtype) { return dtype == DType::float64 ? DType::float64 : DType::float32; }

}  // namespace glai
