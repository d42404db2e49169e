// gated_matmul and its input gradient by compaction: per path, only the rows that have it on are
// gathered and multiplied, so that the work falls with the density.
//
// A block owns rows of y by 64 columns, as sums in shared memory. It lists, for a few paths at a time,
// which of its rows have the path on; then it goes path by path: the copies gather up to 64 of these
// rows of `a`, tensor cores multiply them by the path's weights, and the sums are added to their rows of
// y. A path's rows are distinct and paths are a barrier apart, so every element of y is added to in the
// order of paths, without atomics. What a row that is off holds has no effect on others, nor have the
// weights of a path that a row has off on that row. In the reference form the rows of a path are those
// that differ from the majority's gate, and are subtracted where that is on.
#pragma once

#include "core/gates.hpp"
#include "core/tiling.hpp"
#include "cuda/gated_product.cuh"

namespace glai {

// Rows of y that a block owns, and stages. Every block reads all weights: many rows make few blocks.
template <class Sum>
struct ManyRows {  // one block on an H100
  static constexpr int kRows = static_cast<int>(tile_rows(Form::compaction, sizeof(Sum)));
  static constexpr int kDeep = 4, kAtOnce = 1;
};
template <class Sum>
struct FewRows {  // two blocks on an H100, one on GPUs with 99 KiB
  static constexpr int kRows = static_cast<int>(few_tile_rows(Form::compaction, sizeof(Sum)));
  static constexpr int kDeep = 3, kAtOnce = 2;
};

// Tile: rows gathered at a time by columns of y. kDepthInner: w_depth is 1, otherwise w_column.
template <class Tile, bool kDepthInner, class Rows>
struct CompactionBlock {
  using T = typename Tile::T;
  using Sum = typename Tile::Sum;
  static constexpr int kColumns = 16 * Tile::kUnits;
  static constexpr int kRows = Rows::kRows, kDeep = Rows::kDeep;
  static constexpr int kPaths = 16;  // listed at a time: bits of one word
  static constexpr int kRounds =
      (kRows + Tile::kThreads - 1) / Tile::kThreads;  // a thread lists so many
  using Place = std::conditional_t<(kRows > 256), std::uint16_t, std::uint8_t>;
  static_assert(kRows % kWordBits == 0 && kRows <= 1 << 16);
  static_assert(kColumns == kCompactionColumns);

  using A = OperandTile<T, Tile::kRows, true>;
  using B = OperandTile<T, kColumns, kDepthInner>;
  static constexpr std::size_t kSumBytes = kRows * kColumns * sizeof(Sum);
  static constexpr std::size_t kStageBytes = kDeep * (A::kElements + B::kElements) * sizeof(T);
  static constexpr int kRowWords = kRows / kWordBits;
  static constexpr std::size_t kSharedBytes =
      kSumBytes + kStageBytes +
      kPaths * ((kRowWords + 1) * sizeof(std::uint32_t) + kRows * sizeof(Place));

  static_assert(kSharedBytes <= (kRows == FewRows<Sum>::kRows ? 99 : 227) * 1024);

  const GatedProduct<T>& q;
  std::int64_t row, column, split;

  // Its columns are exchanged so that the rows that a warp adds to lie on different banks.
  GLAI_DEVICE static Sum& y(int r, int c) {
    return reinterpret_cast<Sum*>(shared_memory())[r * kColumns + (c ^ r % 4 * 8)];
  }
  GLAI_DEVICE static T* stage_a(int stage) {
    return reinterpret_cast<T*>(shared_memory() + kSumBytes) + stage * (A::kElements + B::kElements);
  }
  GLAI_DEVICE static T* stage_b(int stage) { return stage_a(stage) + A::kElements; }
  // [kPaths][kRowWords]: bits over the block's rows.
  GLAI_DEVICE static std::uint32_t* on(int path) {
    return reinterpret_cast<std::uint32_t*>(shared_memory() + kSumBytes + kStageBytes) +
           path * kRowWords;
  }
  GLAI_DEVICE static std::uint32_t* counts() { return on(kPaths); }
  GLAI_DEVICE static Place* listed(int path) {
    return reinterpret_cast<Place*>(counts() + kPaths) + path * kRows;
  }

