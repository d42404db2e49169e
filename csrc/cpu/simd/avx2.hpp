// The Simd vocabulary of generic.hpp for AVX2 with FMA: 32-byte vectors, 16 registers.
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
  __m256i mask;
  GLAI_ALWAYS_INLINE explicit Tail(int n)
      : mask(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))) {}
};

template <>
struct Tail<double> {
  __m256i mask;
  GLAI_ALWAYS_INLINE explicit Tail(int n)
      : mask(_mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3))) {}
};

template <>
struct Vec<float> {
  static constexpr int width = 8;
  __m256 v;

  static GLAI_ALWAYS_INLINE Vec zero() { return {_mm256_setzero_ps()}; }
  static GLAI_ALWAYS_INLINE Vec broadcast(float s) { return {_mm256_set1_ps(s)}; }
  static GLAI_ALWAYS_INLINE Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static GLAI_ALWAYS_INLINE Vec load(const float* p, Tail<float> t) {
    return {_mm256_maskload_ps(p, t.mask)};
  }
  GLAI_ALWAYS_INLINE Vec in_register() const {
    Vec r = *this;
    asm("" : "+x"(r.v));
    return r;
  }
  static constexpr int folded = 4;
  static GLAI_ALWAYS_INLINE Vec load_folded(const float* p) {
    return {_mm256_zextps128_ps256(_mm_loadu_ps(p))};
  }
  GLAI_ALWAYS_INLINE void store_folded(float* p) const {
    _mm_storeu_ps(p, _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1)));
  }
  static GLAI_ALWAYS_INLINE Vec load_quads(const float* p, std::int64_t step) {
    return {_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + step), 1)};
  }
  GLAI_ALWAYS_INLINE void store(float* p) const { _mm256_storeu_ps(p, v); }
  GLAI_ALWAYS_INLINE void store(float* p, Tail<float> t) const { _mm256_maskstore_ps(p, t.mask, v); }
  GLAI_ALWAYS_INLINE void stream(float* p) const { _mm256_stream_ps(p, v); }
  GLAI_ALWAYS_INLINE Vec plus_product(Vec a, Vec b) const { return {_mm256_fmadd_ps(a.v, b.v, v)}; }
  GLAI_ALWAYS_INLINE Vec plus(Vec a) const { return {_mm256_add_ps(v, a.v)}; }
  GLAI_ALWAYS_INLINE Vec times(Vec a) const { return {_mm256_mul_ps(v, a.v)}; }
  GLAI_ALWAYS_INLINE Vec over(Vec a) const { return {_mm256_div_ps(v, a.v)}; }
  GLAI_ALWAYS_INLINE Vec root() const { return {_mm256_sqrt_ps(v)}; }
  GLAI_ALWAYS_INLINE Vec only(std::uint32_t bits) const {
    const __m256i place = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i set = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), place);
    return {_mm256_and_ps(v, _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, place)))};
  }
  GLAI_ALWAYS_INLINE float total() const {
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
  }
};

template <>
struct Vec<double> {
  static constexpr int width = 4;
  __m256d v;

