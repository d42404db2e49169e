// Compaction: which samples have a path on.
#pragma once

#include <cstdint>

#include "core/gates.hpp"

namespace glai::GLAI_ISA {

// Writes the rows in [begin, end) whose gate p is on, ascending, and returns how many there are; rows
// count from where words points, and end is under 2^31.
// Branch-free: the pattern of the gates is what a branch predictor cannot learn.
GLAI_ALWAYS_INLINE std::int64_t active_rows(const std::uint32_t* words, std::int64_t words_per_row,
                                            std::int64_t p, std::int64_t begin, std::int64_t end,
                                            std::int32_t* rows) {
  const std::uint32_t* column = words + p / kWordBits;
  const int bit = static_cast<int>(p % kWordBits);
  std::int64_t active = 0;
  for (std::int64_t i = begin; i < end; ++i) {
    rows[active] = static_cast<std::int32_t>(i);
    active += column[i * words_per_row] >> bit & 1u;
  }
  return active;
}

}  // namespace glai::GLAI_ISA
