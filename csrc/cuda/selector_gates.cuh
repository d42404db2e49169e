// selector_gates: the dense product of samples and units, whose sums become bits where they were made:
// pre-activations never leave the chip.
#pragma once

#include "core/gates.hpp"
#include "cuda/launch.cuh"
#include "cuda/numbers.cuh"
#include "cuda/pipeline.cuh"

namespace glai {

// Bit h of words[n]: bias[h] + sum_k x[n,k] w[h,k] > 0
template <class T>
struct SelectorProduct {
  int device;
  void* stream;
  std::int64_t n, d, h;
  const T* x;
  std::int64_t x_stride;
  const T* w;
  std::int64_t w_unit, w_depth;  // strides, one of them 1
  const T* bias;                 // or null
  std::uint32_t* words;
  int x_granule, w_granule;  // copy_granule of the rows

  bool depth_inner() const { return w_depth == 1 || d == 1; }
};

// kDepthInner: w_depth is 1, otherwise w_unit.
template <class Tile, bool kDepthInner>
struct SelectorGatesBlock {
  using T = typename Tile::T;
  static constexpr int kColumns = 16 * Tile::kUnits;  // units of the layer
  using A = OperandTile<T, Tile::kRows, true>;
  using B = OperandTile<T, kColumns, kDepthInner>;
  static constexpr std::size_t kSharedBytes = kStages * (A::kElements + B::kElements) * sizeof(T);

  const SelectorProduct<T>& q;
  std::int64_t row, column;

  GLAI_DEVICE T* stage_a(int stage) const {
    return reinterpret_cast<T*>(shared_memory()) + stage * (A::kElements + B::kElements);
  }
  GLAI_DEVICE T* stage_b(int stage) const { return stage_a(stage) + A::kElements; }

  GLAI_DEVICE void load(int stage, std::int64_t depth) const {
    load_tile<A, Tile::kThreads>(stage_a(stage), q.x_granule, [&](int i, int k) -> Chunk<T> {
      const std::int64_t n = row + i;
      return {q.x + n * q.x_stride + depth + k, n < q.n ? q.d - depth - k : 0};
    });
    load_tile<B, Tile::kThreads>(stage_b(stage), q.w_granule, [&](int i, int j) -> Chunk<T> {
      const std::int64_t h = column + (kDepthInner ? i : j), k = depth + (kDepthInner ? j : i);
      const bool inside = kDepthInner ? h < q.h : k < q.d;
      return {q.w + h * q.w_unit + k * q.w_depth, inside ? (kDepthInner ? q.d - k : q.h - h) : 0};
    });
  }

  // sums = bias
  GLAI_DEVICE void begin(Tile& tile) const {
    GLAI_UNROLL
    for (int unit = 0; unit < Tile::kUnits; ++unit) {
      GLAI_UNROLL
      for (int e = 0; e < Tile::kPerUnit; ++e) {
        const std::int64_t h = column + 16 * unit + Tile::column(e);
        tile.sum(unit, e) = q.bias != nullptr && h < q.h ? widen(q.bias[h]) : 0;
      }
    }
  }

  // A byte per sum, where the stages were, so that a warp can vote on 32 neighbouring units of a sample
  // whatever sums its threads hold; rows are padded so that neighbouring samples fall on different
  // banks.
  static constexpr int kWords = kColumns / kWordBits;
  static constexpr int kBytesPerRow = kColumns + 4;
  static_assert(Tile::kRows * kBytesPerRow <= kSharedBytes);
  static GLAI_DEVICE std::uint8_t& shared_on(int sample, int unit) {
    return reinterpret_cast<std::uint8_t*>(shared_memory())[sample * kBytesPerRow + unit];
  }

  GLAI_DEVICE void store(Tile& tile) const {
    sync_block();  // nobody reads the last stage any more
    GLAI_UNROLL
    for (int unit = 0; unit < Tile::kUnits; ++unit) {
      GLAI_UNROLL
      for (int e = 0; e < Tile::kPerUnit; ++e) {
        shared_on(Tile::row(e), 16 * unit + Tile::column(e)) = tile.sum(unit, e) > 0;
      }
    }
    sync_block();
    for (int i = warp_index(); i < Tile::kRows * kWords; i += Tile::kThreads / kWarpSize) {
      const int sample = i / kWords, unit = i % kWords * kWordBits + lane_index();
      const std::uint32_t word = ballot(column + unit < q.h && shared_on(sample, unit) != 0);
      const std::int64_t n = row + sample, w = words_per_row(q.h), j = column / kWordBits + i % kWords;
      if (lane_index() == 0 && n < q.n && j < w) q.words[n * w + j] = word;
    }
  }

  GLAI_DEVICE void run() const {
    Tile tile;
    begin(tile);
    pipeline(
        (q.d + A::kDepth - 1) / A::kDepth,
        [&](int stage, std::int64_t step) { load(stage, step * A::kDepth); },
        [&](int stage, std::int64_t) { tile.template multiply<A, B>(stage_a(stage), stage_b(stage)); });
    store(tile);
  }
};

// Blocks in turn share their weights.
template <class Tile, bool kDepthInner>
GLAI_KERNEL(Tile::kThreads)
selector_gates_kernel(SelectorProduct<typename Tile::T> q) {
  using Block = SelectorGatesBlock<Tile, kDepthInner>;
  const std::int64_t row_tiles = (q.n + Tile::kRows - 1) / Tile::kRows;
  Block{q, block_index() % row_tiles * Tile::kRows, block_index() / row_tiles * Block::kColumns}.run();
}

template <class Tile, bool kDepthInner>
void launch_selector_gates_blocks(const SelectorProduct<typename Tile::T>& q) {
  using Block = SelectorGatesBlock<Tile, kDepthInner>;
  const std::int64_t row_tiles = (q.n + Tile::kRows - 1) / Tile::kRows;
  const std::int64_t column_tiles = (q.h + Block::kColumns - 1) / Block::kColumns;
  launch({"selector_gates", q.device, q.stream, row_tiles * column_tiles, Tile::kThreads,
          Block::kSharedBytes},
         selector_gates_kernel<Tile, kDepthInner>, q);
}

}  // namespace glai