  static GLAI_ALWAYS_INLINE Vec zero() { return {_mm256_setzero_pd()}; }
  static GLAI_ALWAYS_INLINE Vec broadcast(double s) { return {_mm256_set1_pd(s)}; }
  static GLAI_ALWAYS_INLINE Vec load(const double* p) { return {_mm256_loadu_pd(p)}; }
  static GLAI_ALWAYS_INLINE Vec load(const double* p, Tail<double> t) {
    return {_mm256_maskload_pd(p, t.mask)};
  }
  GLAI_ALWAYS_INLINE Vec in_register() const {
    Vec r = *this;
    asm("" : "+x"(r.v));
    return r;
  }
  static constexpr int folded = 2;
  static GLAI_ALWAYS_INLINE Vec load_folded(const double* p) {
    return {_mm256_zextpd128_pd256(_mm_loadu_pd(p))};
  }
  GLAI_ALWAYS_INLINE void store_folded(double* p) const {
    _mm_storeu_pd(p, _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1)));
  }
  static GLAI_ALWAYS_INLINE Vec load_quads(const double* p, std::int64_t) { return load(p); }
  GLAI_ALWAYS_INLINE void store(double* p) const { _mm256_storeu_pd(p, v); }
  GLAI_ALWAYS_INLINE void store(double* p, Tail<double> t) const { _mm256_maskstore_pd(p, t.mask, v); }
  GLAI_ALWAYS_INLINE void stream(double* p) const { _mm256_stream_pd(p, v); }
  GLAI_ALWAYS_INLINE Vec plus_product(Vec a, Vec b) const { return {_mm256_fmadd_pd(a.v, b.v, v)}; }
  GLAI_ALWAYS_INLINE Vec plus(Vec a) const { return {_mm256_add_pd(v, a.v)}; }
  GLAI_ALWAYS_INLINE Vec times(Vec a) const { return {_mm256_mul_pd(v, a.v)}; }
  GLAI_ALWAYS_INLINE Vec over(Vec a) const { return {_mm256_div_pd(v, a.v)}; }
  GLAI_ALWAYS_INLINE Vec root() const { return {_mm256_sqrt_pd(v)}; }
  GLAI_ALWAYS_INLINE Vec only(std::uint32_t bits) const {
    const __m256i place = _mm256_setr_epi64x(1, 2, 4, 8);
    const __m256i set = _mm256_and_si256(_mm256_set1_epi64x(bits), place);
    return {_mm256_and_pd(v, _mm256_castsi256_pd(_mm256_cmpeq_epi64(set, place)))};
  }
  GLAI_ALWAYS_INLINE double total() const {
    const __m128d sum = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_add_sd(sum, _mm_unpackhi_pd(sum, sum)));
  }
};

GLAI_ALWAYS_INLINE void stream_fence() { _mm_sfence(); }

GLAI_ALWAYS_INLINE std::uint32_t positive_word(const float* p) {
  std::uint32_t word = 0;
  for (int i = 0; i < 4; ++i) {
    const __m256 on = _mm256_cmp_ps(_mm256_loadu_ps(p + 8 * i), _mm256_setzero_ps(), _CMP_GT_OQ);
    word |= static_cast<std::uint32_t>(_mm256_movemask_ps(on)) << (8 * i);
  }
  return word;
}

GLAI_ALWAYS_INLINE std::uint32_t positive_word(const double* p) {
  std::uint32_t word = 0;
  for (int i = 0; i < 8; ++i) {
    const __m256d on = _mm256_cmp_pd(_mm256_loadu_pd(p + 4 * i), _mm256_setzero_pd(), _CMP_GT_OQ);
    word |= static_cast<std::uint32_t>(_mm256_movemask_pd(on)) << (4 * i);
  }
  return word;
}

GLAI_ALWAYS_INLINE std::uint32_t positive_word(const std::uint8_t* p) {
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return ~static_cast<std::uint32_t>(
      _mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_setzero_si256())));
}

// A byte's bits are counted by a table of the sixteen nibbles.
template <class T>
struct CommonBits;

template <>
struct CommonBits<float> {
  static constexpr std::int64_t kMostWords = 31;
  __m256i bytes;

  static GLAI_ALWAYS_INLINE CommonBits zero() { return {_mm256_setzero_si256()}; }
  GLAI_ALWAYS_INLINE CommonBits plus_common(std::uint32_t row, const std::uint32_t* columns) const {
    const __m256i common =
        _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(row)),
                         _mm256_loadu_si256(reinterpret_cast<const __m256i*>(columns)));
    const __m256i of_nibble =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m256i low = _mm256_and_si256(common, _mm256_set1_epi8(15));
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(common, 4), _mm256_set1_epi8(15));
    return {_mm256_add_epi8(bytes, _mm256_add_epi8(_mm256_shuffle_epi8(of_nibble, low),
                                                   _mm256_shuffle_epi8(of_nibble, high)))};
  }
  GLAI_ALWAYS_INLINE Vec<float> total() const {
    const __m256i pairs = _mm256_maddubs_epi16(bytes, _mm256_set1_epi8(1));
    return {_mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))};
  }
};

template <>
struct CommonBits<double> {
  static constexpr std::int64_t kMostWords = 31;
  __m128i bytes;

