// y[n, :] = sum over the paths p that sample n has on of x[n, :] · w[p], of few features: the sum of the
// weights of a subset of paths fits in registers, a few columns at a time, and is made there from that
// of the subset before by adding what comes in. The input gradient of few outputs is such a product.
#pragma once

#include <cstdint>
#include <utility>

#include "core/args.hpp"
#include "core/plan.hpp"
#include "core/scratch.hpp"
#include "cpu/parallel.hpp"
#include "cpu/products/buckets.hpp"
#include "cpu/products/panel.hpp"
#include "cpu/products/subset_chains.hpp"
#include "cpu/products/tiles.hpp"

namespace glai::GLAI_ISA {

// Samples of a block: of a tile's columns of y they fill two thirds of a first-level cache.
constexpr std::int64_t kFewFeaturesBlock = 256;
// Blocks whose rows are sorted at a time, and no more bytes of that unless one block has more.
constexpr std::int64_t kFewFeaturesBlocks = 16, kFewFeaturesBucketBytes = 4 << 20;
constexpr std::int64_t kFewFeaturesPackedBytes = 32 << 20;  // of weights that are packed for all blocks
// A result that no cache keeps is written past them.
constexpr std::int64_t kStreamedOutputBytes = 4 << 20;

// Features whose sums of weights, of two vectors each, fit in registers; of more some are taken at a
// time.
constexpr int kFeaturesAtOnce = kMaxOuterTileVecs / 2;

template <class T>
struct FewFeaturesTile {
  const T* x;  // row 0 of the block
  std::int64_t x_stride;
  const Buckets& buckets;
  const SubsetChains& chains;
  const T* weights;  // [gates, K, V vectors]
  std::int64_t gate_stride;
  T* y;  // [rows, V vectors], added to
};

template <class T, int K, int V, int M>
GLAI_ALWAYS_INLINE void add_few_features(const T* all_x, std::int64_t x_stride, T* all_y,
                                         const Vec<T> (&weights)[K][V], const std::uint16_t* rows) {
  using Vector = Vec<T>;
  const T* x[M];
  T* y[M];
  Vector sum[M][V];
#pragma GCC unroll 4
  for (int i = 0; i < M; ++i) {
    const std::int64_t row = rows[i];
    x[i] = all_x + row * x_stride;
    y[i] = all_y + row * (V * Vector::width);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[i][v] = Vector::load(y[i] + v * Vector::width);
  }
#pragma GCC unroll 32
  for (int k = 0; k < K; ++k) {
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) {
      const Vector s = Vector::broadcast(x[i][k]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[i][v] = sum[i][v].plus_product(s, weights[k][v]);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[i][v].store(y[i] + v * Vector::width);
  }
}

// Chains of subsets from their ends: each step then adds the gates that come in.
template <class T, int K, int V>
void few_features_tile(const FewFeaturesTile<T>& t) {
  using Vector = Vec<T>;
  const T* const x = t.x;
  const std::int64_t x_stride = t.x_stride;
  T* const y = t.y;
  Vector weights[K][V] = {};
  bool begins = true;
  for (int c = t.chains.count - 1; c >= 0; --c) {
    const ChainStep step = t.chains.steps[c];
    for (unsigned left = step.credited; left != 0; left &= left - 1, begins = false) {
      const T* of_gate = t.weights + __builtin_ctz(left) * t.gate_stride;
#pragma GCC unroll 32
      for (int k = 0; k < K; ++k) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v, of_gate += Vector::width) {
          const auto w = Vector::load(of_gate);
          weights[k][v] = begins ? w : weights[k][v].plus(w);
        }
      }
    }
    begins = step.begins;
    const std::uint16_t* rows = t.buckets.rows + t.buckets.begin[step.subset];
    const std::uint16_t* end = t.buckets.rows + t.buckets.begin[step.subset + 1];
    for (; rows + 2 <= end; rows += 2) add_few_features<T, K, V, 2>(x, x_stride, y, weights, rows);
    if (rows < end) add_few_features<T, K, V, 1>(x, x_stride, y, weights, rows);
  }
}

template <class T, int V>
GLAI_ALWAYS_INLINE void run_few_features_tile(std::int64_t features, const FewFeaturesTile<T>& t) {
  [&]<int... K>(std::integer_sequence<int, K...>) {
    static constexpr void (*kRun[])(const FewFeaturesTile<T>&) = {few_features_tile<T, K + 1, V>...};
    kRun[features - 1](t);
  }(std::make_integer_sequence<int, kFeaturesAtOnce>{});
}

