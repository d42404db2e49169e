// y = x · w + bias: what a gated product becomes where all gates are on; and g ⊙ (x · w + bias), each
// column under a gate of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "core/args.hpp"
#include "core/gates.hpp"
#include "core/scratch.hpp"
#include "cpu/parallel.hpp"
#include "cpu/products/operands.hpp"
#include "cpu/products/panel.hpp"
#include "cpu/products/tiles.hpp"

namespace glai::GLAI_ISA {

constexpr std::int64_t kDenseRows = 256;  // of a task
// Of few features little is computed for what is written: rows few enough that their pages are still
// known when the next tile of columns is written.
constexpr std::int64_t kFewFeatures = 32, kFewFeatureRows = 64;
// Of a panel: a tile's columns then take at most 32 kB, 16 kB where tiles are narrow, and stay in the
// first-level cache.
constexpr std::int64_t kDenseFeatures = kMaxTileVecs * Vec<float>::width > 16 ? 128 : 256;
// Of x that a task reads again for each tile of columns: half of a small second-level cache.
constexpr std::int64_t kDenseBytes = 256 << 10;

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

template <class Operand>
struct DenseTile {
  using T = typename SumOf<Operand>::Type;
  const Operand* x;
  std::int64_t x_stride;
  const Operand* w;  // [k, V vectors]
  std::int64_t k;
  T* y;
  std::int64_t y_stride;
  Tail<T> tail;    // lanes of the last vector
  const T* start;  // [V vectors]: what sums start from; null: y
  ColumnGates gates;
  bool streamed = false;  // whole vectors of y, which are aligned, past the caches
};

template <class Operand, int M, int V>
void dense_tile(const DenseTile<Operand>& t) {
  using T = typename SumOf<Operand>::Type;
  using Vector = Vec<T>;
  using Factor = Vec<Operand>;
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
    Factor column[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) column[v] = Factor::load(t.w + (k * V + v) * Vector::width);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const Factor s = Factor::broadcast(t.x[i * t.x_stride + k]);
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
    if (t.streamed) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[i][v].stream(y + v * Vector::width);
      continue;
    }
#pragma GCC unroll 4
    for (int v = 0; v < V - 1; ++v) sum[i][v].store(y + v * Vector::width);
    sum[i][V - 1].store(y + (V - 1) * Vector::width, t.tail);
  }
}

// Runs the instance for `rows` x `vecs` known at run time, 1 <= vecs <= kMaxTileVecs.
template <class Operand, int V = 1>
GLAI_ALWAYS_INLINE void run_dense_tile(int rows, int vecs, const DenseTile<Operand>& t) {
  if constexpr (V < kMaxTileVecs) {
    if (vecs > V) return run_dense_tile<Operand, V + 1>(rows, vecs, t);
  }
  [&]<int... M>(std::integer_sequence<int, M...>) {
    static constexpr void (*kRun[])(const DenseTile<Operand>&) = {dense_tile<Operand, M + 1, V>...};
    kRun[rows - 1](t);
  }(std::make_integer_sequence<int, dense_tile_rows(V)>{});
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
  const T* panels = nullptr;  // these columns of w as pack_weights makes them; null: packed on the way
  bool streamed = false;      // as in DenseTile, of whole vectors of columns and at most kDenseFeatures
};

// Bytes of memory that dense_block works in, for a tile of `vecs` vectors.
template <class Kind>
constexpr std::size_t dense_bytes(int vecs) {
  const std::int64_t width = vecs * Vec<typename Kind::Value>::width;
  const std::int64_t values = (kDenseFeatures + 1) * width;
  const std::int64_t operands =
      Kind::kRounds ? (width + kDenseRows) * kDenseFeatures / Kind::kValues : 0;
  return values * sizeof(typename Kind::Value) + operands * sizeof(typename Kind::Operand);
}

