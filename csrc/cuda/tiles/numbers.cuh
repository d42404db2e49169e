// The number types of kernels, and what sums of them are kept in.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/tiles/primitives.cuh"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace glai {

struct fp16 {
  std::uint16_t bits;
};
struct bf16 {
  std::uint16_t bits;
};

// Sums of float64 are float64, of all others float32.
template <class T>
using SumOf = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class T>
GLAI_DEVICE SumOf<T> widen(T value) {
  return value;
}

template <>
GLAI_DEVICE float widen(fp16 value) {
#ifdef __CUDACC__
  return __half2float(__ushort_as_half(value.bits));
#else
  return static_cast<float>(std::bit_cast<_Float16>(value.bits));
#endif
}

template <>
GLAI_DEVICE float widen(bf16 value) {
#ifdef __CUDACC__
  return __bfloat162float(__ushort_as_bfloat16(value.bits));
#else
  return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
#endif
}

template <class Sum>
GLAI_DEVICE Sum magnitude(Sum value) {
  return value < 0 ? -value : value;
}

// To the nearest, ties to even.
template <class T>
GLAI_DEVICE T narrow(SumOf<T> sum) {
  return sum;
}

template <>
GLAI_DEVICE fp16 narrow<fp16>(float sum) {
#ifdef __CUDACC__
  return {__half_as_ushort(__float2half_rn(sum))};
#else
  return {std::bit_cast<std::uint16_t>(static_cast<_Float16>(sum))};
#endif
}

template <>
GLAI_DEVICE bf16 narrow<bf16>(float sum) {
#ifdef __CUDACC__
  return {__bfloat16_as_ushort(__float2bfloat16_rn(sum))};
#else
  const auto bits = std::bit_cast<std::uint32_t>(sum);
  if (sum != sum) return {0x7fff};
  return {static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
#endif
}

}  // namespace glai
