// What products multiply: values as they are, or rounded to bfloat16, to nearest, ties to even. Sums are
// of the values' type always. Rounded operands are kept as float32, or, where the instruction set
// multiplies bfloat16, as pairs along the dimension that is summed over.
#pragma once

#include <bit>
#include <cstdint>

#include "core/tensor.hpp"

namespace glai::GLAI_ISA {

// A NaN stays one: rounding its bits like a number's could carry into the sign.
GLAI_ALWAYS_INLINE std::uint32_t bf16_bits(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = bits + 0x7fffu + (bits >> 16 & 1u);
  return (value == value ? rounded : bits | 0x400000u) & 0xffff0000u;
}

// Operands as they are.
template <class T>
struct Exact {
  using Value = T;
  using Operand = T;
  static constexpr bool kRounds = false;
  static constexpr std::int64_t kValues = 1;  // of an operand
};

struct RoundedToBf16 {
  using Value = float;
  using Operand = float;
  static constexpr bool kRounds = true;
  static constexpr std::int64_t kValues = 1;

  static GLAI_ALWAYS_INLINE Operand of(float value) { return std::bit_cast<float>(bf16_bits(value)); }
};

#ifdef __AVX512BF16__
struct PairedBf16 {
  using Value = float;
  using Operand = Bf16Pair;
  static constexpr bool kRounds = true;
  static constexpr std::int64_t kValues = 2;

  static GLAI_ALWAYS_INLINE Operand of(float first, float second) {
    return Bf16Pair{bf16_bits(first) >> 16 | bf16_bits(second)};
  }
};
#endif

template <class Kind>
GLAI_ALWAYS_INLINE constexpr std::int64_t operand_count(std::int64_t values) {
  return (values + Kind::kValues - 1) / Kind::kValues;
}

// The value as operands hold it.
template <class Kind>
GLAI_ALWAYS_INLINE typename Kind::Value as_operand(typename Kind::Value value) {
  if constexpr (Kind::kRounds) return std::bit_cast<float>(bf16_bits(value));
  return value;
}

// Operands of `count` values in a row, then of a one where `with_one`, filled up with zero.
template <class Kind>
GLAI_ALWAYS_INLINE void pack_operands(const typename Kind::Value* values, std::int64_t count,
                                      bool with_one, typename Kind::Operand* out) {
  if constexpr (Kind::kValues == 1) {
    for (std::int64_t j = 0; j < count; ++j) out[j] = as_operand<Kind>(values[j]);
    if (with_one) out[count] = 1;
  } else {
    for (std::int64_t j = 0; j < count / 2; ++j) out[j] = Kind::of(values[2 * j], values[2 * j + 1]);
    const float one = with_one ? 1.0f : 0.0f;
    if (count % 2 != 0) {
      out[count / 2] = Kind::of(values[count - 1], one);
    } else if (with_one) {
      out[count / 2] = Kind::of(one, 0.0f);
    }
  }
}

// Operands of a panel [k_count, width] of whole vectors: [operand_count(k_count), width].
template <class Kind>
GLAI_ALWAYS_INLINE void pack_panel(const typename Kind::Value* panel, std::int64_t k_count,
                                   std::int64_t width, typename Kind::Operand* out) {
  using Vector = Vec<typename Kind::Value>;
  if constexpr (Kind::kValues == 1) {
    for (std::int64_t j = 0; j < k_count * width; ++j) out[j] = as_operand<Kind>(panel[j]);
  } else {
    for (std::int64_t k = 0; k < k_count; k += 2, panel += 2 * width, out += width) {
      for (std::int64_t j = 0; j < width; j += Vector::width) {
        const Vector second = k + 1 < k_count ? Vector::load(panel + width + j) : Vector::zero();
        Vec<typename Kind::Operand>::of(Vector::load(panel + j), second).store(out + j);
      }
    }
  }
}

// What sums of products of operands are kept in.
template <class Operand>
struct SumOf {
  using Type = Operand;
};
#ifdef __AVX512BF16__
template <>
struct SumOf<Bf16Pair> {
  using Type = float;
};
#endif

}  // namespace glai::GLAI_ISA
