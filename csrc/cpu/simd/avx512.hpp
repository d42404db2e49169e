// The Simd vocabulary of generic.hpp for AVX-512 (F, BW, VL, DQ): 64-byte vectors, 32 registers.
// Where the file that includes it is compiled for more (isa_avx512_bf16.cpp), it uses that too.
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

#ifdef __AVX512BF16__
// Two bfloat16: the bits of the first are the lower half.
struct Bf16Pair {
  std::uint32_t bits;
};

// Subnormal numbers count as zero, here and where pairs are multiplied.
template <>
struct Vec<Bf16Pair> {
  static constexpr int width = 16;
  __m512i v;

  static GLAI_ALWAYS_INLINE Vec broadcast(Bf16Pair p) {
    return {_mm512_set1_epi32(static_cast<int>(p.bits))};
  }
  static GLAI_ALWAYS_INLINE Vec load(const Bf16Pair* p) { return {_mm512_loadu_si512(p)}; }
  static GLAI_ALWAYS_INLINE Vec load(const Bf16Pair* p, Tail<float> t) {
    return {_mm512_maskz_loadu_epi32(t.mask, p)};
  }
  GLAI_ALWAYS_INLINE void store(Bf16Pair* p) const { _mm512_storeu_si512(p, v); }
  // Rounded, and paired lane by lane.
  static inline Vec of(Vec<float> first, Vec<float> second);
};
#endif

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
  GLAI_ALWAYS_INLINE Vec in_register() const {
    Vec r = *this;
    asm("" : "+v"(r.v));
    return r;
  }
  static constexpr int folded = 8;
  static GLAI_ALWAYS_INLINE Vec load_folded(const float* p) {
    return {_mm512_zextps256_ps512(_mm256_loadu_ps(p))};
  }
  GLAI_ALWAYS_INLINE void store_folded(float* p) const {
    _mm256_storeu_ps(p, _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)));
  }
  static GLAI_ALWAYS_INLINE Vec load_quads(const float* p, std::int64_t step) {
    __m512 r = _mm512_castps128_ps512(_mm_loadu_ps(p));
    r = _mm512_insertf32x4(r, _mm_loadu_ps(p + step), 1);
    r = _mm512_insertf32x4(r, _mm_loadu_ps(p + 2 * step), 2);
    return {_mm512_insertf32x4(r, _mm_loadu_ps(p + 3 * step), 3)};
  }
  GLAI_ALWAYS_INLINE void store(float* p) const { _mm512_storeu_ps(p, v); }
  GLAI_ALWAYS_INLINE void store(float* p, Tail<float> t) const { _mm512_mask_storeu_ps(p, t.mask, v); }
  GLAI_ALWAYS_INLINE void stream(float* p) const { _mm512_stream_ps(p, v); }
  GLAI_ALWAYS_INLINE Vec plus_product(Vec a, Vec b) const { return {_mm512_fmadd_ps(a.v, b.v, v)}; }
#ifdef __AVX512BF16__
  // Two products a lane.
  GLAI_ALWAYS_INLINE Vec plus_product(Vec<Bf16Pair> a, Vec<Bf16Pair> b) const {
    return {_mm512_dpbf16_ps(v, (__m512bh)a.v, (__m512bh)b.v)};
  }
#endif
  GLAI_ALWAYS_INLINE Vec plus(Vec a) const { return {_mm512_add_ps(v, a.v)}; }
  GLAI_ALWAYS_INLINE Vec times(Vec a) const { return {_mm512_mul_ps(v, a.v)}; }
  GLAI_ALWAYS_INLINE Vec over(Vec a) const { return {_mm512_div_ps(v, a.v)}; }
  GLAI_ALWAYS_INLINE Vec root() const { return {_mm512_sqrt_ps(v)}; }
  GLAI_ALWAYS_INLINE Vec only(std::uint32_t bits) const {
    return {_mm512_maskz_mov_ps(static_cast<__mmask16>(bits), v)};
  }
  GLAI_ALWAYS_INLINE float total() const { return _mm512_reduce_add_ps(v); }
};

