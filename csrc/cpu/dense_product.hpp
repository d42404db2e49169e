// y = x · w + bias: what a gated product becomes where all gates are on; and g ⊙ (x · w + bias), each
// column under a gate of its own.
#pragma once

#include <cstdint>
#include <utility>

#include "core/args.hpp"
#include "core/gates.hpp"
#include "core/scratch.hpp"
#include "cpu/panel.hpp"
#include "cpu/parallel.hpp"
#include "cpu/tiles.hpp"

namespace glai::GLAI_ISA {

constexpr std::int64_t kDenseRows = 256;  // of a task
// Of a panel: 64 columns of floats then take 32 kB, and stay in the first-level cache.
constexpr std::int64_t kDenseFeatures = 128;

// Gates of the columns of y, read where y is written.
struct ColumnGates {
  const std::uint32_t* words = nullptr;  // of row 0; null: all are on
  std::int64_t stride = 0;               // words between rows
  std::int64_t first = 0;  // gate of column 0: a multiple of a vector's lanes, which divide
                           // a word's

  GLAI_ALWAYS_INLINE ColumnGates from(std::int64_t row, std::int64_t column) const {
    if (words == nullptr) return {};
    return {words + row * stride, stride, first + column};
  }
  // Bits of the columns from `column` on, as many as a vector has lanes.
  GLAI_ALWAYS_INLINE std::uint32_t bits(std::int64_t row, std::int64_t column) const {
    const std::int64_t gate = first + column;
    return words[row * stride + gate / kWordBits] >> (gate % kWordBits);
  }
};

template <class T>
struct DenseTile {
  const T* x;
  std::int64_t x_stride;
  const T* w;  // [k, V vectors]
  std::int64_t k;
  T* y;
  std::int64_t y_stride;
  Tail<T> tail;    // lanes of the last vector
  const T* start;  // [V vectors]: what sums start from; null: y
  ColumnGates gates;
};

template <class T, int M, int V>
void dense_tile(const DenseTile<T>& t) {
  using Vector = Vec<T>;
  Vector sum[M][V];
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const T* y = t.y + i * t.y_stride + v * Vector::width;
      sum[i][v] = t.start != nullptr ? Vector::load(t.start + v * Vector::width)
                  : v < V - 1        ? Vector::load(y)
                                     : Vector::load(y, t.tail);
    }
  }
  for (std::int64_t k = 0; k < t.k; ++k) {
    Vector column[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) column[v] = Vector::load(t.w + (k * V + v) * Vector::width);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const Vector s = Vector::broadcast(t.x[i * t.x_stride + k]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[i][v] = sum[i][v].plus_product(s, column[v]);
    }
  }
  // Before the last panel too: a sum that is off may start anew each time, nobody reads it.
  if (t.gates.words != nullptr) {
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[i][v] = sum[i][v].only(t.gates.bits(i, v * Vector::width));
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
    T* y = t.y + i * t.y_stride;
#pragma GCC unroll 4
    for (int v = 0; v < V - 1; ++v) sum[i][v].store(y + v * Vector::width);
    sum[i][V - 1].store(y + (V - 1) * Vector::width, t.tail);
  }
}

// Runs the instance for `rows` x `vecs` known at run time, 1 <= vecs <= kMaxTileVecs.
template <class T, int V = 1>
GLAI_ALWAYS_INLINE void run_dense_tile(int rows, int vecs, const DenseTile<T>& t) {
  if constexpr (V < kMaxTileVecs) {
    if (vecs > V) return run_dense_tile<T, V + 1>(rows, vecs, t);
  }
  [&]<int... M>(std::integer_sequence<int, M...>) {
    static constexpr void (*kRun[])(const DenseTile<T>&) = {dense_tile<T, M + 1, V>...};
    kRun[rows - 1](t);
  }(std::make_integer_sequence<int, gather_tile_rows(V)>{});
}

// w: [D, C], a unit stride in one of them.
template <class T>
struct DenseWeight {
  const T* data;
  std::int64_t stride[2];
  const T* bias;  // [C], or null

