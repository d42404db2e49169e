// The product of two matrices over the samples that a row of bits selects: the weight gradient, and the
// gram matrix. Samples are the product's depth, so only those that are on are read, in tiles without
// holes: the work falls with the density, and what a sample that is off holds, NaN or infinity too, has
// no effect.
#pragma once

#include "core/gates.hpp"
#include "cuda/tiles/gate_bits.cuh"
#include "cuda/tiles/numbers.cuh"
#include "cuda/tiles/pipeline.cuh"

namespace glai {

// Columns [first, width) of rows, one row a sample.
template <class T>
struct SampleRows {
  const T* data;
  std::int64_t stride;
  std::int64_t first, width;
  int granule;  // copy_granule of the rows; first is a multiple of 16 bytes
};

template <class Tile>
struct GatheredProduct {
  using T = typename Tile::T;
  using A = OperandTile<T, Tile::kRows, false>;
  using B = OperandTile<T, 16 * Tile::kUnits, false>;
  static constexpr int kThreads = Tile::kThreads;
  static constexpr int kWarps = kThreads / kWarpSize;
  static constexpr int kWindow = kThreads * kWordBits;  // samples listed at a time: a word per thread
  static constexpr std::size_t kStageBytes = kStages * (A::kElements + B::kElements) * sizeof(T);
  static constexpr std::size_t kSharedBytes =
      kStageBytes + kWindow * sizeof(std::uint16_t) + kWarps * sizeof(std::uint32_t);
  static_assert(kWindow <= 1 << 16);  // a place in the window is 16 bits

  GLAI_DEVICE static T* stage_a(int stage) {
    return reinterpret_cast<T*>(shared_memory()) + stage * (A::kElements + B::kElements);
  }
  GLAI_DEVICE static T* stage_b(int stage) { return stage_a(stage) + A::kElements; }
  GLAI_DEVICE static std::uint16_t* listed() {
    return reinterpret_cast<std::uint16_t*>(shared_memory() + kStageBytes);
  }
  GLAI_DEVICE static std::uint32_t* warp_counts() {
    return reinterpret_cast<std::uint32_t*>(listed() + kWindow);
  }

  // Lists the places of the bits of all threads' words, in order; returns how many. All threads may read
  // the list on return.
  static GLAI_DEVICE int list_samples(std::uint32_t word) {
    const auto mine = static_cast<std::uint32_t>(popcount(word));
    std::uint32_t before = mine;  // of this warp's lanes up to this one
    GLAI_UNROLL
    for (int distance = 1; distance < kWarpSize; distance *= 2) {
      const std::uint32_t below = shuffle_up(before, distance);
      if (lane_index() >= distance) before += below;
    }
    if (lane_index() == kWarpSize - 1) warp_counts()[warp_index()] = before;
    sync_block();
    std::uint32_t place = before - mine, total = 0;
    for (int warp = 0; warp < kWarps; ++warp) {
      if (warp < warp_index()) place += warp_counts()[warp];
      total += warp_counts()[warp];
    }
    for (int bit = 0; bit < kWordBits; ++bit) {
      if ((word >> bit & 1u) != 0) {
        listed()[place++] = static_cast<std::uint16_t>(thread_index() * kWordBits + bit);
      }
    }
    sync_block();
    return static_cast<int>(total);
  }

  static GLAI_DEVICE Chunk<T> chunk_of(const SampleRows<T>& rows, std::int64_t begin, int count, int k,
                                       int column) {
    if (k >= count) return {rows.data, 0};
    const std::int64_t sample = begin + listed()[k];
    return {rows.data + sample * rows.stride + rows.first + column, rows.width - rows.first - column};
  }

  // tile.sums += a^T b over the selected samples of words [begin_word, end_word). bits(i): those of
  // samples [32i, 32i + 32). with_stage(b) is called with every stage of b in shared memory. Returns
  // whether any sample was on.
  template <class Bits, class WithStage>
  static GLAI_DEVICE bool add(Tile& tile, std::int64_t begin_word, std::int64_t end_word,
                              const Bits& bits, const SampleRows<T>& a, const SampleRows<T>& b,
                              const WithStage& with_stage) {
    bool any = false;
    for (std::int64_t first = begin_word; first < end_word; first += kThreads) {
      const std::int64_t word = first + thread_index(), begin = first * kWordBits;
      const int count = list_samples(word < end_word ? bits(word) : 0u);
      any = any || count > 0;
      pipeline((count + A::kDepth - 1) / A::kDepth,
               [&](int stage, std::int64_t step) {
                 const int k0 = static_cast<int>(step) * A::kDepth;
                 load_tile<A, kThreads>(stage_a(stage), a.granule, [&](int k, int column) {
                   return chunk_of(a, begin, count, k0 + k, column);
                 });
                 load_tile<B, kThreads>(stage_b(stage), b.granule, [&](int k, int column) {
                   return chunk_of(b, begin, count, k0 + k, column);
                 });
               },
               [&](int stage, std::int64_t) {
                 tile.template multiply<A, B>(stage_a(stage), stage_b(stage));
                 with_stage(stage_b(stage));
               });
    }
    return any;
  }
};

}  // namespace glai