  // Lists the rows of each of `count` paths, whose gates lie in one word. The first barrier is also what
  // keeps the last lists until nobody reads them any more.
  GLAI_DEVICE void list_rows(std::int64_t path, int count, std::uint32_t majority) const {
    const std::int64_t word = path / kWordBits;
    std::uint32_t gates[kRounds];  // of rows thread_index(), + kThreads, ...
    GLAI_UNROLL
    for (int round = 0; round < kRounds; ++round) {
      const int mine = round * Tile::kThreads + thread_index();
      const bool some = mine < kRows && row + mine < q.n;
      const std::int64_t at = (row + mine) * words_per_row(q.p) + word;
      gates[round] = some ? (q.words[at] >> (path % kWordBits)) ^ majority : 0u;
      for (int j = 0; j < count; ++j) {
        const std::uint32_t votes = ballot((gates[round] >> j & 1u) != 0);
        if (lane_index() == 0 && mine < kRows) on(j)[mine / kWordBits] = votes;
      }
    }
    sync_block();
    for (int j = 0; j < count; ++j) {
      int total = 0, places[kRounds] = {};
      for (int w = 0; w < kRowWords; ++w) {
        GLAI_UNROLL
        for (int round = 0; round < kRounds; ++round) {
          if (w == round * (Tile::kThreads / kWarpSize) + warp_index()) {
            places[round] = total + popcount(on(j)[w] & ((1u << lane_index()) - 1u));
          }
        }
        total += popcount(on(j)[w]);
      }
      GLAI_UNROLL
      for (int round = 0; round < kRounds; ++round) {
        if ((gates[round] >> j & 1u) != 0) {
          listed(j)[places[round]] = static_cast<Place>(round * Tile::kThreads + thread_index());
        }
      }
      if (thread_index() == j) counts()[j] = static_cast<std::uint32_t>(total);
    }
    sync_block();
  }

  // Of the listed paths: which one, how many rows have it on, the first of those taken, where in depth.
  struct Step {
    int path, rows, first;
    std::int64_t depth;
  };

  GLAI_DEVICE static void seek(Step& s, int count) {
    for (s.rows = 0; s.path < count && s.rows == 0;) {
      s.rows = static_cast<int>(counts()[s.path]);
      if (s.rows == 0) ++s.path;
    }
    s.first = 0;
  }

  // Depth inside, rows, paths outside.
  GLAI_DEVICE void advance(Step& s, int count) const {
    s.depth += A::kDepth;
    if (s.depth < q.depth) return;
    s.depth = 0;
    s.first += Tile::kRows;
    if (s.first < s.rows) return;
    ++s.path;
    seek(s, count);
  }

  GLAI_DEVICE void load(int stage, std::int64_t first_path, const Step& s) const {
    load_tile<A, Tile::kThreads>(stage_a(stage), q.a_granule, [&](int i, int k) -> Chunk<T> {
      if (s.first + i >= s.rows) return {q.a, 0};
      const std::int64_t n = row + listed(s.path)[s.first + i];
      return {q.a + n * q.a_stride + s.depth + k, q.depth - s.depth - k};
    });
    load_tile<B, Tile::kThreads>(stage_b(stage), q.w_granule, [&](int i, int j) -> Chunk<T> {
      return q.template weights<kDepthInner>(first_path + s.path, s.depth + (kDepthInner ? j : i),
                                             column + (kDepthInner ? i : j));
    });
  }

  // sums = bias
  GLAI_DEVICE void begin(Tile& tile, std::int64_t path) const {
    GLAI_UNROLL
    for (int unit = 0; unit < Tile::kUnits; ++unit) {
      GLAI_UNROLL
      for (int e = 0; e < Tile::kPerUnit; ++e) {
        tile.sum(unit, e) = q.bias_of(path, column + unit * 16 + Tile::column(e));
      }
    }
  }

  // y += sums, or less them, in the rows that were gathered.
  GLAI_DEVICE static void add(Tile& tile, const Step& s, std::uint32_t majority) {
    const Sum sign = (majority >> s.path & 1u) != 0 ? -1 : 1;
    GLAI_UNROLL
    for (int e = 0; e < Tile::kPerUnit; ++e) {
      const int i = s.first + Tile::row(e);
      if (i >= s.rows) continue;
      const int r = listed(s.path)[i];
      GLAI_UNROLL
      for (int unit = 0; unit < Tile::kUnits; ++unit) {
        y(r, unit * 16 + Tile::column(e)) += sign * tile.sum(unit, e);
      }
    }
  }

