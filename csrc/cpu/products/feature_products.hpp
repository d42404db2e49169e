// What the samples of a bucket do where lanes run over features: of few outputs a vector over outputs
// would be half empty. Each sample keeps lanes of sums per output, over all paths and features, which
// are added up once at the end.
#pragma once

#include <cstdint>
#include <utility>

#include "core/args.hpp"
#include "cpu/products/buckets.hpp"
#include "cpu/products/panel.hpp"
#include "cpu/products/tiles.hpp"

namespace glai::GLAI_ISA {

// Vectors of features that are multiplied together. The last of a sample may hold fewer features than
// lanes, and a one behind them where there is a bias.
template <class T>
struct FeaturePanel {
  std::int64_t first, count;  // vectors
  std::int64_t whole;         // of them that x fills
  Tail<T> tail;               // lanes of x in the one after these, if any
  Vec<T> one;                 // what is added to it: one in the bias's lane

  GLAI_ALWAYS_INLINE FeaturePanel(std::int64_t first_vector, std::int64_t vectors, std::int64_t d,
                                  bool with_bias)
      : first(first_vector),
        count(vectors),
        whole(d / lanes - first < count ? d / lanes - first : count),
        tail(static_cast<int>(d % lanes)),
        one(Vec<T>::zero()) {
    if (!with_bias) return;
    T unit[lanes] = {};
    unit[d % lanes] = T(1);
    one = Vec<T>::load(unit);
  }
  static constexpr std::int64_t lanes = Vec<T>::width;
};

// Memory that is read soon, sent for a cache line per step of a tile.
template <class T>
struct Upcoming {
  const T* next = nullptr;
  std::int64_t lines = 0;

  // `otherwise` again and again where there are not so many lines.
  GLAI_ALWAYS_INLINE Stretch<T> take(std::int64_t steps, const T* otherwise) {
    constexpr std::int64_t line = 64 / sizeof(T);
    if (lines < steps) return {otherwise, 0};
    const T* first = next;
    next += steps * line;
    lines -= steps;
    return {first, line};
  }
};

template <class T>
struct FeatureTile {
  const T* x;  // row 0 of the block, at the panel's first feature
  std::int64_t x_stride;
  const std::uint16_t* rows;
  const FeaturePanel<T>& panel;
  const T* w;               // [vectors of the panel, outputs, lanes]
  std::int64_t w_stride;    // between vectors of features
  T* sums;                  // [rows of the block, outputs, folded lanes]
  std::int64_t sum_stride;  // between rows
  Upcoming<T>& upcoming;
};

template <class T, int M, int C>
GLAI_ALWAYS_INLINE void add_products(const Vec<T> (&x)[M], const T* w, Vec<T> (&sum)[M][C]) {
#pragma GCC unroll 16
  for (int j = 0; j < C; ++j) {
    const Vec<T> column = Vec<T>::load(w + j * Vec<T>::width).in_register();
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) sum[i][j] = sum[i][j].plus_product(x[i], column);
  }
}

// sums[rows[i], 0 .. C) += x[rows[i], :] * w[:, 0 .. C), lane by lane.
template <class T, int M, int C>
void feature_tile(const FeatureTile<T>& t) {
  using Vector = Vec<T>;
  const T* x[M];
  T* y[M];
  Vector sum[M][C];
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
    x[i] = t.x + t.rows[i] * t.x_stride;
    y[i] = t.sums + t.rows[i] * t.sum_stride;
#pragma GCC unroll 16
    for (int j = 0; j < C; ++j) sum[i][j] = Vector::load_folded(y[i] + j * Vector::folded);
  }
  Vector factor[M];
  const T* w = t.w;
  const Stretch<T> ahead = t.upcoming.take(t.panel.whole, w);
  std::int64_t k = 0;
  for (; k < t.panel.whole; ++k, w += t.w_stride) {
    __builtin_prefetch(ahead.first + k * ahead.step, 0, 2);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) factor[i] = Vector::load(x[i] + k * Vector::width);
    add_products<T, M, C>(factor, w, sum);
  }
  if (k < t.panel.count) {
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      factor[i] = Vector::load(x[i] + k * Vector::width, t.panel.tail).plus(t.panel.one);
    }
    add_products<T, M, C>(factor, w, sum);
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < C; ++j) sum[i][j].store_folded(y[i] + j * Vector::folded);
  }
}

template <class T, int C>
void multiply_outputs(FeatureTile<T> t, std::int64_t count) {
  constexpr int most = feature_tile_rows(C);
  for (; count >= most; count -= most, t.rows += most) feature_tile<T, most, C>(t);
  if (count == 0) return;
  if constexpr (most > 1) {
    [&]<int... M>(std::integer_sequence<int, M...>) {
      static constexpr void (*kRest[])(const FeatureTile<T>&) = {feature_tile<T, M + 1, C>...};
      kRest[count - 1](t);
    }(std::make_integer_sequence<int, most - 1>{});
  }
}

