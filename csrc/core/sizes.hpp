// Arithmetic on sizes that cannot overflow: a product or a sum that passes what 64 bits hold stays at
// the largest number, which no tensor has.
#pragma once

#include <cstdint>
#include <limits>

#include "core/tensor.hpp"

namespace glai {

constexpr std::int64_t kHugeSize = std::numeric_limits<std::int64_t>::max();

// How many gates, features, units or outputs a sample may have. Kernels number paths in 32 bits, and the
// product of two such sizes fits 64.
constexpr std::int64_t kMaxSize = (std::int64_t{1} << 31) - 1;

// Of sizes >= 0.
GLAI_HOST_DEVICE GLAI_ALWAYS_INLINE constexpr std::int64_t ceil_div(std::int64_t size,
                                                                    std::int64_t part) {
  return size / part + (size % part != 0 ? 1 : 0);
}

GLAI_HOST_DEVICE GLAI_ALWAYS_INLINE constexpr std::int64_t product_of(std::int64_t a, std::int64_t b) {
  return b != 0 && a > kHugeSize / b ? kHugeSize : a * b;
}

template <class... Sizes>
GLAI_HOST_DEVICE GLAI_ALWAYS_INLINE constexpr std::int64_t product_of(std::int64_t a, std::int64_t b,
                                                                      Sizes... more) {
  return product_of(product_of(a, b), more...);
}

GLAI_HOST_DEVICE GLAI_ALWAYS_INLINE constexpr std::int64_t sum_of(std::int64_t a, std::int64_t b) {
  return a > kHugeSize - b ? kHugeSize : a + b;
}

}  // namespace glai
