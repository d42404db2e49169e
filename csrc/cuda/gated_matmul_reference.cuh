// gated_matmul and its input gradient around a reference: what most samples have on is computed for all
// of them by one product with the sum of those paths' weights, and compaction then adds or subtracts the
// paths in which a sample deviates. Gates being 0 or 1, the work falls with the deviation.
//
// All that the form looks at stays on the device: where the weights that a sample has off would outweigh
// those it has on, in any output, the reference is dropped there, and what deviates from nothing is
// every path that is on.
#pragma once

#include "core/gates.hpp"
#include "cuda/gated_product.cuh"
#include "cuda/tiles/fma_tile.cuh"
#include "cuda/tiles/gate_bits.cuh"

namespace glai {

constexpr int kReferenceThreads = 256;
constexpr int kReferenceWarps = kReferenceThreads / kWarpSize;

// The sum over the block's warps, of each lane, in the order of warps; in warp 0.
template <class Sum>
GLAI_DEVICE Sum sum_over_warps(Sum mine) {
  Sum* of_warps = reinterpret_cast<Sum*>(shared_memory());
  of_warps[thread_index()] = mine;
  sync_block();
  Sum sum = 0;
  for (int warp = 0; warp < kReferenceWarps; ++warp) sum += of_warps[warp * kWarpSize + lane_index()];
  return sum;
}

// majority[w]: the gates of word w that more than half of the samples have on, of up to kMajoritySamples
// of them, evenly spread. A block takes a word.
constexpr std::int64_t kMajoritySamples = 4096;

template <class T>
GLAI_KERNEL(kReferenceThreads)
majority_kernel(GatedProduct<T> q) {
  const std::int64_t w = words_per_row(q.p), word = block_index();
  const std::int64_t samples = q.n < kMajoritySamples ? q.n : kMajoritySamples;
  std::uint32_t on = 0;  // samples that have gate lane_index() on
  for (std::int64_t first = warp_index() * kWarpSize; first < samples; first += kReferenceThreads) {
    const std::int64_t sample = first + lane_index();
    const std::uint32_t gates = sample < samples ? q.words[sample * q.n / samples * w + word] : 0u;
    on += static_cast<std::uint32_t>(popcount(transpose_bits(gates)));
  }
  on = sum_over_warps(on);
  if (warp_index() != 0) return;
  const std::uint32_t padding = word == w - 1 ? ~last_word_mask(q.p) : 0u;
  const std::uint32_t majority = ballot(2 * static_cast<std::int64_t>(on) > samples) & ~padding;
  if (lane_index() == 0) {
    q.majority[word] = majority;
    if (word == 0) q.majority[w] = 1;  // safe, until somebody objects
  }
}

// norms[0,p,c] = sum_k |w[p,k,c]|, norms[1,p,c] = |bias[p,c]|. A block takes 32 columns of a path, its
// warps parts of the depth.
template <class T>
GLAI_KERNEL(kReferenceThreads)
path_norms_kernel(GatedProduct<T> q) {
  const std::int64_t path = block_index() % q.p;
  const std::int64_t column = block_index() / q.p * kWarpSize + lane_index();
  SumOf<T> norm = 0;
  if (column < q.c) {
    const T* w = q.w + path * q.w_path + column * q.w_column;
    GLAI_UNROLL_BY_8
    for (std::int64_t k = warp_index(); k < q.depth; k += kReferenceWarps) {
      norm += magnitude(widen(w[k * q.w_depth]));
    }
  }
  norm = sum_over_warps(norm);
  if (warp_index() != 0 || column >= q.c) return;
  q.norms[path * q.c + column] = norm;
  q.norms[(q.p + path) * q.c + column] = magnitude(q.bias_of(path, column));
}

// Objects where, for a sample and an output, the norms of the majority's paths that are off add up to
// more than those of the paths that are on, or to what is not finite: of weights and of biases apart. A
// warp takes 32 columns of kRows samples.
constexpr int kNormRows = 8;

template <class T>
GLAI_KERNEL(kReferenceThreads)
compare_norms_kernel(GatedProduct<T> q) {
  using Sum = SumOf<T>;
  const std::int64_t w = words_per_row(q.p);
  const std::int64_t row_tiles = (q.n + kReferenceWarps * kNormRows - 1) / (kReferenceWarps * kNormRows);
  const std::int64_t row = (block_index() % row_tiles * kReferenceWarps + warp_index()) * kNormRows;
  const std::int64_t column = block_index() / row_tiles * kWarpSize + lane_index();
  const bool some = column < q.c;
  bool objects = false;
  // Where a sample has all of the majority on, there is nothing to outweigh.
  bool off_anywhere = false;
  for (std::int64_t word = lane_index(); word < w; word += kWarpSize) {
    for (int r = 0; r < kNormRows; ++r) {
      off_anywhere =
          off_anywhere || (row + r < q.n && (q.majority[word] & ~q.words[(row + r) * w + word]) != 0);
    }
  }
  const int kinds = ballot(off_anywhere) == 0 ? 0 : q.bias != nullptr ? 2 : 1;
  for (int of_bias = 0; of_bias < kinds; ++of_bias) {
    const Sum* norms = q.norms + of_bias * q.p * q.c + column;
    Sum on[kNormRows] = {}, off[kNormRows] = {};
    for (std::int64_t path = 0; path < q.p; path += 8) {
      Sum norm[8];
      GLAI_UNROLL
      for (int j = 0; j < 8; ++j) norm[j] = some && path + j < q.p ? norms[(path + j) * q.c] : Sum(0);
      const std::uint32_t majority = q.majority[path / kWordBits] >> (path % kWordBits);
      GLAI_UNROLL
      for (int r = 0; r < kNormRows; ++r) {
        const std::uint32_t gates =
            row + r < q.n ? q.words[(row + r) * w + path / kWordBits] >> (path % kWordBits) : ~0u;
        GLAI_UNROLL
        for (int j = 0; j < 8; ++j) {
          if ((gates >> j & 1u) != 0) on[r] += norm[j];
          if ((majority & ~gates) >> j & 1u) off[r] += norm[j];
        }
      }
    }
    // An infinite sum less itself is not 0; false for NaN, too.
    GLAI_UNROLL
    for (int r = 0; r < kNormRows; ++r) {
      objects = objects || (row + r < q.n && !(off[r] <= on[r] && on[r] - on[r] == Sum(0)));
    }
  }
  const std::uint32_t of_block = sum_over_warps(ballot(objects) != 0 ? 1u : 0u);
  if (of_block != 0 && thread_index() == 0) q.majority[w] = 0;
}

// reference[k,c] = sum of w[p,k,c] over the majority's paths, reference[depth,c] of their biases. A
// block takes 32 numbers, neighbours in memory; its warps parts of the paths.
template <class T>
GLAI_KERNEL(kReferenceThreads)
sum_majority_kernel(GatedProduct<T> q, bool depth_inner) {
  const std::int64_t i = block_index() * kWarpSize + lane_index();
  const std::int64_t k = depth_inner ? i % (q.depth + 1) : i / q.c;
  const std::int64_t column = depth_inner ? i / (q.depth + 1) : i % q.c;
  const bool some = i < (q.depth + 1) * q.c, is_weight = k < q.depth;
  const T* from = is_weight ? q.w + k * q.w_depth + column * q.w_column : q.bias + column;
  const std::int64_t step = is_weight ? q.w_path : q.bias_stride;
  SumOf<T> sum = 0;
  for (std::int64_t path = warp_index() * 8; path < q.p; path += kReferenceWarps * 8) {
    const std::uint32_t majority = q.majority_word(path / kWordBits) >> (path % kWordBits);
    SumOf<T> weight[8];
    GLAI_UNROLL
    for (int j = 0; j < 8; ++j) {
      const bool on = some && (majority >> j & 1u) != 0 && (is_weight || q.bias != nullptr);
      weight[j] = on ? widen(from[(path + j) * step]) : SumOf<T>(0);
    }
    GLAI_UNROLL
    for (int j = 0; j < 8; ++j) sum += weight[j];
  }
  sum = sum_over_warps(sum);
  if (warp_index() == 0 && some) q.reference[k * q.c + column] = sum;
}

// partial[0] = reference[depth] + a reference. Tile is one of the sums' type: a reference is not rounded
// to what its weights were, 16 bits, but to tf32 where products are.
template <class T, class Tile>
struct ReferenceBlock {
  using Sum = SumOf<T>;
  static constexpr int kColumns = 16 * Tile::kUnits;
  using A = OperandTile<T, Tile::kRows, true, kStepBytes * sizeof(T) / sizeof(Sum)>;
  using B = OperandTile<Sum, kColumns, false>;
  static_assert(A::kDepth == B::kDepth);
  static constexpr std::size_t kStageBytes = A::kElements * sizeof(T) + B::kElements * sizeof(Sum);
  static constexpr std::size_t kSharedBytes = kStages * kStageBytes;

