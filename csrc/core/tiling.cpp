#include "core/tiling.hpp"

#include <algorithm>
#include <string>

#include "core/gates.hpp"
#include "core/names.hpp"
#include "core/sizes.hpp"

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
  const bool gathers = gathers_rows(form);
  t.columns = gathers ? kCompactionColumns : kDenseColumns;
  t.paths = gathers ? 1 : kDensePaths;
  const std::int64_t column_tiles = ceil_div(c, t.columns), groups = ceil_div(p, t.paths);
  const std::int64_t few = few_tile_rows(form, sum_bytes);
  // Dense: half the rows take two thirds of the time, worth it as long as all blocks run at once.
  const bool takes_few =
      gathers ? n <= few : product_of(ceil_div(n, few), column_tiles, groups) <= kMultiprocessors;
  t.rows = takes_few ? few : tile_rows(form, sum_bytes);
  const std::int64_t tiles = product_of(ceil_div(n, t.rows), column_tiles);
  const std::int64_t wave = kMultiprocessors * (gathers && takes_few ? 2 : 1);
  t.splits =
      tiles == 0 ? 1 : std::clamp<std::int64_t>(wave / tiles, 1, std::max<std::int64_t>(groups, 1));
  return t;
}

WeightGradTiling weight_grad_tiling(DType dtype, std::int64_t n, std::int64_t p, std::int64_t d,
                                    std::int64_t c) {
  constexpr std::int64_t kAtOnce = 2;         // blocks that a multiprocessor holds
  constexpr std::int64_t kFewSamples = 2048;  // a split of fewer is over before its sums are added up
  const bool narrow = c <= 16;
  WeightGradTiling t;
  t.rows = weight_grad_rows(sum_dtype(dtype) == DType::float64 ? 8 : 4, narrow);
  t.columns = weight_grad_columns(narrow);
  const std::int64_t row_tiles = std::max<std::int64_t>(ceil_div(d, t.rows), 1);
  const std::int64_t tiles = product_of(p, row_tiles, ceil_div(c, t.columns));
  const std::int64_t most = std::max<std::int64_t>(n / kFewSamples, 1);
  t.splits = tiles == 0 ? 1 : std::clamp<std::int64_t>(kMultiprocessors * kAtOnce / tiles, 1, most);
  return t;
}

ReferenceMemory reference_memory(DType dtype, std::int64_t p, std::int64_t depth, std::int64_t c) {
  const std::int64_t sum_bytes = sum_dtype(dtype) == DType::float64 ? 8 : 4;
  const auto aligned = [](std::int64_t bytes) { return product_of(ceil_div(bytes, 16), 16); };
  ReferenceMemory m;
  m.sums = aligned((words_per_row(p) + 1) * 4);
  m.norms = sum_of(m.sums, aligned(product_of(depth + 1, c, sum_bytes)));
  m.with_norms = sum_of(m.norms, aligned(product_of(p, c, 2 * sum_bytes)));
  if (m.with_norms == kHugeSize) {
    fail("reference_memory: P=" + std::to_string(p) + " paths, D=" + std::to_string(depth) +
         " features and C=" + std::to_string(c) + " outputs must be fewer, their sums fit no memory");
  }
  return m;
}

DType sum_dtype(DType dtype) { return dtype == DType::float64 ? DType::float64 : DType::float32; }

}  // namespace glai
