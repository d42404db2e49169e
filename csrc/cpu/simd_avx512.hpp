// The Simd vocabulary of simd_generic.hpp for AVX-512 (F, BW, VL, DQ): 64-byte vectors, 32 registers.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "core/tensor.hpp"

namespace glai::GLAI_ISA {

template <class T>
struct Tail;
template <class T>
struct Vec;

template <>
struct Tail<float> {
  __mmask16 mask;
  GLAI_ALWAYS_INLINE explicit Tail(int n) : mask(static_cast<__mmask16>((1u << n) - 1u)) {}
};

template <>
struct Tail<double> {
  __mmask8 mask;
  GLAI_ALWAYS_INLINE explicit Tail(int n) : mask(static_cast<__mmask8>((1u << n) - 1u)) {}
};

template <>
struct Vec<float> {
  static constexpr int width = 16;
  __m512 v;

  static GLAI_ALWAYS_INLINE Vec zero() { return {_mm512_setzero_ps()}; }
  static GLAI_ALWAYS_INLINE Vec broadcast(float s) { return {_mm512_set1_ps(s)}; }
  static GLAI_ALWAYS_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static GLAI_ALWAYS_INLINE Vec load(const float* p, Tail<float> t) {
    return {_mm512_maskz_loadu_ps(t.mask, p)};
  }
  GLAI_ALWAYS_INLINE void store(float* p) const { _mm512_storeu_ps(p, v); }
  GLAI_ALWAYS_INLINE void store(float* p, Tail<float> t) const { _mm512_mask_storeu_ps(p, t.mask, v); }
  GLAI_ALWAYS_INLINE Vec plus_product(Vec a, Vec b) const { return {_mm512_fmadd_ps(a.v, b.v, v)}; }
  GLAI_ALWAYS_INLINE Vec plus(Vec a) const { return {_mm512_add_ps(v, a.v)}; }
  GLAI_ALWAYS_INLINE float total() const { return _mm512_reduce_add_ps(v); }
};

template <>
struct Vec<double> {
  static constexpr int width = 8;
  __m512d v;

  static GLAI_ALWAYS_INLINE Vec zero() { return {_mm512_setzero_pd()}; }
  static GLAI_ALWAYS_INLINE Vec broadcast(double s) { return {_mm512_set1_pd(s)}; }
  static GLAI_ALWAYS_INLINE Vec load(const double* p) { return {_mm512_loadu_pd(p)}; }
  static GLAI_ALWAYS_INLINE Vec load(const double* p, Tail<double> t) {
    return {_mm512_maskz_loadu_pd(t.mask, p)};
  }
  GLAI_ALWAYS_INLINE void store(double* p) const { _mm512_storeu_pd(p, v); }
  GLAI_ALWAYS_INLINE void store(double* p, Tail<double> t) const { _mm512_mask_storeu_pd(p, t.mask, v); }
  GLAI_ALWAYS_INLINE Vec plus_product(Vec a, Vec b) const { return {_mm512_fmadd_pd(a.v, b.v, v)}; }
  GLAI_ALWAYS_INLINE Vec plus(Vec a) const { return {_mm512_add_pd(v, a.v)}; }
  GLAI_ALWAYS_INLINE double total() const { return _mm512_reduce_add_pd(v); }
};

GLAI_ALWAYS_INLINE std::uint32_t positive_word(const float* p) {
  const __m512 zero = _mm512_setzero_ps();
  const std::uint32_t low = _mm512_cmp_ps_mask(_mm512_loadu_ps(p), zero, _CMP_GT_OQ);
  const std::uint32_t high = _mm512_cmp_ps_mask(_mm512_loadu_ps(p + 16), zero, _CMP_GT_OQ);
  return low | high << 16;
}

GLAI_ALWAYS_INLINE std::uint32_t positive_word(const double* p) {
  std::uint32_t word = 0;
  for (int i = 0; i < 4; ++i) {
    const std::uint32_t on =
        _mm512_cmp_pd_mask(_mm512_loadu_pd(p + 8 * i), _mm512_setzero_pd(), _CMP_GT_OQ);
    word |= on << (8 * i);
  }
  return word;
}

GLAI_ALWAYS_INLINE std::uint32_t positive_word(const std::uint8_t* p) {
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm256_test_epi8_mask(bytes, bytes);
}

constexpr int kMaxTileVecs = 4;
constexpr int gather_tile_rows(int vecs) { return vecs <= 3 ? 8 : 4; }
constexpr int outer_tile_rows(int vecs) { return vecs <= 2 ? 12 : vecs == 3 ? 8 : 6; }
constexpr int kMaxOuterTileVecs = 24;  // rows x vectors of any of these tiles

}  // namespace glai::GLAI_ISA