  GLAI_ALWAYS_INLINE DenseWeight from(std::int64_t column) const {
    return {data + column * stride[1], {stride[0], stride[1]}, bias ? bias + column : nullptr};
  }
};

// A block of rows of y, one tile of columns wide.
template <class T>
struct DenseBlock {
  const T* x;
  std::int64_t x_stride;
  std::int64_t rows, d;
  DenseWeight<T> w;  // of these columns
  std::int64_t columns;
  T* y;
  std::int64_t y_stride;
  ColumnGates gates = {};
};

// Elements of memory that dense_block works in, for a tile of `vecs` vectors.
template <class T>
constexpr std::int64_t dense_memory(int vecs) {
  return (kDenseFeatures + 1) * vecs * Vec<T>::width;
}

// What a row sums to depends on no other row.
template <class T>
void dense_block(const DenseBlock<T>& b, T* memory) {
  constexpr std::int64_t lanes = Vec<T>::width;
  const int vecs = static_cast<int>((b.columns + lanes - 1) / lanes);
  const std::int64_t width = vecs * lanes;
  const Tail<T> tail(static_cast<int>(b.columns - (vecs - 1) * lanes));
  const DenseWeight<T>& w = b.w;
  T* panel = memory;
  T* start = panel + kDenseFeatures * width;
  for (std::int64_t j = 0; j < width; ++j) start[j] = w.bias && j < b.columns ? w.bias[j] : T(0);
  const EvenSplit groups(b.rows, gather_tile_rows(vecs));
  // Once at least, so that y is written when there are no features.
  const EvenSplit panels(b.d, kDenseFeatures);
  for (std::int64_t part = 0; part == 0 || part < panels.parts; ++part) {
    const std::int64_t k = panels.begin(part), k_count = panels.size(part);
    const T* from = w.data + k * w.stride[0];
    if (w.stride[1] != 1) {
      pack_transposed(from, w.stride[1], k_count, b.columns, panel, width);
    }
    for (std::int64_t i = 0; i < k_count; ++i) {
      for (std::int64_t j = 0; w.stride[1] == 1 && j < b.columns; ++j)
        panel[i * width + j] = from[i * w.stride[0] + j];
      for (std::int64_t j = b.columns; j < width; ++j) panel[i * width + j] = T(0);
    }
    for (std::int64_t g = 0; g < groups.parts; ++g) {
      const std::int64_t row = groups.begin(g);
      run_dense_tile<T>(static_cast<int>(groups.size(g)), vecs,
                        {b.x + row * b.x_stride + k, b.x_stride, panel, k_count, b.y + row * b.y_stride,
                         b.y_stride, tail, k == 0 ? start : nullptr, b.gates.from(row, 0)});
    }
  }
}

template <class T>
void dense_product(const TensorView& x, const DenseWeight<T>& w, const TensorView& y, int threads,
                   const ColumnGates& gates = {}) {
  constexpr std::int64_t lanes = Vec<T>::width;
  const std::int64_t n = x.shape[0], d = x.shape[1], c = y.shape[1];
  const EvenSplit tiles((c + lanes - 1) / lanes, kMaxTileVecs), blocks(n, kDenseRows);
  const double work = static_cast<double>(n) * static_cast<double>(c) * static_cast<double>(d + 1);
  parallel_for(tiles.parts * blocks.parts, work, threads, [&](std::int64_t task) {
    const std::int64_t tile = task / blocks.parts, block = task % blocks.parts;
    const int vecs = static_cast<int>(tiles.size(tile));
    const std::int64_t first = tiles.begin(tile) * lanes, width = vecs * lanes;
    const std::int64_t columns = c - first < width ? c - first : width;
    const std::int64_t row = blocks.begin(block);
    T* memory = reinterpret_cast<T*>(scratch(Scratch::task, dense_memory<T>(vecs) * sizeof(T)));
    dense_block<T>(
        {x.as<const T>() + row * x.stride[0], x.stride[0], blocks.size(block), d, w.from(first), columns,
         y.as<T>() + row * y.stride[0] + first, y.stride[0], gates.from(row, first)},
        memory);
  });
}

}  // namespace glai::GLAI_ISA
