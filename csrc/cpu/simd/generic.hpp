// The Simd vocabulary, portable: 16-byte vectors of the compiler's own extension, so that every
// architecture it knows gets vector code. The other files of this folder define the same names.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/tensor.hpp"

namespace glai::GLAI_ISA {

// The first `count` lanes of a vector, 0 <= count <= width.
template <class T>
struct Tail {
  int count;
  GLAI_ALWAYS_INLINE explicit Tail(int n) : count(n) {}
};

template <class T>
struct Vec {
  static constexpr int width = 16 / static_cast<int>(sizeof(T));
  typedef T Lanes __attribute__((vector_size(16)));
  Lanes v;

  static GLAI_ALWAYS_INLINE Vec zero() { return {Lanes{}}; }
  static GLAI_ALWAYS_INLINE Vec broadcast(T s) { return {Lanes{} + s}; }
  static GLAI_ALWAYS_INLINE Vec load(const T* p) {
    Vec r;
    __builtin_memcpy(&r.v, p, sizeof(r.v));
    return r;
  }
  static GLAI_ALWAYS_INLINE Vec load(const T* p, Tail<T> tail) {
    Vec r = zero();
    for (int i = 0; i < tail.count; ++i) r.v[i] = p[i];
    return r;
  }
  // Loaded once, where the compiler would load it again for each use.
  GLAI_ALWAYS_INLINE Vec in_register() const { return *this; }
  // A sum over lanes that is not complete: the upper half of the lanes added to the lower, where that is
  // cheap, so that less is written; and a vector that continues it.
  static constexpr int folded = width;
  static GLAI_ALWAYS_INLINE Vec load_folded(const T* p) { return load(p); }
  GLAI_ALWAYS_INLINE void store_folded(T* p) const { store(p); }
  // Quads of elements, `step` apart, side by side; not of vectors shorter than a quad.
  static GLAI_ALWAYS_INLINE Vec load_quads(const T* p, std::int64_t) { return load(p); }
  GLAI_ALWAYS_INLINE void store(T* p) const { __builtin_memcpy(p, &v, sizeof(v)); }
  GLAI_ALWAYS_INLINE void store(T* p, Tail<T> tail) const {
    for (int i = 0; i < tail.count; ++i) p[i] = v[i];
  }
  // Past the caches where the instruction set can, for what will not be read soon; p is aligned to the
  // vector, and stream_fence() must follow before another thread may read.
  GLAI_ALWAYS_INLINE void stream(T* p) const { store(p); }
  // *this + a * b
  GLAI_ALWAYS_INLINE Vec plus_product(Vec a, Vec b) const { return {v + a.v * b.v}; }
  GLAI_ALWAYS_INLINE Vec plus(Vec a) const { return {v + a.v}; }
  GLAI_ALWAYS_INLINE Vec times(Vec a) const { return {v * a.v}; }
  GLAI_ALWAYS_INLINE Vec over(Vec a) const { return {v / a.v}; }
  GLAI_ALWAYS_INLINE Vec root() const {
    Vec r;
    for (int i = 0; i < width; ++i) r.v[i] = std::sqrt(v[i]);
    return r;
  }
  // The lanes whose bit is set, 0 for the others whatever they hold.
  GLAI_ALWAYS_INLINE Vec only(std::uint32_t bits) const {
    Vec r;
    for (int i = 0; i < width; ++i) r.v[i] = (bits >> i & 1u) != 0 ? v[i] : T(0);
    return r;
  }
  // Sum of the lanes.
  GLAI_ALWAYS_INLINE T total() const {
    T sum = v[0];
    for (int i = 1; i < width; ++i) sum += v[i];
    return sum;
  }
};

GLAI_ALWAYS_INLINE void stream_fence() {}

// Bit i is set when p[i] > 0 (NaN is not), for 32 elements.
template <class T>
GLAI_ALWAYS_INLINE std::uint32_t positive_word(const T* p) {
  std::uint32_t word = 0;
  for (int i = 0; i < 32; ++i) word |= static_cast<std::uint32_t>(p[i] > T(0)) << i;
  return word;
}

// Counts the bits that words of a row share with words of columns, one column per lane of Vec<T>.
template <class T>
struct CommonBits {
  static constexpr int width = Vec<T>::width;
  // Words that may be added before total(): every byte holds a count of its own, at most 8 per word.
  static constexpr std::int64_t kMostWords = 31;
  typedef std::uint32_t Lanes __attribute__((vector_size(4 * width)));
  Lanes bytes;

