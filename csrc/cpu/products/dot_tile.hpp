// The register tile that products of bytes are made of: rows by vectors of 32-bit sums, added to quad
// after quad (simd/, ByteDot).
#pragma once

#include <cstdint>

#include "core/tensor.hpp"

namespace glai::GLAI_ISA {

// Columns, or units, that a tile is wide.
template <class Dot>
constexpr std::int64_t kDotColumns = Dot::kVecs * ByteSums::width;

// What a step adds: so many samples of a column, or values of a row.
template <class Dot>
constexpr std::int64_t kDotDepth = 4 * Dot::kQuads;

// Row i's quad q lies at rows + i * row_step + q * quad_step; those of the columns are packed,
// [quads, kDotColumns, 4].
struct DotOperands {
  const std::uint8_t* rows;
  std::int64_t row_step, quad_step;
  const std::uint8_t* columns;
  std::int64_t steps;
};

// sums = or += the products; [Rows, kDotColumns].
template <class Dot, int Rows>
GLAI_ALWAYS_INLINE void dot_tile(const DotOperands& of, bool added_to, std::int32_t* sums) {
  constexpr int vecs = Dot::kVecs, width = ByteSums::width;
  constexpr std::int64_t line = 4 * kDotColumns<Dot>;  // bytes of a quad of all columns
  ByteSums sum[Rows][vecs];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < vecs; ++v) {
      sum[i][v] = added_to ? ByteSums::load(sums + (i * vecs + v) * width) : ByteSums::zero();
    }
  }
  const std::uint8_t *rows = of.rows, *columns = of.columns;
  for (std::int64_t s = 0; s < of.steps; ++s) {
    typename Dot::Bytes column[vecs];
#pragma GCC unroll 4
    for (int v = 0; v < vecs; ++v) column[v] = Dot::columns(columns + 4 * v * width, line);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      const typename Dot::Bytes row = Dot::row(rows + i * of.row_step, of.quad_step);
#pragma GCC unroll 4
      for (int v = 0; v < vecs; ++v) sum[i][v] = Dot::plus(sum[i][v], row, column[v]);
    }
    rows += Dot::kQuads * of.quad_step;
    columns += Dot::kQuads * line;
  }
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < vecs; ++v) sum[i][v].store(sums + (i * vecs + v) * width);
  }
}

}  // namespace glai::GLAI_ISA
