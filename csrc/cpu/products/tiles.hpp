// The two register tiles that all gated products are made of: M rows by V vectors of accumulators, every
// index known to the compiler, so that the accumulators stay in registers.
//
//   gather_tile   y[rows[i], :]  += sum_k x[rows[i], k] * w[k, :]                  (rows gathered)
//   outer_tile    out[i, :]      = sum_r a[r, i] * b[r, :]               (sum over rows, gathered or
//   not)
//
// x, w, a, b are operands of operands.hpp: numbers, or pairs of them, and then k and rows count pairs.
#pragma once

#include <cstdint>
#include <utility>

#include "core/tensor.hpp"
#include "cpu/products/operands.hpp"

namespace glai::GLAI_ISA {

// Memory that will be read soon, an address per step.
template <class T>
struct Stretch {
  const T* first;
  std::int64_t step;
};

template <class Operand>
struct GatherTile {
  using T = typename SumOf<Operand>::Type;
  const Operand* x;       // row 0 of the block
  std::int64_t x_stride;  // between samples
  const std::uint16_t* rows;
  const Operand* w;       // [k, V vectors]
  std::int64_t w_stride;  // between features
  std::int64_t k;
  T* y;  // row 0 of the block, [rows, V vectors]
  std::int64_t y_stride;
  Stretch<T> ahead = {};  // sent for while this is multiplied
};

template <class Operand, int M, int V, bool SendAhead = false>
GLAI_ALWAYS_INLINE void gather_tile(const GatherTile<Operand>& t) {
  using T = typename SumOf<Operand>::Type;
  using Vector = Vec<T>;
  using Factor = Vec<Operand>;
  const Operand* x[M];
  T* y[M];
  Vector sum[M][V];
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
    x[i] = t.x + t.rows[i] * t.x_stride;
    y[i] = t.y + t.rows[i] * t.y_stride;
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[i][v] = Vector::load(y[i] + v * Vector::width);
  }
  const Operand* w = t.w;
  for (std::int64_t k = 0; k < t.k; ++k) {
    Factor column[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) column[v] = Factor::load(w + v * Vector::width);
    w += t.w_stride;
    if constexpr (SendAhead) __builtin_prefetch(t.ahead.first + k * t.ahead.step, 0, 2);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const Factor s = Factor::broadcast(x[i][k]);
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

template <class Operand>
struct OuterTile {
  using T = typename SumOf<Operand>::Type;
  const Operand* a;  // M columns
  std::int64_t a_stride;
  const Operand* b;  // V vectors
  std::int64_t b_stride;
  const std::uint16_t* rows;  // of the operands that are gathered; the others are read in order
  std::int64_t n_rows;
  Tail<T> tail;  // lanes of b's last vector; the others count as zero
  T* out;
  std::int64_t out_stride;
  bool whole;  // out is [M, V vectors], packed, every lane written; otherwise rows out_stride apart and
               // `tail` lanes of the last vector
  bool add;    // to what is there; not with `whole`
};

template <class Operand, int M, int V, bool GatherA, bool GatherB>
void outer_tile(const OuterTile<Operand>& t) {
  using Vector = Vec<typename SumOf<Operand>::Type>;
  using Factor = Vec<Operand>;
  Vector sum[M][V];
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[i][v] = Vector::zero();
  }
  for (std::int64_t r = 0; r < t.n_rows; ++r) {
    const Operand* a = t.a + (GatherA ? t.rows[r] : r) * t.a_stride;
    const Operand* b = t.b + (GatherB ? t.rows[r] : r) * t.b_stride;
    Factor column[V];
#pragma GCC unroll 4
    for (int v = 0; v < V - 1; ++v) column[v] = Factor::load(b + v * Vector::width);
    column[V - 1] = Factor::load(b + (V - 1) * Vector::width, t.tail);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const Factor s = Factor::broadcast(a[i]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[i][v] = sum[i][v].plus_product(s, column[v]);
    }
  }
  if (t.whole) {  // no masked store here: what it writes cannot be loaded until it is in the cache
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[i][v].store(t.out + (i * V + v) * Vector::width);
    }
    return;
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
    auto* out = t.out + i * t.out_stride;
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v, out += Vector::width) {
      if (v < V - 1) {
        (t.add ? sum[i][v].plus(Vector::load(out)) : sum[i][v]).store(out);
      } else {
        (t.add ? sum[i][v].plus(Vector::load(out, t.tail)) : sum[i][v]).store(out, t.tail);
      }
    }
  }
}

// Runs the instance for `rows` x `vecs` known at run time, 1 <= vecs <= kMaxTileVecs.
template <class Operand, bool GatherA, bool GatherB, int V = 1>
GLAI_ALWAYS_INLINE void run_outer_tile(int rows, int vecs, const OuterTile<Operand>& t) {
  if constexpr (V < kMaxTileVecs) {
    if (vecs > V) return run_outer_tile<Operand, GatherA, GatherB, V + 1>(rows, vecs, t);
  }
  [&]<int... M>(std::integer_sequence<int, M...>) {
    static constexpr void (*kRun[])(const OuterTile<Operand>&) = {
        outer_tile<Operand, M + 1, V, GatherA, GatherB>...};
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
GLAI_ALWAYS_INLINE void for_column_tiles(std::int64_t n, const F& f, int most = kMaxTileVecs) {
  constexpr int width = Vec<T>::width;
  const std::int64_t vecs = (n + width - 1) / width;
  const EvenSplit split(vecs, most);
  std::int64_t column = 0;
  for (std::int64_t i = 0; i < split.parts; ++i) {
    const std::int64_t end = column + split.size(i) * width;
    const int lanes = end <= n ? width : static_cast<int>(width - (end - n));
    f(column, static_cast<int>(split.size(i)), Tail<T>(lanes));
    column = end;
  }
}

}  // namespace glai::GLAI_ISA
