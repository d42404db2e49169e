// The two register tiles that all gated products are made of: M rows by V vectors of accumulators, every
// index known to the compiler, so that the accumulators stay in registers.
//
//   gather_tile   y[rows[i], :]  += sum_k x[rows[i], k] * w[k, :]                  (rows gathered)
//   outer_tile    out[i, :]      = sum_r a[rows[r], i] * b[rows[r], :]               (sum over rows)
#pragma once

#include <cstdint>
#include <utility>

#include "core/tensor.hpp"

namespace glai::GLAI_ISA {

template <class T>
struct GatherTile {
  const T* x;             // row 0 of the block
  std::int64_t x_stride;  // between samples
  const std::uint16_t* rows;
  const T* w;             // [k, V vectors]
  std::int64_t w_stride;  // between features
  std::int64_t k;
  T* y;  // row 0 of the block, [rows, V vectors]
  std::int64_t y_stride;
};

template <class T, int M, int V>
GLAI_ALWAYS_INLINE void gather_tile(const GatherTile<T>& t) {
  using Vector = Vec<T>;
  const T* x[M];
  T* y[M];
  Vector sum[M][V];
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
    x[i] = t.x + t.rows[i] * t.x_stride;
    y[i] = t.y + t.rows[i] * t.y_stride;
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[i][v] = Vector::load(y[i] + v * Vector::width);
  }
  const T* w = t.w;
  for (std::int64_t k = 0; k < t.k; ++k) {
    Vector column[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) column[v] = Vector::load(w + v * Vector::width);
    w += t.w_stride;
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const Vector s = Vector::broadcast(x[i][k]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[i][v] = sum[i][v].plus_product(s, column[v]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[i][v].store(y[i] + v * Vector::width);
  }
}

// One operand of outer products: rows of T, a stride apart, read from a first column on.
template <class T>
struct Rows {
  const T* data;  // row 0, at the first column
  std::int64_t stride;
};

template <class T>
struct OuterTile {
  const T* a;  // M columns
  std::int64_t a_stride;
  const T* b;  // V vectors
  std::int64_t b_stride;
  const std::uint16_t* rows;
  std::int64_t n_rows;
  T* out;        // [M, V vectors], written
  Tail<T> tail;  // lanes of b's last vector; the others are written as zero
};

template <class T, int M, int V>
void outer_tile(const OuterTile<T>& t) {
  using Vector = Vec<T>;
  Vector sum[M][V];
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[i][v] = Vector::zero();
  }
  for (std::int64_t r = 0; r < t.n_rows; ++r) {
    const T* a = t.a + t.rows[r] * t.a_stride;
    const T* b = t.b + t.rows[r] * t.b_stride;
    Vector column[V];
#pragma GCC unroll 4
    for (int v = 0; v < V - 1; ++v) column[v] = Vector::load(b + v * Vector::width);
    column[V - 1] = Vector::load(b + (V - 1) * Vector::width, t.tail);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const Vector s = Vector::broadcast(a[i]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[i][v] = sum[i][v].plus_product(s, column[v]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[i][v].store(t.out + (i * V + v) * Vector::width);
  }
}

// Runs the instance for `rows` x `vecs` known at run time, 1 <= vecs <= kMaxTileVecs.
template <class T, int V = 1>
GLAI_ALWAYS_INLINE void run_outer_tile(int rows, int vecs, const OuterTile<T>& t) {
  if constexpr (V < kMaxTileVecs) {
    if (vecs > V) return run_outer_tile<T, V + 1>(rows, vecs, t);
  }
  [&]<int... M>(std::integer_sequence<int, M...>) {
    static constexpr void (*kRun[])(const OuterTile<T>&) = {outer_tile<T, M + 1, V>...};
    kRun[rows - 1](t);
  }(std::make_integer_sequence<int, outer_tile_rows(V)>{});
}

// Splits `total` into parts of at most `most`, as even as possible, so that no part is a sliver.
struct EvenSplit {
  std::int64_t parts, base, extra;
  GLAI_ALWAYS_INLINE EvenSplit(std::int64_t total, std::int64_t most)
      : parts((total + most - 1) / most),
        base(parts == 0 ? 0 : total / parts),
        extra(parts == 0 ? 0 : total % parts) {}
  GLAI_ALWAYS_INLINE std::int64_t size(std::int64_t i) const { return base + (i < extra ? 1 : 0); }
  GLAI_ALWAYS_INLINE std::int64_t begin(std::int64_t i) const {
    return i * base + (i < extra ? i : extra);
  }
};

// Calls f(first column, vectors, tail) for tiles that cover n columns.
template <class T, class F>
GLAI_ALWAYS_INLINE void for_column_tiles(std::int64_t n, const F& f) {
  constexpr int width = Vec<T>::width;
  const std::int64_t vecs = (n + width - 1) / width;
  const EvenSplit split(vecs, kMaxTileVecs);
  std::int64_t column = 0;
  for (std::int64_t i = 0; i < split.parts; ++i) {
    const std::int64_t end = column + split.size(i) * width;
    const int lanes = end <= n ? width : static_cast<int>(width - (end - n));
    f(column, static_cast<int>(split.size(i)), Tail<T>(lanes));
    column = end;
  }
}

}  // namespace glai::GLAI_ISA