  static GLAI_ALWAYS_INLINE CommonBits zero() { return {Lanes{}}; }
  GLAI_ALWAYS_INLINE CommonBits plus_common(std::uint32_t row, const std::uint32_t* columns) const {
    Lanes c;
    __builtin_memcpy(&c, columns, sizeof(c));
    c &= row;
    c -= c >> 1 & 0x55555555u;
    c = (c & 0x33333333u) + (c >> 2 & 0x33333333u);
    return {bytes + ((c + (c >> 4)) & 0x0f0f0f0fu)};
  }
  GLAI_ALWAYS_INLINE Vec<T> total() const {
    const Lanes pairs = (bytes & 0x00ff00ffu) + (bytes >> 8 & 0x00ff00ffu);
    const Lanes lanes = (pairs + (pairs >> 16)) & 0xffffu;
    std::uint32_t sums[width];
    __builtin_memcpy(sums, &lanes, sizeof(sums));
    Vec<T> r;
    for (int i = 0; i < width; ++i) r.v[i] = static_cast<T>(sums[i]);
    return r;
  }
};

// Sums of products of bytes, 32 bits in each lane: one column, or unit, a lane.
struct ByteSums {
  static constexpr int width = 4;
  typedef std::uint32_t Lanes __attribute__((vector_size(16)));
  Lanes v;

  static GLAI_ALWAYS_INLINE ByteSums zero() { return {Lanes{}}; }
  static GLAI_ALWAYS_INLINE ByteSums load(const std::int32_t* p) {
    ByteSums r;
    __builtin_memcpy(&r.v, p, sizeof(r.v));
    return r;
  }
  GLAI_ALWAYS_INLINE void store(std::int32_t* p) const { __builtin_memcpy(p, &v, sizeof(v)); }
};

// Four rows of ByteSums::width bytes, stride apart, to [ByteSums::width, 4].
GLAI_ALWAYS_INLINE void interleave_rows(const std::uint8_t* rows, std::int64_t stride,
                                        std::uint8_t* to) {
  for (std::int64_t c = 0; c < ByteSums::width; ++c) {
    for (std::int64_t i = 0; i < 4; ++i) to[4 * c + i] = rows[i * stride + c];
  }
}

// What is added at a time: kQuads times four products of bytes of a row, 0 to 127, and bytes of a
// column. A column's bytes are stored less kOffset; who adds them owes kOffset times the sum of the
// row's bytes. Here all are unsigned, and 16 bits hold what is added to each half of a lane.
template <int Quads, int Offset>
struct ByteDot {
  static constexpr int kQuads = Quads, kOffset = Offset;
  static constexpr int kRows = 4, kVecs = 1;  // of a tile
  typedef std::uint16_t Halves __attribute__((vector_size(16)));
  // Bytes of even places and of odd ones.
  struct Bytes {
    Halves even[Quads], odd[Quads];
  };

  // The quads of a row, to every lane; `step` bytes from one to the next.
  static GLAI_ALWAYS_INLINE Bytes row(const std::uint8_t* p, std::int64_t step) {
    Bytes r;
    for (int q = 0; q < Quads; ++q) {
      std::uint32_t quad;
      __builtin_memcpy(&quad, p + q * step, sizeof(quad));
      r.even[q] = (Halves)(ByteSums::Lanes{} + (quad & 0x00ff00ffu));
      r.odd[q] = (Halves)(ByteSums::Lanes{} + (quad >> 8 & 0x00ff00ffu));
    }
    return r;
  }
  static GLAI_ALWAYS_INLINE Bytes columns(const std::uint8_t* p, std::int64_t step) {
    Bytes r;
    for (int q = 0; q < Quads; ++q) {
      __builtin_memcpy(&r.odd[q], p + q * step, sizeof(Halves));
      r.even[q] = r.odd[q] & 255;
      r.odd[q] >>= 8;
    }
    return r;
  }
  static GLAI_ALWAYS_INLINE ByteSums plus(ByteSums sums, const Bytes& row, const Bytes& columns) {
    Halves pairs = row.even[0] * columns.even[0] + row.odd[0] * columns.odd[0];
    for (int q = 1; q < Quads; ++q) {
      pairs += row.even[q] * columns.even[q] + row.odd[q] * columns.odd[q];
    }
    const auto lanes = (ByteSums::Lanes)pairs;
    return {sums.v + (lanes & 0xffffu) + (lanes >> 16)};
  }
};

using GramDot = ByteDot<2, 0>;       // of features: 4 * 127 * 127 < 2^16
using WeightDot = ByteDot<1, -128>;  // of weights, -128 to 127: 2 * 127 * 255 < 2^16

// Register budget: how many vectors a tile is wide, and how many rows it then has.
constexpr int kMaxTileVecs = 2;
constexpr int gather_tile_rows(int) { return 4; }
constexpr int dense_tile_rows(int) { return 4; }
// Outputs of a tile whose lanes run over features, and its samples.
constexpr int kMaxTileOutputs = 5;
constexpr int feature_tile_rows(int outputs) { return outputs < 3 ? 4 : 10 / outputs; }
constexpr int outer_tile_rows(int vecs) { return vecs == 1 ? 8 : 4; }
constexpr int kMaxOuterTileVecs = 8;  // rows x vectors of any of these tiles

}  // namespace glai::GLAI_ISA