  const GatedProduct<T>& q;
  std::int64_t row, column;

  GLAI_DEVICE static T* stage_a(int stage) {
    return reinterpret_cast<T*>(shared_memory() + stage * kStageBytes);
  }
  GLAI_DEVICE static Sum* stage_b(int stage) {
    return reinterpret_cast<Sum*>(stage_a(stage) + A::kElements);
  }

  GLAI_DEVICE void load(int stage, std::int64_t depth) const {
    load_tile<A, Tile::kThreads>(stage_a(stage), q.a_granule, [&](int i, int k) -> Chunk<T> {
      const std::int64_t n = row + i;
      return {q.a + n * q.a_stride + depth + k, n < q.n ? q.depth - depth - k : 0};
    });
    load_tile<B, Tile::kThreads>(stage_b(stage), q.reference_granule, [&](int k, int j) -> Chunk<Sum> {
      return {q.reference + (depth + k) * q.c + column + j, depth + k < q.depth ? q.c - column - j : 0};
    });
  }

  GLAI_DEVICE void run() const {
    Tile tile;
    const auto of = [&](int unit, int e) { return column + 16 * unit + Tile::column(e); };
    GLAI_UNROLL
    for (int unit = 0; unit < Tile::kUnits; ++unit) {
      GLAI_UNROLL
      for (int e = 0; e < Tile::kPerUnit; ++e) {
        tile.sum(unit, e) = of(unit, e) < q.c ? q.reference[q.depth * q.c + of(unit, e)] : Sum(0);
      }
    }
    pipeline(
        (q.depth + A::kDepth - 1) / A::kDepth,
        [&](int stage, std::int64_t step) { load(stage, step * A::kDepth); },
        [&](int stage, std::int64_t) { tile.template multiply<A, B>(stage_a(stage), stage_b(stage)); });
    const bool safe = q.majority[words_per_row(q.p)] != 0;
    GLAI_UNROLL
    for (int unit = 0; unit < Tile::kUnits; ++unit) {
      GLAI_UNROLL
      for (int e = 0; e < Tile::kPerUnit; ++e) {
        q.store_slice(0, row + Tile::row(e), of(unit, e), safe ? tile.sum(unit, e) : Sum(0));
      }
    }
  }
};

template <class T, class Tile>
GLAI_KERNEL_AT_ONCE(Tile::kThreads, 2)
reference_product_kernel(GatedProduct<T> q) {
  using Block = ReferenceBlock<T, Tile>;
  const std::int64_t row_tiles = (q.n + Tile::kRows - 1) / Tile::kRows;
  Block{q, block_index() % row_tiles * Tile::kRows, block_index() / row_tiles * Block::kColumns}.run();
}

// The majority, the sum of its weights, and the first of the partial sums; norms are compared where
// there is memory for them.
template <class Tile, class T>
void launch_reference(const GatedProduct<T>& q) {
  if (q.n == 0 || q.p == 0 || q.c == 0) return;
  using Block = ReferenceBlock<T, Tile>;
  static_assert(Tile::kThreads == kReferenceThreads);
  const auto tiles = [](std::int64_t size, std::int64_t tile) { return (size + tile - 1) / tile; };
  const auto with = [&](std::int64_t blocks, std::size_t shared_bytes) {
    return Launch{q.op, q.device, q.stream, blocks, kReferenceThreads, shared_bytes};
  };
  constexpr std::size_t kSumBytes = kReferenceThreads * sizeof(SumOf<T>);
  launch(with(words_per_row(q.p), kSumBytes), majority_kernel<T>, q);
  if (q.norms != nullptr) {
    const std::int64_t columns = tiles(q.c, kWarpSize);
    launch(with(q.p * columns, kSumBytes), path_norms_kernel<T>, q);
    launch(with(tiles(q.n, kReferenceWarps * kNormRows) * columns, kSumBytes), compare_norms_kernel<T>,
           q);
  }
  launch(with(tiles((q.depth + 1) * q.c, kWarpSize), kSumBytes), sum_majority_kernel<T>, q,
         q.depth_inner());
  launch(with(tiles(q.n, Tile::kRows) * tiles(q.c, Block::kColumns), Block::kSharedBytes),
         reference_product_kernel<T, Tile>, q);
}

}  // namespace glai
