// Tiles of the upper half of a square, numbered.
#pragma once

#include <cmath>
#include <cstdint>

#include "cuda/tiles/primitives.cuh"

namespace glai {

struct Pair {
  std::int64_t low, high;
};

// Pairs low <= high in order of high: (0,0), (0,1), (1,1), (0,2), ...
GLAI_DEVICE Pair pair_of(std::int64_t index) {
  auto high = static_cast<std::int64_t>((sqrt(8.0 * static_cast<double>(index) + 1.0) - 1.0) / 2.0);
  while (high * (high + 1) / 2 > index) --high;
  while ((high + 1) * (high + 2) / 2 <= index) ++high;
  return {index - high * (high + 1) / 2, high};
}

inline std::int64_t pairs(std::int64_t n) { return n * (n + 1) / 2; }

}  // namespace glai