// `vecs` vectors of each row, side by side; lanes past the tail are zero.
template <class T>
GLAI_ALWAYS_INLINE void pack_rows(const T* w, std::int64_t stride, std::int64_t rows, int vecs,
                                  Tail<T> tail, T* out) {
  constexpr std::int64_t lanes = Vec<T>::width;
  for (std::int64_t i = 0; i < rows; ++i) {
    for (int v = 0; v < vecs - 1; ++v, out += lanes) Vec<T>::load(w + i * stride + v * lanes).store(out);
    Vec<T>::load(w + i * stride + (vecs - 1) * lanes, tail).store(out);
    out += lanes;
  }
}

// w's rows [k, k + k_count) of `columns` columns, in whole vectors; lanes past the last column are zero.
template <class T>
GLAI_ALWAYS_INLINE void pack_weights(const DenseWeight<T>& w, std::int64_t k, std::int64_t k_count,
                                     std::int64_t columns, T* panel) {
  constexpr std::int64_t lanes = Vec<T>::width;
  const int vecs = static_cast<int>((columns + lanes - 1) / lanes);
  const std::int64_t width = vecs * lanes;
  const T* from = w.data + k * w.stride[0];
  if (w.stride[1] == 1) {
    const Tail<T> tail(static_cast<int>(columns - (vecs - 1) * lanes));
    return pack_rows(from, w.stride[0], k_count, vecs, tail, panel);
  }
  pack_transposed(from, w.stride[1], k_count, columns, panel, width);
  for (std::int64_t i = 0; i < k_count; ++i) {
    for (std::int64_t j = columns; j < width; ++j) panel[i * width + j] = T(0);
  }
}

// What a row sums to depends on no other row.
template <class Kind>
void dense_block(const DenseBlock<typename Kind::Value>& b, std::byte* memory) {
  using T = typename Kind::Value;
  using Operand = typename Kind::Operand;
  constexpr std::int64_t lanes = Vec<T>::width;
  const int vecs = static_cast<int>((b.columns + lanes - 1) / lanes);
  const std::int64_t width = vecs * lanes;
  const Tail<T> tail(static_cast<int>(b.columns - (vecs - 1) * lanes));
  const DenseWeight<T>& w = b.w;
  T* panel = reinterpret_cast<T*>(memory);
  T* start = panel + kDenseFeatures * width;
  // Where operands are rounded: x [rows, operands of a panel's features], and those of the panel.
  auto* rounded_x = reinterpret_cast<Operand*>(start + width);
  auto* rounded_panel = rounded_x + kDenseRows * kDenseFeatures / Kind::kValues;
  for (std::int64_t j = 0; j < width; ++j) {
    start[j] = w.bias && j < b.columns ? as_operand<Kind>(w.bias[j]) : T(0);
  }
  const EvenSplit groups(b.rows, dense_tile_rows(vecs));
  // Once at least, so that y is written when there are no features.
  const EvenSplit panels(b.d, kDenseFeatures);
  for (std::int64_t part = 0; part == 0 || part < panels.parts; ++part) {
    const std::int64_t k = panels.begin(part), k_count = panels.size(part);
    if (b.panels == nullptr) pack_weights(w, k, k_count, b.columns, panel);
    DenseTile<Operand> tile{nullptr, 0,          nullptr, operand_count<Kind>(k_count),
                            nullptr, b.y_stride, tail,    k == 0 ? start : nullptr};
    if constexpr (Kind::kRounds) {
      for (std::int64_t r = 0; r < b.rows; ++r) {
        pack_operands<Kind>(b.x + r * b.x_stride + k, k_count, false, rounded_x + r * tile.k);
      }
      pack_panel<Kind>(panel, k_count, width, rounded_panel);
      tile.w = rounded_panel;
      tile.x_stride = tile.k;
    } else {
      tile.w = b.panels == nullptr ? panel : b.panels + k * width;
      tile.x_stride = b.x_stride;
    }
    for (std::int64_t g = 0; g < groups.parts; ++g) {
      const std::int64_t row = groups.begin(g);
      if constexpr (Kind::kRounds) {
        tile.x = rounded_x + row * tile.x_stride;
      } else {
        tile.x = b.x + row * b.x_stride + k;
      }
      tile.y = b.y + row * b.y_stride;
      tile.gates = b.gates.from(row, 0);
      tile.streamed = b.streamed;
      run_dense_tile<Operand>(static_cast<int>(groups.size(g)), vecs, tile);
    }
  }
}

