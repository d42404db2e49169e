// gated_linear: the sums of a layer's product, stored where the gate is on.
#pragma once

#include "core/gates.hpp"
#include "cuda/linear_product.cuh"

namespace glai {

// y[n,p] = sum where bit p of words[n] is set, otherwise 0
template <class T>
struct GatedSums {
  const std::uint32_t* words;
  T* y;
  std::int64_t y_stride;
};

template <class Tile, bool kDepthInner>
GLAI_KERNEL(Tile::kThreads)
gated_linear_kernel(LinearProduct<typename Tile::T> q, GatedSums<typename Tile::T> out) {
  using T = typename Tile::T;
  const auto block = LinearBlock<Tile, kDepthInner>::of_index(q, block_index());
  Tile tile;
  block.multiply(tile);
  GLAI_UNROLL
  for (int e = 0; e < Tile::kPerUnit; ++e) {
    const std::int64_t n = block.row + Tile::row(e);
    if (n >= q.n) continue;
    const std::uint32_t* words = out.words + n * words_per_row(q.h);
    GLAI_UNROLL
    for (int unit = 0; unit < Tile::kUnits; ++unit) {
      const std::int64_t p = block.column + 16 * unit + Tile::column(e);
      if (p >= q.h) continue;
      const bool on = (words[p / kWordBits] >> (p % kWordBits) & 1u) != 0;
      out.y[n * out.y_stride + p] = on ? narrow<T>(tile.sum(unit, e)) : T{};
    }
  }
}

}  // namespace glai
