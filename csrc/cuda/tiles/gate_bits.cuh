// Bits of packed gates, seen by a warp.
#pragma once

#include "core/gates.hpp"
#include "cuda/tiles/primitives.cuh"

namespace glai {

// A 32x32 bit matrix turned: lane i passes row i, and gets column i (bit n: bit i of row n).
GLAI_DEVICE std::uint32_t transpose_bits(std::uint32_t row) {
  std::uint32_t column = 0;
  GLAI_UNROLL
  for (int i = 0; i < kWordBits; ++i) {
    const std::uint32_t votes = ballot((row >> i & 1u) != 0);
    if (lane_index() == i) column = votes;
  }
  return column;
}

// The sum over a warp, in every lane.
GLAI_DEVICE std::uint32_t warp_sum(std::uint32_t value) {
  GLAI_UNROLL
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    value += shuffle(value, lane_index() ^ distance);
  }
  return value;
}

}  // namespace glai
