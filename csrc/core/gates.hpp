// THE gate layout, in one place. Gates of N samples over P paths are packed into int32 words
// [N, words_per_row(P)], row-major and contiguous; gate p of a sample is bit p % 32 (least significant
// first) of word p / 32; the padding bits of a row's last word are zero.
#pragma once

#include <cstdint>

#include "core/sizes.hpp"
#include "core/tensor.hpp"

namespace glai {

constexpr int kWordBits = 32;

GLAI_HOST_DEVICE GLAI_ALWAYS_INLINE constexpr std::int64_t words_per_row(std::int64_t n_gates) {
  return ceil_div(n_gates, kWordBits);
}

// The bits of a row's last word that carry gates.
GLAI_HOST_DEVICE GLAI_ALWAYS_INLINE constexpr std::uint32_t last_word_mask(std::int64_t n_gates) {
  const int used = static_cast<int>(n_gates % kWordBits);
  return used == 0 ? ~0u : (1u << used) - 1u;
}

}  // namespace glai