// Columns [first, first + columns) of one path's weights: [K, width], lanes past the last column zero.
template <class T>
GLAI_ALWAYS_INLINE void pack_path(const GatedMatmulArgs& a, std::int64_t p, std::int64_t first,
                                  std::int64_t columns, std::int64_t width, T* out) {
  constexpr std::int64_t lanes = Vec<T>::width;
  const std::int64_t features = a.weight.shape[1], k_stride = a.weight.stride[1];
  const std::int64_t column_stride = a.weight.shape[2] == 1 ? 1 : a.weight.stride[2];
  const T* w = a.weight.as<const T>() + p * a.weight.stride[0] + first * column_stride;
  if (column_stride != 1) {
    for (std::int64_t j = 0; columns < width && j < features * width; ++j) out[j] = T(0);
    return pack_transposed(w, column_stride, features, columns, out, width);
  }
  for (std::int64_t k = 0; k < features; ++k, w += k_stride, out += width) {
    for (std::int64_t j = 0; j < width; j += lanes) {
      const std::int64_t left = columns - j;
      const Tail<T> tail(static_cast<int>(left < 0 ? 0 : left < lanes ? left : lanes));
      Vec<T>::load(w + j, tail).store(out + j);
    }
  }
}

// Sends for what pack_path reads next where a path's columns lie one behind another.
template <class T>
GLAI_ALWAYS_INLINE void prefetch_path(const GatedMatmulArgs& a, std::int64_t p, std::int64_t first,
                                      std::int64_t columns) {
  constexpr std::int64_t line = 64 / sizeof(T);
  if (a.weight.stride[1] != 1) return;
  const T* w = a.weight.as<const T>() + p * a.weight.stride[0] + first * a.weight.stride[2];
  for (std::int64_t j = 0; j < columns * a.weight.stride[2]; j += line) __builtin_prefetch(w + j, 0, 2);
}

// Rows of a tile [rows, width] to y, `count` columns of each.
template <class T>
GLAI_ALWAYS_INLINE void write_tile(const T* tile, std::int64_t rows, std::int64_t width,
                                   std::int64_t count, T* y, std::int64_t stride, bool streamed) {
  constexpr std::int64_t lanes = Vec<T>::width;
  const std::int64_t whole = count / lanes * lanes;
  const Tail<T> tail(static_cast<int>(count - whole));
  for (std::int64_t r = 0; r < rows; ++r, y += stride, tile += width) {
    if (streamed) {
      for (std::int64_t j = 0; j < whole; j += lanes) Vec<T>::load(tile + j).stream(y + j);
    } else {
      for (std::int64_t j = 0; j < whole; j += lanes) Vec<T>::load(tile + j).store(y + j);
    }
    if (whole < count) Vec<T>::load(tile + whole).store(y + whole, tail);
  }
  if (streamed) stream_fence();
}

