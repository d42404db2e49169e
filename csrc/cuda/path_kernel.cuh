// path_kernel: the product of two sets of samples, each sum finished in registers by the units that both
// have on.
#pragma once

#include "core/args.hpp"
#include "core/gates.hpp"
#include "cuda/launch.cuh"
#include "cuda/numbers.cuh"
#include "cuda/pipeline.cuh"

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

  // sums *= 1 + units of the layer on in both
  GLAI_DEVICE void multiply_shared_units(Tile& tile, const UnitWords& layer) const {
    int shared[Tile::kUnits][Tile::kPerUnit] = {};
    for (std::int64_t j = 0; j < layer.n_words; ++j) {
      std::uint32_t of_row[Tile::kPerUnit];
      GLAI_UNROLL
      for (int e = 0; e < Tile::kPerUnit; ++e) {
        const std::int64_t n = row + Tile::row(e);
        of_row[e] = n < q.n ? layer.a[n * layer.n_words + j] : 0u;
      }
      GLAI_UNROLL
      for (int unit = 0; unit < Tile::kUnits; ++unit) {
        GLAI_UNROLL
        for (int e = 0; e < Tile::kPerUnit; ++e) {
          const std::int64_t m = column + 16 * unit + Tile::column(e);
          const std::uint32_t of_column = m < q.m ? layer.b[m * layer.n_words + j] : 0u;
          shared[unit][e] += popcount(of_row[e] & of_column);
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