  GLAI_DEVICE void add_paths(std::int64_t first_path, int count) const {
    // The gates of these paths that most rows have on, the first in the lowest bit.
    const std::uint32_t majority = q.majority_word(first_path / kWordBits) >> (first_path % kWordBits);
    list_rows(first_path, count, majority);
    std::int64_t tiles = 0;
    for (int j = 0; j < count; ++j) tiles += (counts()[j] + Tile::kRows - 1) / Tile::kRows;
    const std::int64_t depth_steps = q.depth > 0 ? (q.depth + A::kDepth - 1) / A::kDepth : 1;
    Tile tile;
    Step next = {}, now = {};  // to load, and in use
    seek(next, count), seek(now, count);
    pipeline<kDeep>(
        tiles * depth_steps,
        [&](int stage, std::int64_t) {
          load(stage, first_path, next);
          advance(next, count);
        },
        [&](int stage, std::int64_t) {
          if (now.depth == 0) begin(tile, first_path + now.path);
          tile.template multiply<A, B>(stage_a(stage), stage_b(stage), now.rows - now.first);
          if (now.depth + A::kDepth >= q.depth) add(tile, now, majority);
          advance(now, count);
        });
  }

  GLAI_DEVICE void run() const {
    for (int i = thread_index(); i < kRows * kColumns; i += Tile::kThreads) {
      y(i / kColumns, i % kColumns) = 0;
    }
    const std::int64_t end = q.p * (split + 1) / q.splits;
    for (std::int64_t path = q.p * split / q.splits; path < end;) {
      const std::int64_t in_word = kPaths - path % kPaths;
      const int count = static_cast<int>(end - path < in_word ? end - path : in_word);
      add_paths(path, count);
      path += count;
    }
    sync_block();
    for (int i = thread_index(); i < kRows * kColumns; i += Tile::kThreads) {
      const int r = i / kColumns, c = i % kColumns;
      q.store(split, row + r, column + c, y(r, c));
    }
  }
};

// Blocks in turn share their weights.
template <class Tile, bool kDepthInner, class Rows>
GLAI_KERNEL_AT_ONCE(Tile::kThreads, Rows::kAtOnce)
gated_matmul_compaction_kernel(GatedProduct<typename Tile::T> q) {
  using Block = CompactionBlock<Tile, kDepthInner, Rows>;
  const std::int64_t row_tiles = (q.n + Block::kRows - 1) / Block::kRows;
  const std::int64_t column_tiles = (q.c + Block::kColumns - 1) / Block::kColumns;
  const std::int64_t block = block_index();
  Block{q, block % row_tiles * Block::kRows, block / row_tiles % column_tiles * Block::kColumns,
        block / row_tiles / column_tiles}
      .run();
}

template <class Tile, bool kDepthInner, class Rows>
void launch_compaction_blocks(const GatedProduct<typename Tile::T>& q) {
  using Block = CompactionBlock<Tile, kDepthInner, Rows>;
  const std::int64_t row_tiles = (q.n + Block::kRows - 1) / Block::kRows;
  const std::int64_t column_tiles = (q.c + Block::kColumns - 1) / Block::kColumns;
  launch({q.op, q.device, q.stream, row_tiles * column_tiles * q.splits, Tile::kThreads,
          Block::kSharedBytes},
         gated_matmul_compaction_kernel<Tile, kDepthInner, Rows>, q);
}

// A row's sums are added up in the same order by blocks of many rows and of few.
template <class Tile, bool kDepthInner>
void launch_compaction_rows(const GatedProduct<typename Tile::T>& q) {
  using Many = ManyRows<typename Tile::Sum>;
  using Few = FewRows<typename Tile::Sum>;
  const bool fits =
      CompactionBlock<Tile, kDepthInner, Many>::kSharedBytes <= most_shared_bytes(q.op, q.device);
  fits&& q.n > Few::kRows ? launch_compaction_blocks<Tile, kDepthInner, Many>(q)
                          : launch_compaction_blocks<Tile, kDepthInner, Few>(q);
}

template <class Tile>
void launch_compaction_product(const GatedProduct<typename Tile::T>& q) {
  q.depth_inner() ? launch_compaction_rows<Tile, true>(q) : launch_compaction_rows<Tile, false>(q);
}

}  // namespace glai