// All outputs, as many at a time as a tile takes.
template <class T>
GLAI_ALWAYS_INLINE void multiply_features(FeatureTile<T> t, std::int64_t count, std::int64_t outputs) {
  const EvenSplit parts(outputs, kMaxTileOutputs);
  for (std::int64_t i = 0; i < parts.parts; ++i) {
    [&]<int... C>(std::integer_sequence<int, C...>) {
      static constexpr void (*kRun[])(FeatureTile<T>, std::int64_t) = {multiply_outputs<T, C + 1>...};
      kRun[parts.size(i) - 1](t, count);
    }(std::make_integer_sequence<int, kMaxTileOutputs>{});
    t.w += parts.size(i) * Vec<T>::width;
    t.sums += parts.size(i) * Vec<T>::folded;
  }
}

// out[j, i] = w[i, j] for the lanes i of a vector and c columns.
template <class T>
GLAI_ALWAYS_INLINE void transpose_lanes(const T* w, std::int64_t w_stride, std::int64_t c, T* out) {
  constexpr std::int64_t lanes = Vec<T>::width;
  if constexpr (lanes >= 4) {
    // The last four columns may be among those before.
    for (std::int64_t j = 0; c >= 4 && j < c; j += 4) {
      const std::int64_t column = j + 4 <= c ? j : c - 4;
      transpose_quad(w + column, w_stride, out + column * lanes, lanes);
    }
    if (c >= 4) return;
  }
  for (std::int64_t j = 0; j < c; ++j) {
    for (std::int64_t i = 0; i < lanes; ++i) out[j * lanes + i] = w[i * w_stride + j];
  }
}

// The weights of path p as feature_tile reads them, the bias behind the last feature; lanes past it are
// zero.
template <class T>
GLAI_ALWAYS_INLINE void pack_features(const GatedMatmulArgs& a, std::int64_t p,
                                      const FeaturePanel<T>& panel, T* out) {
  constexpr std::int64_t lanes = Vec<T>::width;
  const std::int64_t d = a.weight.shape[1], c = a.weight.shape[2];
  const std::int64_t k_stride = a.weight.stride[1], c_stride = c == 1 ? 1 : a.weight.stride[2];
  const T* w = a.weight.as<const T>() + p * a.weight.stride[0] + panel.first * lanes * k_stride;
  for (std::int64_t v = 0; v < panel.whole; ++v, w += lanes * k_stride, out += c * lanes) {
    if (c_stride == 1 && k_stride != 1) {
      transpose_lanes(w, k_stride, c, out);
    } else {
      for (std::int64_t j = 0; j < c; ++j) Vec<T>::load(w + j * c_stride).store(out + j * lanes);
    }
  }
  if (panel.whole == panel.count) return;
  const std::int64_t real = d % lanes;
  for (std::int64_t j = 0; j < c; ++j, out += lanes) {
    for (std::int64_t i = 0; i < lanes; ++i) out[i] = i < real ? w[i * k_stride + j * c_stride] : T(0);
    if (a.bias) out[real] = a.bias->as<const T>()[p * a.bias->stride[0] + j];
  }
}

// The totals of as many vectors as one holds lanes: log2(lanes) rounds of adding vector i to vector
// i + half, lanes by turns.
template <class T>
GLAI_ALWAYS_INLINE void add_lanes_of_block(const T* sums, T* totals) {
  constexpr int lanes = Vec<T>::width;
  constexpr auto sequence = std::make_integer_sequence<int, lanes>{};
  typedef T Row __attribute__((vector_size(lanes * sizeof(T))));
  Row rows[lanes];
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) rows[i] = (Row)Vec<T>::load_folded(sums + i * Vec<T>::folded).v;
#pragma GCC unroll 4
  for (int half = lanes / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) {
      rows[i] = interleave<0>(rows[i], rows[i + half], sequence) +
                interleave<1>(rows[i], rows[i + half], sequence);
    }
  }
  __builtin_memcpy(totals, &rows[0], sizeof(Row));
}

// totals[i] = sum of the folded lanes of sums[i].
template <class T>
GLAI_ALWAYS_INLINE void add_lanes(const T* sums, std::int64_t count, T* totals) {
  constexpr std::int64_t lanes = Vec<T>::width, folded = Vec<T>::folded;
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) add_lanes_of_block(sums + i * folded, totals + i);
  if (i == count) return;
  T padded[lanes * folded] = {}, rest[lanes];
  for (std::int64_t j = 0; j < (count - i) * folded; ++j) padded[j] = sums[i * folded + j];
  add_lanes_of_block(padded, rest);
  for (std::int64_t j = 0; i < count; ++i, ++j) totals[i] = rest[j];
}

}  // namespace glai::GLAI_ISA
