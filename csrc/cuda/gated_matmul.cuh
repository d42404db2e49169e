// gated_matmul and its input gradient, the dense form: the product over all paths, with the gated sum as
// its epilogue.
//
// A block owns rows of y by 16 columns of y. The tile of `a` stays in shared memory, a slice of the
// depth at a time; weights stream past it. Per group of paths the block sums a[n,:] w[p,:,c] over the
// slice, path beside path in its columns, and then adds each path's sums where the sample's gate is on:
// what is [N, P, C] never leaves the registers: a unit of the tile is a path. The gate selects sums
// rather than multiplying an operand by 0 or 1: so a NaN or infinity in a weight reaches only samples
// whose path is on, and the cost is one addition per sum and path beside a slice's multiply-adds.
//
// What bounds it on an H100, counted: a step of 64 bytes of depth, 256 rows by 128 columns, is 1 Mi
// multiply-adds, 256 cycles at the rate of wgmma and about 410 at that of mma.sync; a warp's 64 rows by
// 64 columns make it read 64 KiB of shared memory, 512 cycles; its 8 KiB of weights take about 290 from
// the second-level cache, where every block reads the same weights at about the same time.
#pragma once

#include "core/gates.hpp"
#include "core/tiling.hpp"
#include "cuda/gated_product.cuh"

namespace glai {

// kDepthInner: w_depth is 1, otherwise w_column.
template <class Tile, bool kDepthInner>
struct GatedMatmulBlock {
  using T = typename Tile::T;
  // A slice fills what shared memory GPUs with 99 KiB of it have left.
  static constexpr int kSliceBytes = (sizeof(T) == 2 ? 4 : 3) * kStepBytes;
  static constexpr int kDeep = 3;  // stages of weights
  static constexpr int kGroupColumns = 16 * Tile::kUnits;
  using A = OperandTile<T, Tile::kRows, true, kSliceBytes>;
  using B = OperandTile<T, kGroupColumns, kDepthInner>;
  using Bias = OperandTile<T, kGroupColumns, false, sizeof(T)>;
  static constexpr int kStageElements = B::kElements + Bias::kElements;
  static constexpr std::size_t kSharedBytes = (A::kElements + kDeep * kStageElements) * sizeof(T);
  static constexpr int kPaths = Tile::kUnits;  // of a group
  static_assert(kWordBits % kPaths == 0);      // a group's gates lie in one word
  static_assert(kPaths == kDensePaths);
  static_assert(kSharedBytes <= 99 * 1024);

  const GatedProduct<T>& q;
  std::int64_t row, column, split;

  GLAI_DEVICE static T* slice_a() { return reinterpret_cast<T*>(shared_memory()); }
  GLAI_DEVICE static T* stage_b(int stage) { return slice_a() + A::kElements + stage * kStageElements; }
  GLAI_DEVICE static T* stage_bias(int stage) { return stage_b(stage) + B::kElements; }

  GLAI_DEVICE void load_a(std::int64_t slice) const {
    load_tile<A, Tile::kThreads>(slice_a(), q.a_granule, [&](int i, int k) -> Chunk<T> {
      const std::int64_t n = row + i;
      return {q.a + n * q.a_stride + slice + k, n < q.n ? q.depth - slice - k : 0};
    });
  }

  GLAI_DEVICE void load_b(int stage, std::int64_t path, std::int64_t depth) const {
    load_tile<B, Tile::kThreads>(stage_b(stage), q.w_granule, [&](int i, int j) -> Chunk<T> {
      const int across = kDepthInner ? i : j;
      return q.template weights<kDepthInner>(
          path + across / kDenseColumns, depth + (kDepthInner ? j : i), column + across % kDenseColumns);
    });
  }

  GLAI_DEVICE void load_bias(int stage, std::int64_t path) const {
    load_tile<Bias, Tile::kThreads>(stage_bias(stage), q.bias_granule, [&](int, int j) -> Chunk<T> {
      const std::int64_t p = path + j / kDenseColumns, c = column + j % kDenseColumns;
      return {q.bias + p * q.bias_stride + c, p < q.p ? q.c - c : 0};
    });
  }

  // The word of gates that a group lies in, of each of a thread's rows.
  using Gates = std::uint32_t[Tile::kPerUnit / Tile::kPerRow];

  GLAI_DEVICE void read_gates(Gates& gates, std::int64_t path) const {
    const std::int64_t w = words_per_row(q.p);
    const int rows = clip(q.n - row, Tile::kRows);
    const std::uint32_t* word = q.words + (row + Tile::row(0)) * w + path / kWordBits;
    GLAI_UNROLL
    for (int e = 0; e < Tile::kPerUnit; e += Tile::kPerRow) {
      gates[e / Tile::kPerRow] = Tile::row(e) < rows ? *word : 0u;
      word += (Tile::row(Tile::kPerRow) - Tile::row(0)) * w;  // a thread's rows are equally far apart
    }
  }

  // sums = bias with the first slice, otherwise 0
  GLAI_DEVICE static void begin(Tile& tile, bool with_bias, const T* bias) {
    GLAI_UNROLL
    for (int unit = 0; unit < Tile::kUnits; ++unit) {
      GLAI_UNROLL
      for (int j = 0; j < Tile::kPerRow; ++j) {
        const auto sum = with_bias ? widen(bias[Bias::at(16 * unit + Tile::column(j), 0)]) : 0;
        GLAI_UNROLL
        for (int e = j; e < Tile::kPerUnit; e += Tile::kPerRow) tile.sum(unit, e) = sum;
      }
    }
  }

