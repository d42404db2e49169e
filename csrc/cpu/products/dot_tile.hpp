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

// Row i's quad q lies at rows + i * row_step + q * quad_step. Columns are packed in strips of a vector,
// [quads, ByteSums::width, 4], strip_step bytes from one to the next.
struct DotOperands {
  const std::uint8_t* rows;
  std::int64_t row_step, quad_step;
  const std::uint8_t* columns;
  std::int64_t strip_step;
  std::int64_t steps;
};

// Between the products of a tile: nothing.
struct Uninterrupted {
  static constexpr int kParts = 1;
  GLAI_ALWAYS_INLINE void operator()(int) const {}
};

// sums = or += the products; [Rows, Vecs * ByteSums::width]. The steps are done in parts, meanwhile(i)
// before part i.
template <class Dot, int Rows, int Vecs = Dot::kVecs, class Meanwhile = Uninterrupted>
GLAI_ALWAYS_INLINE void dot_tile(const DotOperands& of, bool added_to, std::int32_t* sums,
                                 const Meanwhile& meanwhile = {}) {
  constexpr int width = ByteSums::width;
  constexpr std::int64_t line = 4 * width;  // bytes of a quad of a strip
  ByteSums sum[Rows][Vecs];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < Vecs; ++v) {
      sum[i][v] = added_to ? ByteSums::load(sums + (i * Vecs + v) * width) : ByteSums::zero();
    }
  }
  const std::uint8_t *rows = of.rows, *columns = of.columns;
  std::int64_t s = 0;
#pragma GCC unroll 1
  for (int part = 0; part < Meanwhile::kParts; ++part) {
    meanwhile(part);
    // Parts of equal length: how often a loop turns can be predicted.
    const std::int64_t left = of.steps - s, some = of.steps / Meanwhile::kParts;
    for (const std::int64_t end = s + (part + 1 < Meanwhile::kParts ? some : left); s < end; ++s) {
      typename Dot::Bytes column[Vecs];
#pragma GCC unroll 4
      for (int v = 0; v < Vecs; ++v) column[v] = Dot::columns(columns + v * of.strip_step, line);
#pragma GCC unroll 16
      for (int i = 0; i < Rows; ++i) {
        const typename Dot::Bytes row = Dot::row(rows + i * of.row_step, of.quad_step);
#pragma GCC unroll 4
        for (int v = 0; v < Vecs; ++v) sum[i][v] = Dot::plus(sum[i][v], row, column[v]);
      }
      rows += Dot::kQuads * of.quad_step;
      columns += Dot::kQuads * line;
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < Vecs; ++v) sum[i][v].store(sums + (i * Vecs + v) * width);
  }
}

}  // namespace glai::GLAI_ISA