// Of 1 to kRegisterFeatures features, and no bias.
template <class T>
void few_features_product(const GatedMatmulArgs& a, const GatedMatmulPlan& plan,
                          const PathOrder& paths) {
  constexpr std::int64_t lanes = Vec<T>::width;
  const std::int64_t n = a.x.shape[0], features = a.x.shape[1], columns = a.weight.shape[2];
  const std::int64_t w_words = words_per_row(a.n_gates);
  const int vecs = columns <= lanes ? 1 : 2;
  const EvenSplit passes(features, kFeaturesAtOnce);
  const std::int64_t width = vecs * lanes, path_size = features * width;
  const std::int64_t groups = (a.n_gates + plan.group_gates - 1) / plan.group_gates;
  const EvenSplit blocks(n, kFewFeaturesBlock);
  const std::int64_t tiles = (columns + width - 1) / width;
  const std::int64_t most_rows = blocks.parts == 0 ? 0 : blocks.size(0);
  const std::int64_t capacity = bucket_capacity(most_rows, 1 << plan.group_gates, 1);
  constexpr std::int64_t row_bytes = sizeof(std::uint16_t), bucket_bytes = sizeof(Buckets);
  const std::int64_t of_a_block = groups * (capacity * row_bytes + bucket_bytes) + 1;
  const std::int64_t most_blocks = kFewFeaturesBucketBytes / of_a_block + 1;
  std::int64_t batch = most_blocks < kFewFeaturesBlocks ? most_blocks : kFewFeaturesBlocks;
  if (blocks.parts < batch) batch = blocks.parts;
  const double work =
      static_cast<double>(n) * static_cast<double>(a.n_gates * columns) * static_cast<double>(features);
  // Weights that several blocks read are packed once.
  const bool ahead =
      blocks.parts > 1 &&
      tiles * a.n_gates * path_size * static_cast<std::int64_t>(sizeof(T)) <= kFewFeaturesPackedBytes;
  const bool streamed = n * columns * static_cast<std::int64_t>(sizeof(T)) >= kStreamedOutputBytes &&
                        reinterpret_cast<std::uintptr_t>(a.y.data) % (lanes * sizeof(T)) == 0 &&
                        a.y.stride[0] % lanes == 0;
  ScratchSizes shared;
  const auto groups_at = shared.add<GateGroup>(groups);
  const auto rows_at = shared.add<std::uint16_t>(batch * groups * capacity);
  const auto buckets_at = shared.add<Buckets>(batch * groups);
  const auto weights_at = shared.add<T>(ahead ? tiles * a.n_gates * path_size : 0);
  std::byte* memory = scratch(Scratch::call, shared.bytes());
  auto* gates = reinterpret_cast<GateGroup*>(memory + groups_at);
  auto* row_lists = reinterpret_cast<std::uint16_t*>(memory + rows_at);
  auto* buckets = reinterpret_cast<Buckets*>(memory + buckets_at);
  T* packed = reinterpret_cast<T*>(memory + weights_at);  // [tiles, groups, gates, D, width]
  for (std::int64_t g = 0; g < groups; ++g) {
    const std::int64_t first = g * plan.group_gates, left = a.n_gates - first;
    gates[g].count = static_cast<int>(left < plan.group_gates ? left : plan.group_gates);
    gates[g].flipped = 0;
    for (int i = 0; i < gates[g].count; ++i) gates[g].paths[i] = paths.order[first + i];
  }
  const auto pack_group = [&](std::int64_t g, std::int64_t tile, T* to) {
    const std::int64_t first = tile * width, left = columns - first;
    const std::int64_t count = left < width ? left : width;
    for (int i = 0; i < gates[g].count; ++i) {
      pack_path(a, gates[g].paths[i], first, count, width, to + i * path_size);
      if (g + 1 < groups && i < gates[g + 1].count) {
        prefetch_path<T>(a, gates[g + 1].paths[i], first, count);
      }
    }
  };
  if (ahead) {
    parallel_for(groups, static_cast<double>(a.n_gates * columns), a.exec.threads, [&](std::int64_t g) {
      for (std::int64_t tile = 0; tile < tiles; ++tile) {
        pack_group(g, tile, packed + (tile * a.n_gates + g * plan.group_gates) * path_size);
      }
    });
  }
  for (std::int64_t b0 = 0; b0 < blocks.parts; b0 += batch) {
    const std::int64_t b_count = blocks.parts - b0 < batch ? blocks.parts - b0 : batch;
    parallel_for(b_count * groups, work, a.exec.threads, [&](std::int64_t task) {
      const std::int64_t block = b0 + task / groups;
      buckets[task].rows = row_lists + task * capacity;
      fill_buckets(a.words.as<const std::uint32_t>() + blocks.begin(block) * w_words, w_words,
                   gates[task % groups], blocks.size(block), 1, buckets[task]);
    });
    parallel_for(b_count * tiles, work, a.exec.threads, [&](std::int64_t task) {
      const std::int64_t b = task / tiles, tile = task % tiles, first = tile * width;
      const std::int64_t row = blocks.begin(b0 + b), rows = blocks.size(b0 + b);
      const std::int64_t left = columns - first;
      ScratchSizes sizes;
      const auto y_at = sizes.add<T>(rows * width);
      const auto own_at = sizes.add<T>(plan.group_gates * path_size);
      std::byte* own = scratch(Scratch::task, sizes.bytes());
      T* y = reinterpret_cast<T*>(own + y_at);
      for (std::int64_t j = 0; j < rows * width; ++j) y[j] = T(0);
      for (std::int64_t g = 0; g < groups; ++g) {
        T* weights = reinterpret_cast<T*>(own + own_at);
        if (ahead) {
          weights = packed + (tile * a.n_gates + g * plan.group_gates) * path_size;
        } else {
          pack_group(g, tile, weights);
        }
        for (std::int64_t pass = 0; pass < passes.parts; ++pass) {
          const std::int64_t k = passes.begin(pass);
          const FewFeaturesTile<T> of{a.x.as<const T>() + row * a.x.stride[0] + k,
                                      a.x.stride[0],
                                      buckets[b * groups + g],
                                      kSubsetChains[gates[g].count],
                                      weights + k * width,
                                      path_size,
                                      y};
          if (vecs == 2) {
            run_few_features_tile<T, 2>(passes.size(pass), of);
          } else {
            run_few_features_tile<T, 1>(passes.size(pass), of);
          }
        }
      }
      write_tile(y, rows, width, left < width ? left : width, a.y.as<T>() + row * a.y.stride[0] + first,
                 a.y.stride[0], streamed);
    });
  }
}

}  // namespace glai::GLAI_ISA
