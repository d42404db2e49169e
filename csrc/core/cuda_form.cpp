#include "core/cuda_form.hpp"

#include <algorithm>
#include <cmath>

#include "core/tiling.hpp"

namespace glai {
namespace {

// Not measured on a GPU yet; set from counting. On tensor cores both forms wait for rows on their way
// from the second-level cache: per 64 bytes of depth the dense form loads 128 rows of `a` for 128 rows
// of weights (a path's columns, padded to 16 or 64); compaction loads the rows that are on, and the
// path's columns once for every 64 of them. Its steps are short, and their barrier weighs as much as
// some rows.
constexpr double kStepRows = 32.0;
// On CUDA cores both forms wait for multiply-adds; the smaller tile of compaction reads shared memory
// twice as often for each.
constexpr double kSmallTile = 2.0;
// An estimate may be off, and the dense form costs the same for any gates.
constexpr double kWorthwhile = 0.8;

double ceil_to(double value, double step) { return std::ceil(value / step) * step; }

}  // namespace

CudaFormChoice choose_cuda_form(const GatedShape& s, bool tensor_cores, std::optional<double> density) {
  CudaFormChoice choice{Form::dense, 0.0, 0.0};
  if (s.n == 0 || s.c == 0) return choice;
  const auto n = static_cast<double>(s.n), c = static_cast<double>(s.c);
  const GatedMatmulTiling dense = gated_matmul_tiling(Form::dense, DType::float32, s.n, s.p, s.c);
  const double dense_rows = ceil_to(n, static_cast<double>(dense.rows));
  const double dense_columns = ceil_to(c, static_cast<double>(dense.columns));
  const GatedMatmulTiling compact = gated_matmul_tiling(Form::compaction, DType::float32, s.n, s.p, s.c);
  const double row_tiles = std::ceil(n / static_cast<double>(compact.rows));
  const double column_tiles = std::ceil(c / static_cast<double>(compact.columns));
  const double on = density.value_or(1.0) * n / row_tiles;  // rows of a tile

  if (tensor_cores) {
    choice.dense = 2.0 * dense_rows * dense_columns / 128.0;
    const double gathers = std::max(1.0, on / 64.0 + 0.5);  // of up to 64 rows, the last one half full
    choice.compaction = row_tiles * column_tiles * (on + gathers * kStepRows) + row_tiles * gathers * c;
  } else {
    choice.dense = dense_rows * dense_columns / 64.0;
    choice.compaction = kSmallTile * row_tiles * column_tiles * (on + 8.0);  // up to 16, half full
  }
  if (!density) {
    choice.compaction = 0.0;
  } else if (choice.compaction < kWorthwhile * choice.dense) {
    choice.form = Form::compaction;
  }
  return choice;
}

}  // namespace glai