// Of a task: they stay in the second-level cache.
template <class T>
constexpr std::int64_t dense_rows(std::int64_t d) {
  if (d <= kFewFeatures) return kFewFeatureRows;
  const std::int64_t rows = kDenseBytes / (d * static_cast<std::int64_t>(sizeof(T)));
  return rows > kDenseRows ? kDenseRows : rows < kFewFeatureRows ? kFewFeatureRows : rows;
}

// A result larger than this, of so few features that it is written once and does little besides, is
// stored past the caches, which would first read what is to be overwritten.
constexpr double kStreamedProductBytes = 8e6;

template <class T>
GLAI_ALWAYS_INLINE bool streams_product(const TensorView& y, std::int64_t d) {
  constexpr std::int64_t lanes = Vec<T>::width;
  return d <= kFewFeatures && y.shape[1] % lanes == 0 && y.stride[0] % lanes == 0 &&
         reinterpret_cast<std::uintptr_t>(y.data) % (lanes * sizeof(T)) == 0 &&
         static_cast<double>(y.shape[0]) * static_cast<double>(y.shape[1]) * sizeof(T) >
             kStreamedProductBytes;
}

template <class Kind>
void dense_product(const TensorView& x, const DenseWeight<typename Kind::Value>& w, const TensorView& y,
                   int threads, const ColumnGates& gates = {}) {
  using T = typename Kind::Value;
  constexpr std::int64_t lanes = Vec<T>::width;
  const std::int64_t n = x.shape[0], d = x.shape[1], c = y.shape[1];
  const EvenSplit tiles((c + lanes - 1) / lanes, kMaxTileVecs);
  const EvenSplit blocks(n, dense_rows<T>(d));
  const double work = static_cast<double>(n) * static_cast<double>(c) * static_cast<double>(d + 1);
  const auto columns_of = [&](std::int64_t tile) {
    const std::int64_t left = c - tiles.begin(tile) * lanes, width = tiles.size(tile) * lanes;
    return left < width ? left : width;
  };
  const bool streamed = streams_product<T>(y, d);
  // Weights that more than one task reads are packed once.
  T* panels = nullptr;
  if (!Kind::kRounds && blocks.parts > 1 && d > kFewFeatures) {
    ScratchSizes sizes;
    sizes.add<T>(d * tiles.begin(tiles.parts) * lanes);
    panels = reinterpret_cast<T*>(scratch(Scratch::weights, sizes.bytes()));
    parallel_for(tiles.parts, static_cast<double>(c) * static_cast<double>(d), threads,
                 [&](std::int64_t tile) {
                   const std::int64_t first = tiles.begin(tile) * lanes;
                   pack_weights(w.from(first), 0, d, columns_of(tile), panels + first * d);
                 });
  }
  parallel_for(tiles.parts * blocks.parts, work, threads, [&](std::int64_t task) {
    const std::int64_t tile = task % tiles.parts, block = task / tiles.parts;
    const int vecs = static_cast<int>(tiles.size(tile));
    const std::int64_t first = tiles.begin(tile) * lanes;
    const std::int64_t row = blocks.begin(block);
    std::byte* memory = scratch(Scratch::task, dense_bytes<Kind>(vecs));
    dense_block<Kind>(
        {x.as<const T>() + row * x.stride[0], x.stride[0], blocks.size(block), d, w.from(first),
         columns_of(tile), y.as<T>() + row * y.stride[0] + first, y.stride[0], gates.from(row, first),
         panels == nullptr ? nullptr : panels + first * d, streamed},
        memory);
    if (streamed) stream_fence();
  });
}

}  // namespace glai::GLAI_ISA
