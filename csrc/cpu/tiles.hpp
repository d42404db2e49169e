// The two register tiles that all gated products are made of: M rows by V vectors of accumulators, every
// index known to the compiler, so that the accumulators stay in registers.
//
//   gather_tile   y[rows[i], :]  += bias + sum_k x[rows[i], k] * w[k, :]          (rows gathered)
//   outer_tile    out[i, :]     (+)= sum_r a[a_rows[r], i] * b[b_rows[r], :]       (sum over rows)
#pragma once

#include <cstdint>
#include <utility>

#include "core/tensor.hpp"

namespace glai::GLAI_ISA {

template <class T>
struct GatherTile {
  const T* x;             // row 0 of the block, at the first feature of this step
  std::int64_t x_stride;  // between samples
  const std::int32_t* rows;
  const T* w;             // [k, columns of this tile]
  std::int64_t w_stride;  // between features
  std::int64_t k;
  const T* bias;  // columns of this tile, or null
  T* y;           // row 0 of the block, at the first column of this tile
  std::int64_t y_stride;
  Tail<T> tail;  // lanes of the last vector
};

template <class T, int M, int V>
void gather_tile(const GatherTile<T>& t) {
  using Vector = Vec<T>;
  const T* x[M];
  T* y[M];
  Vector sum[M][V];
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
    x[i] = t.x + t.rows[i] * t.x_stride;
    y[i] = t.y + t.rows[i] * t.y_stride;
#pragma GCC unroll 4
    for (int v = 0; v < V - 1; ++v) sum[i][v] = Vector::load(y[i] + v * Vector::width);
    sum[i][V - 1] = Vector::load(y[i] + (V - 1) * Vector::width, t.tail);
  }
  if (t.bias != nullptr) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const T* p = t.bias + v * Vector::width;
      const Vector b = v == V - 1 ? Vector::load(p, t.tail) : Vector::load(p);
#pragma GCC unroll 16
      for (int i = 0; i < M; ++i) sum[i][v] = sum[i][v].plus(b);
    }
  }
  const T* w = t.w;
  for (std::int64_t k = 0; k < t.k; ++k) {
    Vector column[V];
#pragma GCC unroll 4
    for (int v = 0; v < V - 1; ++v) column[v] = Vector::load(w + v * Vector::width);
    column[V - 1] = Vector::load(w + (V - 1) * Vector::width, t.tail);
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
    for (int v = 0; v < V - 1; ++v) sum[i][v].store(y[i] + v * Vector::width);
    sum[i][V - 1].store(y[i] + (V - 1) * Vector::width, t.tail);
  }
}

// One operand of outer products: rows of T, a stride apart, of which some are read from a first column
// on.
template <class T>
struct Rows {
  const T* data;  // row 0, at the first column
  std::int64_t stride;
  const std::int32_t* rows;
};

template <class T>
struct OuterTile {
  Rows<T> a;  // M columns
  Rows<T> b;  // V vectors
  std::int64_t n_rows;
  T* out;  // [M, columns of this tile]
  std::int64_t out_stride;
  bool fresh;  // out is not read: sums start at zero
  Tail<T> tail;
};

template <class T, int M, int V>
void outer_tile(const OuterTile<T>& t) {
  using Vector = Vec<T>;
  Vector sum[M][V];
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
    const T* out = t.out + i * t.out_stride;
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      if (t.fresh) {
        sum[i][v] = Vector::zero();
      } else if (v < V - 1) {
        sum[i][v] = Vector::load(out + v * Vector::width);
      } else {
        sum[i][v] = Vector::load(out + v * Vector::width, t.tail);
      }
    }
  }
  for (std::int64_t r = 0; r < t.n_rows; ++r) {
    const T* a = t.a.data + t.a.rows[r] * t.a.stride;
    const T* b = t.b.data + t.b.rows[r] * t.b.stride;
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
    T* out = t.out + i * t.out_stride;
#pragma GCC unroll 4
    for (int v = 0; v < V - 1; ++v) sum[i][v].store(out + v * Vector::width);
    sum[i][V - 1].store(out + (V - 1) * Vector::width, t.tail);
  }
}

// Runs the instance for `rows` x `vecs` known at run time, 1 <= vecs <= kMaxTileVecs.
template <class T, int V = 1>
GLAI_ALWAYS_INLINE void run_gather_tile(int rows, int vecs, const GatherTile<T>& t) {
  if constexpr (V < kMaxTileVecs) {
    if (vecs > V) return run_gather_tile<T, V + 1>(rows, vecs, t);
  }
  [&]<int... M>(std::integer_sequence<int, M...>) {
    static constexpr void (*kRun[])(const GatherTile<T>&) = {gather_tile<T, M + 1, V>...};
    kRun[rows - 1](t);
  }(std::make_integer_sequence<int, gather_tile_rows(V)>{});
}

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
