// gated_matmul and its input gradient, the dense form: the product over all paths, with the gated sum as
// its epilogue.
//
// A block owns rows of y by columns of y. Per group of paths it sums a[n,:] w[p,:,c] over the whole
// depth, path beside path in its columns, and then adds each path's sums where the sample's gate is on:
// what is [N, P, C] never leaves the registers. The gate selects sums rather than multiplying an operand
// by 0 or 1: so a NaN or infinity in a weight reaches only samples whose path is on, the tile of `a` is
// the same for all paths of a group, and the cost is one addition per sum and path beside depth
// multiply-adds.
#pragma once

#include "core/gates.hpp"
#include "core/tiling.hpp"
#include "cuda/gated_product.cuh"

namespace glai {

// kColumns: columns of y that a block owns, 16 or 64. kDepthInner: w_depth is 1, otherwise w_column.
template <class Tile, int kColumns, bool kDepthInner>
struct GatedMatmulBlock {
  using T = typename Tile::T;
  using A = OperandTile<T, Tile::kRows, true>;
  using B = OperandTile<T, 16 * Tile::kUnits, kDepthInner>;
  static constexpr int kUnitsPerPath = kColumns / 16;
  static constexpr int kPaths = Tile::kUnits / kUnitsPerPath;  // of a group
  static_assert(kWordBits % kPaths == 0);                      // a group's gates lie in one word
  static_assert(Tile::kRows == tile_rows(Form::dense, sizeof(typename Tile::Sum)));
  static_assert(16 * Tile::kUnits == kDenseGroupColumns);
  static constexpr std::size_t kSharedBytes = kStages * (A::kElements + B::kElements) * sizeof(T);

  const GatedProduct<T>& q;
  std::int64_t row, column, split;

  GLAI_DEVICE T* stage_a(int stage) const {
    return reinterpret_cast<T*>(shared_memory()) + stage * (A::kElements + B::kElements);
  }
  GLAI_DEVICE T* stage_b(int stage) const { return stage_a(stage) + A::kElements; }

  GLAI_DEVICE void load(int stage, std::int64_t path, std::int64_t depth) const {
    load_tile<A, Tile::kThreads>(stage_a(stage), q.a_granule, [&](int i, int k) -> Chunk<T> {
      const std::int64_t n = row + i;
      return {q.a + n * q.a_stride + depth + k, n < q.n ? q.depth - depth - k : 0};
    });
    load_tile<B, Tile::kThreads>(stage_b(stage), q.w_granule, [&](int i, int j) -> Chunk<T> {
      const int across = kDepthInner ? i : j;
      return q.template weights<kDepthInner>(path + across / kColumns, depth + (kDepthInner ? j : i),
                                             column + across % kColumns);
    });
  }

  // sums = bias
  GLAI_DEVICE void begin(Tile& tile, std::int64_t path) const {
    GLAI_UNROLL
    for (int unit = 0; unit < Tile::kUnits; ++unit) {
      GLAI_UNROLL
      for (int e = 0; e < Tile::kPerUnit; ++e) {
        tile.sum(unit, e) =
            q.bias_of(path + unit / kUnitsPerPath, column + unit % kUnitsPerPath * 16 + Tile::column(e));
      }
    }
  }

  // y += sums, where the gate is on.
  GLAI_DEVICE void add_gated(Tile& tile, std::int64_t path,
                             typename Tile::Sum (&y)[kUnitsPerPath][Tile::kPerUnit]) const {
    GLAI_UNROLL
    for (int e = 0; e < Tile::kPerUnit; ++e) {
      const std::int64_t n = row + Tile::row(e);
      const std::uint32_t gates =
          n < q.n ? q.words[n * words_per_row(q.p) + path / kWordBits] >> (path % kWordBits) : 0u;
      GLAI_UNROLL
      for (int unit = 0; unit < Tile::kUnits; ++unit) {
        if ((gates >> (unit / kUnitsPerPath) & 1u) != 0) {
          y[unit % kUnitsPerPath][e] += tile.sum(unit, e);
        }
      }
    }
  }

  GLAI_DEVICE void run() const {
    const std::int64_t groups = (q.p + kPaths - 1) / kPaths;
    const std::int64_t begin_group = groups * split / q.splits;
    const std::int64_t end_group = groups * (split + 1) / q.splits;
    const std::int64_t depth_steps = q.depth > 0 ? (q.depth + A::kDepth - 1) / A::kDepth : 1;
    Tile tile;
    typename Tile::Sum y[kUnitsPerPath][Tile::kPerUnit] = {};
    // Paths outside, depth inside: of the tile to load next, and of the one in use.
    std::int64_t load_path = begin_group * kPaths, load_depth = 0;
    std::int64_t path = load_path, depth = 0;
    pipeline((end_group - begin_group) * depth_steps,
             [&](int stage, std::int64_t) {
               load(stage, load_path, load_depth);
               load_depth += A::kDepth;
               if (load_depth >= q.depth) load_depth = 0, load_path += kPaths;
             },
             [&](int stage, std::int64_t) {
               if (depth == 0) begin(tile, path);
               tile.template multiply<A, B>(stage_a(stage), stage_b(stage));
               depth += A::kDepth;
               if (depth < q.depth) return;
               add_gated(tile, path, y);
               depth = 0, path += kPaths;
             });
    GLAI_UNROLL
    for (int unit = 0; unit < kUnitsPerPath; ++unit) {
      GLAI_UNROLL
      for (int e = 0; e < Tile::kPerUnit; ++e) {
        q.store(split, row + Tile::row(e), column + unit * 16 + Tile::column(e), y[unit][e]);
      }
    }
  }
};

// Blocks in turn share their weights.
template <class Tile, int kColumns, bool kDepthInner>
GLAI_KERNEL_AT_ONCE(Tile::kThreads, blocks_at_once(Form::dense))
gated_matmul_kernel(GatedProduct<typename Tile::T> q) {
  const std::int64_t row_tiles = (q.n + Tile::kRows - 1) / Tile::kRows;
  const std::int64_t column_tiles = (q.c + kColumns - 1) / kColumns;
  const std::int64_t block = block_index();
  GatedMatmulBlock<Tile, kColumns, kDepthInner>{q, block % row_tiles * Tile::kRows,
                                                block / row_tiles % column_tiles * kColumns,
                                                block / row_tiles / column_tiles}
      .run();
}

template <class Tile, int kColumns, bool kDepthInner>
void launch_gated_matmul_blocks(const GatedProduct<typename Tile::T>& q) {
  using Block = GatedMatmulBlock<Tile, kColumns, kDepthInner>;
  const std::int64_t row_tiles = (q.n + Tile::kRows - 1) / Tile::kRows;
  const std::int64_t column_tiles = (q.c + kColumns - 1) / kColumns;
  launch({q.op, q.device, q.stream, row_tiles * column_tiles * q.splits, Tile::kThreads,
          Block::kSharedBytes},
         gated_matmul_kernel<Tile, kColumns, kDepthInner>, q);
}

template <class Tile>
void launch_dense_product(const GatedProduct<typename Tile::T>& q) {
  if (q.columns == 16) {
    q.depth_inner() ? launch_gated_matmul_blocks<Tile, 16, true>(q)
                    : launch_gated_matmul_blocks<Tile, 16, false>(q);
  } else {
    q.depth_inner() ? launch_gated_matmul_blocks<Tile, 64, true>(q)
                    : launch_gated_matmul_blocks<Tile, 64, false>(q);
  }
}

}  // namespace glai