#ifdef __AVX512BF16__
GLAI_ALWAYS_INLINE Vec<Bf16Pair> Vec<Bf16Pair>::of(Vec<float> first, Vec<float> second) {
  const __m512i lanes = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,
                                         23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return {_mm512_permutexvar_epi16(lanes, (__m512i)_mm512_cvtne2ps_pbh(second.v, first.v))};
}
#endif

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
  GLAI_ALWAYS_INLINE Vec in_register() const {
    Vec r = *this;
    asm("" : "+v"(r.v));
    return r;
  }
  static constexpr int folded = 4;
  static GLAI_ALWAYS_INLINE Vec load_folded(const double* p) {
    return {_mm512_zextpd256_pd512(_mm256_loadu_pd(p))};
  }
  GLAI_ALWAYS_INLINE void store_folded(double* p) const {
    _mm256_storeu_pd(p, _mm256_add_pd(_mm512_castpd512_pd256(v), _mm512_extractf64x4_pd(v, 1)));
  }
  static GLAI_ALWAYS_INLINE Vec load_quads(const double* p, std::int64_t step) {
    return {
        _mm512_insertf64x4(_mm512_castpd256_pd512(_mm256_loadu_pd(p)), _mm256_loadu_pd(p + step), 1)};
  }
  GLAI_ALWAYS_INLINE void store(double* p) const { _mm512_storeu_pd(p, v); }
  GLAI_ALWAYS_INLINE void store(double* p, Tail<double> t) const { _mm512_mask_storeu_pd(p, t.mask, v); }
  GLAI_ALWAYS_INLINE void stream(double* p) const { _mm512_stream_pd(p, v); }
  GLAI_ALWAYS_INLINE Vec plus_product(Vec a, Vec b) const { return {_mm512_fmadd_pd(a.v, b.v, v)}; }
  GLAI_ALWAYS_INLINE Vec plus(Vec a) const { return {_mm512_add_pd(v, a.v)}; }
  GLAI_ALWAYS_INLINE Vec times(Vec a) const { return {_mm512_mul_pd(v, a.v)}; }
  GLAI_ALWAYS_INLINE Vec over(Vec a) const { return {_mm512_div_pd(v, a.v)}; }
  GLAI_ALWAYS_INLINE Vec root() const { return {_mm512_sqrt_pd(v)}; }
  GLAI_ALWAYS_INLINE Vec only(std::uint32_t bits) const {
    return {_mm512_maskz_mov_pd(static_cast<__mmask8>(bits), v)};
  }
  GLAI_ALWAYS_INLINE double total() const { return _mm512_reduce_add_pd(v); }
};

GLAI_ALWAYS_INLINE void stream_fence() { _mm_sfence(); }

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

template <class T>
struct CommonBits;

#ifdef __AVX512VPOPCNTDQ__

template <>
struct CommonBits<float> {
  // Lanes of 32 bits hold any count; this many words of a tile's columns stay in the first-level cache.
  static constexpr std::int64_t kMostWords = 64;
  __m512i counts;

  static GLAI_ALWAYS_INLINE CommonBits zero() { return {_mm512_setzero_si512()}; }
  GLAI_ALWAYS_INLINE CommonBits plus_common(std::uint32_t row, const std::uint32_t* columns) const {
    const __m512i common =
        _mm512_and_si512(_mm512_set1_epi32(static_cast<int>(row)), _mm512_loadu_si512(columns));
    return {_mm512_add_epi32(counts, _mm512_popcnt_epi32(common))};
  }
  GLAI_ALWAYS_INLINE Vec<float> total() const { return {_mm512_cvtepi32_ps(counts)}; }
};

template <>
struct CommonBits<double> {
  // Lanes of 32 bits hold any count; this many words of a tile's columns stay in the first-level cache.
  static constexpr std::int64_t kMostWords = 64;
  __m256i counts;

  static GLAI_ALWAYS_INLINE CommonBits zero() { return {_mm256_setzero_si256()}; }
  GLAI_ALWAYS_INLINE CommonBits plus_common(std::uint32_t row, const std::uint32_t* columns) const {
    const __m256i common =
        _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(row)),
                         _mm256_loadu_si256(reinterpret_cast<const __m256i*>(columns)));
    return {_mm256_add_epi32(counts, _mm256_popcnt_epi32(common))};
  }
  GLAI_ALWAYS_INLINE Vec<double> total() const { return {_mm512_cvtepi32_pd(counts)}; }
};

#else  // a byte's bits are counted by a table of the sixteen nibbles

template <>
struct CommonBits<float> {
  static constexpr std::int64_t kMostWords = 31;
  __m512i bytes;

  static GLAI_ALWAYS_INLINE CommonBits zero() { return {_mm512_setzero_si512()}; }
  GLAI_ALWAYS_INLINE CommonBits plus_common(std::uint32_t row, const std::uint32_t* columns) const {
    const __m512i common =
        _mm512_and_si512(_mm512_set1_epi32(static_cast<int>(row)), _mm512_loadu_si512(columns));
    const __m512i of_nibble =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const __m512i low = _mm512_and_si512(common, _mm512_set1_epi8(15));
    const __m512i high = _mm512_and_si512(_mm512_srli_epi16(common, 4), _mm512_set1_epi8(15));
    return {_mm512_add_epi8(bytes, _mm512_add_epi8(_mm512_shuffle_epi8(of_nibble, low),
                                                   _mm512_shuffle_epi8(of_nibble, high)))};
  }
  GLAI_ALWAYS_INLINE Vec<float> total() const {
    const __m512i pairs = _mm512_maddubs_epi16(bytes, _mm512_set1_epi8(1));
    return {_mm512_cvtepi32_ps(_mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))};
  }
};