  static GLAI_ALWAYS_INLINE CommonBits zero() { return {_mm_setzero_si128()}; }
  GLAI_ALWAYS_INLINE CommonBits plus_common(std::uint32_t row, const std::uint32_t* columns) const {
    const __m128i common = _mm_and_si128(_mm_set1_epi32(static_cast<int>(row)),
                                         _mm_loadu_si128(reinterpret_cast<const __m128i*>(columns)));
    const __m128i of_nibble = _mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m128i low = _mm_and_si128(common, _mm_set1_epi8(15));
    const __m128i high = _mm_and_si128(_mm_srli_epi16(common, 4), _mm_set1_epi8(15));
    return {_mm_add_epi8(
        bytes, _mm_add_epi8(_mm_shuffle_epi8(of_nibble, low), _mm_shuffle_epi8(of_nibble, high)))};
  }
  GLAI_ALWAYS_INLINE Vec<double> total() const {
    const __m128i pairs = _mm_maddubs_epi16(bytes, _mm_set1_epi8(1));
    return {_mm256_cvtepi32_pd(_mm_madd_epi16(pairs, _mm_set1_epi16(1)))};
  }
};

struct ByteSums {
  static constexpr int width = 8;
  __m256i v;

  static GLAI_ALWAYS_INLINE ByteSums zero() { return {_mm256_setzero_si256()}; }
  static GLAI_ALWAYS_INLINE ByteSums load(const std::int32_t* p) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
  }
  GLAI_ALWAYS_INLINE void store(std::int32_t* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
  }
};

// Four rows of ByteSums::width bytes, stride apart, to [ByteSums::width, 4].
GLAI_ALWAYS_INLINE void interleave_rows(const std::uint8_t* rows, std::int64_t stride,
                                        std::uint8_t* to) {
  const auto row = [&](int i) {
    return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(rows + i * stride));
  };
  const __m128i first = _mm_unpacklo_epi8(row(0), row(1)), second = _mm_unpacklo_epi8(row(2), row(3));
  auto* quads = reinterpret_cast<__m128i*>(to);
  _mm_storeu_si128(quads, _mm_unpacklo_epi16(first, second));
  _mm_storeu_si128(quads + 1, _mm_unpackhi_epi16(first, second));
}

// A column's bytes are signed; two products are added in 16 bits by one instruction, and 2 * kQuads of
// them fit.
template <int Quads, int Offset>
struct ByteDot {
  static constexpr int kQuads = Quads, kOffset = Offset;
  static constexpr int kRows = 4, kVecs = 2;
  struct Bytes {
    __m256i quad[Quads];
  };

  static GLAI_ALWAYS_INLINE Bytes row(const std::uint8_t* p, std::int64_t step) {
    Bytes r;
    for (int q = 0; q < Quads; ++q) {
      int quad;
      __builtin_memcpy(&quad, p + q * step, sizeof(quad));
      r.quad[q] = _mm256_set1_epi32(quad);
    }
    return r;
  }
  static GLAI_ALWAYS_INLINE Bytes columns(const std::uint8_t* p, std::int64_t step) {
    Bytes r;
    for (int q = 0; q < Quads; ++q) {
      r.quad[q] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + q * step));
    }
    return r;
  }
  static GLAI_ALWAYS_INLINE ByteSums plus(ByteSums sums, const Bytes& row, const Bytes& columns) {
    __m256i pairs = _mm256_maddubs_epi16(row.quad[0], columns.quad[0]);
    for (int q = 1; q < Quads; ++q) {
      pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(row.quad[q], columns.quad[q]));
    }
    pairs = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    // In place: GCC would make a copy of each sum, and spill some of them.
    asm("vpaddd %1, %0, %0" : "+x"(sums.v) : "x"(pairs));
    return sums;
  }
};

using GramDot = ByteDot<2, 64>;   // of features: 4 * 127 * 64 < 2^15
using WeightDot = ByteDot<1, 0>;  // of weights: 2 * 127 * 128 < 2^15

constexpr int kMaxTileVecs = 2;
constexpr int gather_tile_rows(int vecs) { return vecs == 1 ? 8 : 4; }
constexpr int dense_tile_rows(int vecs) { return vecs == 1 ? 8 : 6; }
// Outputs of a tile whose lanes run over features, and its samples.
constexpr int kMaxTileOutputs = 5;
constexpr int feature_tile_rows(int outputs) { return outputs < 3 ? 4 : 10 / outputs; }
constexpr int outer_tile_rows(int vecs) { return vecs == 1 ? 12 : 6; }
constexpr int kMaxOuterTileVecs = 12;  // rows x vectors of any of these tiles

}  // namespace glai::GLAI_ISA
