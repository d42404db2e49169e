// y = x · w + bias: what a gated product becomes where all gates are on.
#pragma once

#include <cstdint>
#include <utility>

#include "core/args.hpp"
#include "core/scratch.hpp"
#include "cpu/panel.hpp"
#include "cpu/parallel.hpp"
#include "cpu/tiles.hpp"

namespace glai::GLAI_ISA {

constexpr std::int64_t kDenseRows = 256;          // of a task
constexpr std::int64_t kDenseFeatures = 256;      // of a panel
constexpr std::int64_t kDensePanels = 24 * 1024;  // bytes
constexpr std::int64_t kDenseTileRows = 8;        // that go through all tiles together

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
};

// The columns of tile i.
template <class T>
struct DenseColumns {
  std::int64_t first, count, width;
  int vecs;
  Tail<T> tail;
  GLAI_ALWAYS_INLINE DenseColumns(const EvenSplit& tiles, std::int64_t i, std::int64_t c)
      : first(tiles.begin(i) * Vec<T>::width),
        count(c - first < tiles.size(i) * Vec<T>::width ? c - first : tiles.size(i) * Vec<T>::width),
        width(tiles.size(i) * Vec<T>::width),
        vecs(static_cast<int>(tiles.size(i))),
        tail(static_cast<int>(count - (vecs - 1) * Vec<T>::width)) {}
};

// out: the bias [width], then the weights [k_count, width]; lanes past the last column zero.
template <class T>
GLAI_ALWAYS_INLINE void pack_dense_weight(const DenseWeight<T>& w, std::int64_t k, std::int64_t k_count,
                                          const DenseColumns<T>& columns, T* out) {
  for (std::int64_t j = 0; j < columns.width; ++j) {
    out[j] = w.bias && j < columns.count ? w.bias[columns.first + j] : T(0);
  }
  out += columns.width;
  const T* from = w.data + k * w.stride[0] + columns.first * w.stride[1];
  if (w.stride[1] != 1) pack_transposed(from, w.stride[1], k_count, columns.count, out, columns.width);
  for (std::int64_t i = 0; i < k_count; ++i) {
    for (std::int64_t j = 0; w.stride[1] == 1 && j < columns.count; ++j) {
      out[i * columns.width + j] = from[i * w.stride[0] + j];
    }
    for (std::int64_t j = columns.count; j < columns.width; ++j) out[i * columns.width + j] = T(0);
  }
}

template <class T>
void dense_product(const TensorView& x, const DenseWeight<T>& w, const TensorView& y, int threads) {
  constexpr std::int64_t lanes = Vec<T>::width;
  const std::int64_t n = x.shape[0], d = x.shape[1], c = y.shape[1];
  const std::int64_t k_step = d < kDenseFeatures ? d : kDenseFeatures;
  const EvenSplit tiles((c + lanes - 1) / lanes, kMaxTileVecs), blocks(n, kDenseRows);
  // As many tiles in a task as stay in the first-level cache, so that rows of y are written in order.
  const std::int64_t tile_size = (k_step + 1) * kMaxTileVecs * lanes;
  const EvenSplit shares(tiles.parts, 1 + kDensePanels / (tile_size * sizeof(T)));
  const double work = static_cast<double>(n) * static_cast<double>(c) * static_cast<double>(d + 1);
  parallel_for(shares.parts * blocks.parts, work, threads, [&](std::int64_t task) {
    const std::int64_t share = task / blocks.parts, block = task % blocks.parts;
    const std::int64_t first_tile = shares.begin(share), end_tile = first_tile + shares.size(share);
    T* panels = reinterpret_cast<T*>(
        scratch(Scratch::task, static_cast<std::size_t>(shares.size(share) * tile_size) * sizeof(T)));
    // Once at least, so that y is written when there are no features.
    for (std::int64_t k = 0; k == 0 || k < d; k += k_step) {
      const std::int64_t k_count = d - k < k_step ? d - k : k_step;
      for (std::int64_t i = first_tile; i < end_tile; ++i) {
        pack_dense_weight(w, k, k_count, DenseColumns<T>(tiles, i, c),
                          panels + (i - first_tile) * tile_size);
      }
      for (std::int64_t r = 0; r < blocks.size(block);) {
        const std::int64_t row = blocks.begin(block) + r, left = blocks.size(block) - r;
        const int rows = static_cast<int>(left < kDenseTileRows ? left : kDenseTileRows);
        for (std::int64_t i = first_tile; i < end_tile; ++i) {
          const DenseColumns<T> columns(tiles, i, c);
          const T* panel = panels + (i - first_tile) * tile_size;
          for (int at = 0; at < rows;) {
            const int most = gather_tile_rows(columns.vecs), m = rows - at < most ? rows - at : most;
            run_dense_tile<T>(
                m, columns.vecs,
                {x.as<const T>() + (row + at) * x.stride[0] + k, x.stride[0], panel + columns.width,
                 k_count, y.as<T>() + (row + at) * y.stride[0] + columns.first, y.stride[0],
                 columns.tail, k == 0 ? panel : nullptr});
            at += m;
          }
        }
        r += rows;
      }
    }
  });
}

}  // namespace glai::GLAI_ISA
