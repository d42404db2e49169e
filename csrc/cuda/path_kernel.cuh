// path_kernel: the product of two sets of samples, each sum finished in registers by the units that both
// have on.
#pragma once

#include "core/args.hpp"
#include "core/gates.hpp"
#include "cuda/tiles/launch.cuh"
#include "cuda/tiles/numbers.cuh"
#include "cuda/tiles/pipeline.cuh"

namespace glai {

struct UnitWords {
  const std::uint32_t *a, *b;  // [Na, n_words], [Nb, n_words]
  std::int64_t n_words;
};

// out[n,m] = (a[n] . b[m] + 1) * prod over layers of (units on in both + 1)
template <class T>
struct PathKernelProduct {
  int device;
  void* stream;
  std::int64_t n, m, d;
  const T *a, *b;
  std::int64_t a_stride, b_stride;
  UnitWords layers[kMaxCudaLayers];
  int n_layers;
  bool symmetric;  // b is a: tiles below the diagonal are mirrored from those above
  T* out;
  std::int64_t out_stride;
  int a_granule, b_granule;  // copy_granule of the rows
};

template <class Tile>
struct PathKernelBlock {
  using T = typename Tile::T;
  using A = OperandTile<T, Tile::kRows, true>;
  using B = OperandTile<T, 16 * Tile::kUnits, true>;
  static constexpr int kColumns = 16 * Tile::kUnits;
  static constexpr std::size_t kSharedBytes = kStages * (A::kElements + B::kElements) * sizeof(T);

  const PathKernelProduct<T>& q;
  std::int64_t row, column;

  GLAI_DEVICE T* stage_a(int stage) const {
    return reinterpret_cast<T*>(shared_memory()) + stage * (A::kElements + B::kElements);
  }
  GLAI_DEVICE T* stage_b(int stage) const { return stage_a(stage) + A::kElements; }

  GLAI_DEVICE void multiply(Tile& tile) const {
    pipeline(
        (q.d + A::kDepth - 1) / A::kDepth,
        [&](int stage, std::int64_t step) {
          const std::int64_t depth = step * A::kDepth;
          load_tile<A, Tile::kThreads>(stage_a(stage), q.a_granule, [&](int i, int k) -> Chunk<T> {
            const std::int64_t n = row + i;
            return {q.a + n * q.a_stride + depth + k, n < q.n ? q.d - depth - k : 0};
          });
          load_tile<B, Tile::kThreads>(stage_b(stage), q.b_granule, [&](int i, int k) -> Chunk<T> {
            const std::int64_t m = column + i;
            return {q.b + m * q.b_stride + depth + k, m < q.m ? q.d - depth - k : 0};
          });
        },
        [&](int stage, std::int64_t) { tile.template multiply<A, B>(stage_a(stage), stage_b(stage)); });
  }

  // kWords of a layer's words for every row and then every column, where the stages were; rows of words
  // are padded so that neighbouring samples fall on different banks.
  static constexpr int kWords = 8;
  static_assert((Tile::kRows + kColumns) * (kWords + 1) * sizeof(std::uint32_t) <= kSharedBytes);
  static GLAI_DEVICE std::uint32_t& shared_word(int sample, int j) {
    return reinterpret_cast<std::uint32_t*>(shared_memory())[sample * (kWords + 1) + j];
  }

  GLAI_DEVICE void load_words(const UnitWords& layer, std::int64_t first) const {
    for (int i = thread_index(); i < (Tile::kRows + kColumns) * kWords; i += Tile::kThreads) {
      const int sample = i / kWords, j = i % kWords;
      const bool of_row = sample < Tile::kRows;
      const std::int64_t n = of_row ? row + sample : column + sample - Tile::kRows;
      const bool inside = n < (of_row ? q.n : q.m) && first + j < layer.n_words;
      shared_word(sample, j) = inside ? (of_row ? layer.a : layer.b)[n * layer.n_words + first + j] : 0u;
    }
  }

  // sums *= 1 + units of the layer on in both
  GLAI_DEVICE void multiply_shared_units(Tile& tile, const UnitWords& layer) const {
    int shared[Tile::kUnits][Tile::kPerUnit] = {};
    for (std::int64_t first = 0; first < layer.n_words; first += kWords) {
      const auto left =
          static_cast<int>(layer.n_words - first < kWords ? layer.n_words - first : kWords);
      sync_block();  // nobody reads what was there any more
      load_words(layer, first);
      sync_block();
      for (int j = 0; j < left; ++j) {
        std::uint32_t of_row[Tile::kPerUnit];
        GLAI_UNROLL
        for (int e = 0; e < Tile::kPerUnit; ++e) of_row[e] = shared_word(Tile::row(e), j);
        GLAI_UNROLL
        for (int unit = 0; unit < Tile::kUnits; ++unit) {
          GLAI_UNROLL
          for (int e = 0; e < Tile::kPerUnit; ++e) {
            const int of_column = Tile::kRows + 16 * unit + Tile::column(e);
            shared[unit][e] += popcount(of_row[e] & shared_word(of_column, j));
          }
        }
      }
    }
    GLAI_UNROLL
    for (int unit = 0; unit < Tile::kUnits; ++unit) {
      GLAI_UNROLL
      for (int e = 0; e < Tile::kPerUnit; ++e) {
        tile.sum(unit, e) *= static_cast<typename Tile::Sum>(1 + shared[unit][e]);
      }
    }
  }

  GLAI_DEVICE void run() const {
    Tile tile;
    GLAI_UNROLL
    for (int unit = 0; unit < Tile::kUnits; ++unit) {
      GLAI_UNROLL
      for (int e = 0; e < Tile::kPerUnit; ++e) tile.sum(unit, e) = 1;
    }
    multiply(tile);
    for (int l = 0; l < q.n_layers; ++l) multiply_shared_units(tile, q.layers[l]);
    GLAI_UNROLL
    for (int unit = 0; unit < Tile::kUnits; ++unit) {
      GLAI_UNROLL
      for (int e = 0; e < Tile::kPerUnit; ++e) {
        const std::int64_t n = row + Tile::row(e), m = column + 16 * unit + Tile::column(e);
        if (n >= q.n || m >= q.m || (q.symmetric && n > m)) continue;
        const T value = narrow<T>(tile.sum(unit, e));
        q.out[n * q.out_stride + m] = value;
        if (q.symmetric && n < m) q.out[m * q.out_stride + n] = value;
      }
    }
  }
};

template <class Tile>
GLAI_KERNEL(Tile::kThreads)
path_kernel_kernel(PathKernelProduct<typename Tile::T> q) {
  using Block = PathKernelBlock<Tile>;
  const std::int64_t row_tiles = (q.n + Tile::kRows - 1) / Tile::kRows;
  const std::int64_t row = block_index() % row_tiles * Tile::kRows;
  const std::int64_t column = block_index() / row_tiles * Block::kColumns;
  if (q.symmetric && row >= column + Block::kColumns) return;
  Block{q, row, column}.run();
}

}  // namespace glai
