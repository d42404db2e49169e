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
  const std::size_t sum_bytes = sum_dtype(dtype) == DType::float64 ? 8 : 4;
  t.rows = tile_rows(form, sum_bytes);
  t.columns = form == Form::compaction ? kCompactionColumns : kDenseColumns;
  t.paths = form == Form::compaction ? 1 : kDensePaths;
  const std::int64_t column_tiles = (c + t.columns - 1) / t.columns;
  const std::int64_t groups = (p + t.paths - 1) / t.paths;
  if (form != Form::compaction) {
    // Half the rows take two thirds of the time: worth it as long as all blocks run at once.
    const std::int64_t few = few_tile_rows(sum_bytes);
    if ((n + few - 1) / few * column_tiles * groups <= kMultiprocessors) t.rows = few;
  }
  const std::int64_t tiles = (n + t.rows - 1) / t.rows * column_tiles;
  const std::int64_t wave = kMultiprocessors * blocks_at_once(form);
  t.splits =
      tiles == 0 ? 1 : std::clamp<std::int64_t>(wave / tiles, 1, std::max<std::int64_t>(groups, 1));
  return t;
}

DType sum_dtype(DType dtype) { return dtype == DType::float64 ? DType::float64 : DType::float32; }

}  // namespace glai