template <>
struct CommonBits<double> {
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
  GLAI_ALWAYS_INLINE Vec<double> total() const {
    const __m256i pairs = _mm256_maddubs_epi16(bytes, _mm256_set1_epi8(1));
    return {_mm512_cvtepi32_pd(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))};
  }
};

#endif

struct ByteSums {
  static constexpr int width = 16;
  __m512i v;

  static GLAI_ALWAYS_INLINE ByteSums zero() { return {_mm512_setzero_si512()}; }
  static GLAI_ALWAYS_INLINE ByteSums load(const std::int32_t* p) { return {_mm512_loadu_si512(p)}; }
  GLAI_ALWAYS_INLINE void store(std::int32_t* p) const { _mm512_storeu_si512(p, v); }
};

// Four rows of ByteSums::width bytes, stride apart, to [ByteSums::width, 4].
GLAI_ALWAYS_INLINE void interleave_rows(const std::uint8_t* rows, std::int64_t stride,
                                        std::uint8_t* to) {
  const auto row = [&](int i) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows + i * stride));
  };
  __m512i all = _mm512_castsi128_si512(row(0));
  all = _mm512_inserti32x4(all, row(1), 1);
  all = _mm512_inserti32x4(all, row(2), 2);
  all = _mm512_inserti32x4(all, row(3), 3);
  // Quads of a row to lanes of 128 bits, in which their bytes are then transposed.
  const __m512i lanes = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i bytes =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  _mm512_storeu_si512(to, _mm512_shuffle_epi8(_mm512_permutexvar_epi32(lanes, all), bytes));
}

// A column's bytes are signed. With VNNI four products are added in 32 bits by one instruction; without,
// two in 16 bits, where 2 * kQuads of them fit. Sums are added to in place, by asm: GCC would make a
// copy of each, and spill most of them.
template <int Quads, int Offset>
struct ByteDot {
  static constexpr int kQuads = Quads, kOffset = Offset;
#ifdef __AVX512VNNI__
  static constexpr int kRows = 8, kVecs = 3;
#else
  static constexpr int kRows = 8, kVecs = 2;
#endif
  struct Bytes {
    __m512i quad[Quads];
  };

  static GLAI_ALWAYS_INLINE Bytes row(const std::uint8_t* p, std::int64_t step) {
    Bytes r;
    for (int q = 0; q < Quads; ++q) {
      int quad;
      __builtin_memcpy(&quad, p + q * step, sizeof(quad));
      r.quad[q] = _mm512_set1_epi32(quad);
    }
    return r;
  }
  static GLAI_ALWAYS_INLINE Bytes columns(const std::uint8_t* p, std::int64_t step) {
    Bytes r;
    for (int q = 0; q < Quads; ++q) r.quad[q] = _mm512_loadu_si512(p + q * step);
    return r;
  }
  static GLAI_ALWAYS_INLINE ByteSums plus(ByteSums sums, const Bytes& row, const Bytes& columns) {
#ifdef __AVX512VNNI__
    for (int q = 0; q < Quads; ++q) {
      asm("vpdpbusd %2, %1, %0" : "+v"(sums.v) : "v"(row.quad[q]), "v"(columns.quad[q]));
    }
    return sums;
#else
    __m512i pairs = _mm512_maddubs_epi16(row.quad[0], columns.quad[0]);
    for (int q = 1; q < Quads; ++q) {
      pairs = _mm512_add_epi16(pairs, _mm512_maddubs_epi16(row.quad[q], columns.quad[q]));
    }
    pairs = _mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
    asm("vpaddd %1, %0, %0" : "+v"(sums.v) : "v"(pairs));
    return sums;
#endif
  }
};

#ifdef __AVX512VNNI__
using GramDot = ByteDot<1, 0>;
#else
using GramDot = ByteDot<2, 64>;  // of features: 4 * 127 * 64 < 2^15
#endif
using WeightDot = ByteDot<1, 0>;  // of weights: 2 * 127 * 128 < 2^15

constexpr int kMaxTileVecs = 4;
constexpr int gather_tile_rows(int vecs) { return vecs <= 3 ? 8 : 6; }
constexpr int dense_tile_rows(int vecs) { return gather_tile_rows(vecs); }
// Outputs of a tile whose lanes run over features, and its samples.
constexpr int kMaxTileOutputs = 10;
constexpr int feature_tile_rows(int outputs) { return outputs < 3 ? 8 : 24 / outputs; }
constexpr int outer_tile_rows(int vecs) { return vecs <= 2 ? 12 : vecs == 3 ? 8 : 6; }
constexpr int kMaxOuterTileVecs = 24;  // rows x vectors of any of these tiles

}  // namespace glai::GLAI_ISA
