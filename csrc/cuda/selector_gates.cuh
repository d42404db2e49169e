// selector_gates: the sums of a layer's product become bits where they were made: pre-activations never
// leave the chip.
#pragma once

#include "core/gates.hpp"
#include "cuda/linear_product.cuh"

namespace glai {

// Bit h of words[n]: sum > 0
template <class Tile, bool kDepthInner>
struct SelectorGatesBlock {
  using Linear = LinearBlock<Tile, kDepthInner>;

  Linear linear;
  std::uint32_t* words;

  // A byte per sum, where the stages were, so that a warp can vote on 32 neighbouring units of a sample
  // whatever sums its threads hold; rows are padded so that neighbouring samples fall on different
  // banks.
  static constexpr int kWords = Linear::kColumns / kWordBits;
  static constexpr int kBytesPerRow = Linear::kColumns + 4;
  static_assert(Tile::kRows * kBytesPerRow <= Linear::kSharedBytes);
  static GLAI_DEVICE std::uint8_t& shared_on(int sample, int unit) {
    return reinterpret_cast<std::uint8_t*>(shared_memory())[sample * kBytesPerRow + unit];
  }

  GLAI_DEVICE void store(Tile& tile) const {
    const auto& [q, row, column] = linear;
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
      if (lane_index() == 0 && n < q.n && j < w) words[n * w + j] = word;
    }
  }

  GLAI_DEVICE void run() const {
    Tile tile;
    linear.multiply(tile);
    store(tile);
  }
};

template <class Tile, bool kDepthInner>
GLAI_KERNEL(Tile::kThreads)
selector_gates_kernel(LinearProduct<typename Tile::T> q, std::uint32_t* words) {
  using Block = SelectorGatesBlock<Tile, kDepthInner>;
  Block{Block::Linear::of_index(q, block_index()), words}.run();
}

}  // namespace glai
