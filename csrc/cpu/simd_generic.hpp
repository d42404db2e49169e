// The Simd vocabulary, portable: 16-byte vectors of the compiler's own extension, so that every
// architecture it knows gets vector code. The other simd_*.hpp define the same names.
#pragma once

#include <cstdint>

#include "core/tensor.hpp"

namespace glai::GLAI_ISA {

// The first `count` lanes of a vector, 0 < count <= width.
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
  GLAI_ALWAYS_INLINE void store(T* p) const { __builtin_memcpy(p, &v, sizeof(v)); }
  GLAI_ALWAYS_INLINE void store(T* p, Tail<T> tail) const {
    for (int i = 0; i < tail.count; ++i) p[i] = v[i];
  }
  // *this + a * b
  GLAI_ALWAYS_INLINE Vec plus_product(Vec a, Vec b) const { return {v + a.v * b.v}; }
  GLAI_ALWAYS_INLINE Vec plus(Vec a) const { return {v + a.v}; }
  // Sum of the lanes.
  GLAI_ALWAYS_INLINE T total() const {
    T sum = v[0];
    for (int i = 1; i < width; ++i) sum += v[i];
    return sum;
  }
};

// Bit i is set when p[i] > 0 (NaN is not), for 32 elements.
template <class T>
GLAI_ALWAYS_INLINE std::uint32_t positive_word(const T* p) {
  std::uint32_t word = 0;
  for (int i = 0; i < 32; ++i) word |= static_cast<std::uint32_t>(p[i] > T(0)) << i;
  return word;
}

// Register budget: how many vectors a tile is wide, and how many rows it then has.
constexpr int kMaxTileVecs = 2;
constexpr int gather_tile_rows(int) { return 4; }
constexpr int outer_tile_rows(int vecs) { return vecs == 1 ? 8 : 4; }
constexpr int kMaxOuterTileVecs = 8;  // rows x vectors of any of these tiles

}  // namespace glai::GLAI_ISA