  using Sums = typename Tile::Sum[Tile::kPerUnit];

  // y += sums, where the gate is on; bit: where the group's first path lies in the words.
  GLAI_DEVICE static void add_gated(Tile& tile, const Gates& gates, int bit, Sums& y) {
    GLAI_UNROLL
    for (int unit = 0; unit < Tile::kUnits; ++unit) {
      const std::uint32_t on = 1u << (bit + unit);
      GLAI_UNROLL
      for (int e = 0; e < Tile::kPerUnit; ++e) {
        if ((gates[e / Tile::kPerRow] & on) != 0) y[e] += tile.sum(unit, e);
      }
    }
  }

  // Adds what depth from `slice` on gives, of paths [begin, end).
  GLAI_DEVICE void add_slice(std::int64_t slice, std::int64_t begin_path, std::int64_t end_path,
                             Sums& y) const {
    const std::int64_t left = q.depth - slice, depth = left < A::kDepth ? left : A::kDepth;
    const std::int64_t steps = depth > 0 ? (depth + B::kDepth - 1) / B::kDepth : 1;
    const bool with_bias = q.bias != nullptr && slice == 0;
    Tile tile;
    Gates gates;
    // Paths outside, depth inside: of the weights to load next, and of those in use.
    std::int64_t load_path = begin_path, path = begin_path;
    int load_depth = 0, at = 0;
    load_a(slice);  // lands with the first weights
    pipeline<kDeep>((end_path - begin_path) / kPaths * steps,
                    [&](int stage, std::int64_t) {
                      if (with_bias && load_depth == 0) load_bias(stage, load_path);
                      load_b(stage, load_path, slice + load_depth);
                      load_depth += B::kDepth;
                      if (load_depth >= depth) load_depth = 0, load_path += kPaths;
                    },
                    [&](int stage, std::int64_t) {
                      if (at == 0) {
                        if (path == begin_path || path % kWordBits == 0) read_gates(gates, path);
                        begin(tile, with_bias, stage_bias(stage));
                      }
                      tile.template multiply<A, B>(slice_a() + A::at(0, at), stage_b(stage));
                      at += B::kDepth;
                      if (at < depth) return;
                      add_gated(tile, gates, static_cast<int>(path % kWordBits), y);
                      at = 0, path += kPaths;
                    });
  }

  GLAI_DEVICE void run() const {
    const std::int64_t groups = (q.p + kPaths - 1) / kPaths;
    const std::int64_t begin_group = groups * split / q.splits;
    const std::int64_t end_group = groups * (split + 1) / q.splits;
    Sums y = {};
    for (std::int64_t slice = 0; slice == 0 || slice < q.depth; slice += A::kDepth) {
      if (slice > 0) sync_block();  // nobody reads the last slice any more
      add_slice(slice, begin_group * kPaths, end_group * kPaths, y);
    }
    GLAI_UNROLL
    for (int e = 0; e < Tile::kPerUnit; ++e) {
      q.store(split, row + Tile::row(e), column + Tile::column(e), y[e]);
    }
  }
};

// Blocks in turn share their weights.
template <class Tile, bool kDepthInner>
GLAI_KERNEL(Tile::kThreads)
gated_matmul_kernel(GatedProduct<typename Tile::T> q) {
  const std::int64_t row_tiles = (q.n + Tile::kRows - 1) / Tile::kRows;
  const std::int64_t column_tiles = (q.c + kDenseColumns - 1) / kDenseColumns;
  const std::int64_t block = block_index();
  GatedMatmulBlock<Tile, kDepthInner>{q, block % row_tiles * Tile::kRows,
                                      block / row_tiles % column_tiles * kDenseColumns,
                                      block / row_tiles / column_tiles}
      .run();
}

template <class Tile, bool kDepthInner>
void launch_gated_matmul_blocks(const GatedProduct<typename Tile::T>& q) {
  using Block = GatedMatmulBlock<Tile, kDepthInner>;
  const std::int64_t row_tiles = (q.n + Tile::kRows - 1) / Tile::kRows;
  const std::int64_t column_tiles = (q.c + kDenseColumns - 1) / kDenseColumns;
  launch({q.op, q.device, q.stream, row_tiles * column_tiles * q.splits, Tile::kThreads,
          Block::kSharedBytes},
         gated_matmul_kernel<Tile, kDepthInner>, q);
}

template <class Tile>
void launch_gated_matmul_rows(const GatedProduct<typename Tile::T>& q) {
  q.depth_inner() ? launch_gated_matmul_blocks<Tile, true>(q)
                  : launch_gated_matmul_blocks<Tile, false>(q);
}

// Few: the tile for few rows, which may be the other.
template <class Tile, class Few>
void launch_dense_product(const GatedProduct<typename Tile::T>& q) {
  static_assert(Tile::kRows == tile_rows(Form::dense, sizeof(typename Tile::Sum)));
  static_assert(Few::kRows == few_tile_rows(Form::dense, sizeof(typename Tile::Sum)));
  if constexpr (Few::kRows < Tile::kRows) {
    if (q.rows == Few::kRows) return launch_gated_matmul_rows<Few>(q);
  }
  launch_gated_matmul_rows<Tile>(q);
}

}  // namespace glai
