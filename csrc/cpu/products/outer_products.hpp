// What a group of paths adds to its gradients: the outer products of each bucket's samples, summed in
// registers and folded into the paths; from operands where they lie, copied in order, or in pairs.
#pragma once

#include <cstdint>

#include "cpu/products/buckets.hpp"
#include "cpu/products/operands.hpp"
#include "cpu/products/tiles.hpp"

namespace glai::GLAI_ISA {

// Where the gradient of one path goes, one tile at a time.
template <class T>
struct GradTile {
  T* out;
  std::int64_t stride;
  bool add;  // to what is there
};

// out[path, i, :] (+)= sum over the subsets that hold the path of sums[subset, i, :], for M x V vectors;
// sums are used up.
template <class T>
GLAI_ALWAYS_INLINE void fold_subsets(T* sums, int gates, int m, int vecs, Tail<T> tail,
                                     const GradTile<T>* tiles) {
  constexpr int width = Vec<T>::width;
  const std::int64_t size = static_cast<std::int64_t>(m) * vecs * width;
  for (int i = 0; i < m; ++i) {
    for (int v = 0; v < vecs; ++v) {
      T* line = sums + (i * vecs + v) * width;
      for (int g = gates - 1; g >= 0; --g) {
        const int half = 1 << g;
        Vec<T> total = Vec<T>::load(line + half * size);
        for (int s = 1; s < half; ++s) {
          const Vec<T> with = Vec<T>::load(line + (half + s) * size);
          total = total.plus(with);
          Vec<T>::load(line + s * size).plus(with).store(line + s * size);
        }
        T* out = tiles[g].out + i * tiles[g].stride + v * width;
        if (v == vecs - 1) {
          if (tiles[g].add) total = total.plus(Vec<T>::load(out, tail));
          total.store(out, tail);
        } else {
          if (tiles[g].add) total = total.plus(Vec<T>::load(out));
          total.store(out);
        }
      }
    }
  }
}

// One operand of outer products: rows of T, a stride apart, read from a first column on.
template <class T>
struct Rows {
  const T* data;  // row 0, at the first column
  std::int64_t stride;
};

// Copies `count` columns of the rows listed, one row after another, `width` apart and filled up with
// zeros.
template <class T>
GLAI_ALWAYS_INLINE void pack_rows(const Rows<T>& from, const std::uint16_t* list, std::int64_t rows,
                                  std::int64_t first, std::int64_t count, std::int64_t width, T* out) {
  constexpr std::int64_t lanes = Vec<T>::width;
  const std::int64_t whole = count / lanes * lanes;
  const Tail<T> rest(static_cast<int>(count - whole));
  const Tail<T> room(static_cast<int>(width - whole < lanes ? width - whole : lanes));
  for (std::int64_t r = 0; r < rows; ++r) {
    const T* line = from.data + list[r] * from.stride + first;
    for (std::int64_t j = 0; j < whole; j += lanes) Vec<T>::load(line + j).store(out + j);
    if (whole < width) Vec<T>::load(line + whole, rest).store(out + whole, room);
    out += width;
  }
}

// The gradients of a group's paths: out[i, j] (+)= sum over a path's samples of a[sample, i] * b[sample,
// j].
template <class T>
struct OuterProducts {
  Rows<T> a;
  std::int64_t na;
  Rows<T> b;
  std::int64_t nb;
  const Buckets& buckets;
  int gates;
  T* sums;                  // [subsets, tile]
  const GradTile<T>* outs;  // per path
};

// The tile of rows [i, i + m) and the vectors from `column` on; a and b start there.
template <class Operand, bool GatherA, bool GatherB, class T = typename SumOf<Operand>::Type>
GLAI_ALWAYS_INLINE void add_outer_tile(const OuterProducts<T>& t, std::int64_t i, int m,
                                       std::int64_t column, int vecs, Tail<T> tail,
                                       const Rows<Operand>& a, const Rows<Operand>& b) {
  const std::int64_t width = vecs * Vec<T>::width;
  const auto tile_of = [&](int s, int end, T* out, std::int64_t stride, bool whole, bool add) {
    const std::int64_t begin = t.buckets.begin[s];
    return OuterTile<Operand>{GatherA ? a.data : a.data + begin * a.stride,
                              a.stride,
                              GatherB ? b.data : b.data + begin * b.stride,
                              b.stride,
                              t.buckets.rows + begin,
                              t.buckets.begin[end] - begin,
                              tail,
                              out,
                              stride,
                              whole,
                              add};
  };
  if (t.gates == 1) {
    const GradTile<T>& one = t.outs[0];
    return run_outer_tile<Operand, GatherA, GatherB>(
        m, vecs, tile_of(1, 2, one.out + i * one.stride + column, one.stride, false, one.add));
  }
  for (int s = 1; s < 1 << t.gates; ++s) {
    run_outer_tile<Operand, GatherA, GatherB>(m, vecs,
                                              tile_of(s, s + 1, t.sums + s * m * width, 0, true, false));
  }
  GradTile<T> tiles[kMaxGroupGates];
  for (int p = 0; p < t.gates; ++p) {
    tiles[p] = {t.outs[p].out + i * t.outs[p].stride + column, t.outs[p].stride, t.outs[p].add};
  }
  fold_subsets<T>(t.sums, t.gates, m, vecs, tail, tiles);
}

// Operands read where they lie.
template <class T>
GLAI_ALWAYS_INLINE void add_outer_products(const OuterProducts<T>& t) {
  for_column_tiles<T>(t.nb, [&](std::int64_t column, int vecs, Tail<T> tail) {
    const EvenSplit groups(t.na, outer_tile_rows(vecs));
    for (std::int64_t g = 0; g < groups.parts; ++g) {
      const std::int64_t i = groups.begin(g);
      add_outer_tile<T, true, true>(t, i, static_cast<int>(groups.size(g)), column, vecs, tail,
                                    {t.a.data + i, t.a.stride}, {t.b.data + column, t.b.stride});
    }
  });
}

// The same for wide results: b, and a where it is read often, copied in the order in which tiles read
// them.
template <class T>
struct PackedOperands {
  T* a;  // [rows, a tile's], or null: as it lies
  T* b;  // [nb in whole vectors, rows]
};

template <class T>
GLAI_ALWAYS_INLINE void add_packed_outer_products(const OuterProducts<T>& t,
                                                  const PackedOperands<T>& packed) {
  const std::int64_t rows = t.buckets.begin[1 << t.gates];
  const std::uint16_t* list = t.buckets.rows;
  for_column_tiles<T>(t.nb, [&](std::int64_t column, int vecs, Tail<T>) {
    const std::int64_t width = vecs * Vec<T>::width, left = t.nb - column;
    pack_rows(t.b, list, rows, column, left < width ? left : width, width, packed.b + column * rows);
  });
  const auto b_of = [&](std::int64_t column, int vecs) {
    return Rows<T>{packed.b + column * rows, vecs * Vec<T>::width};
  };
  if (packed.a == nullptr) {
    return for_column_tiles<T>(t.nb, [&](std::int64_t column, int vecs, Tail<T> tail) {
      const EvenSplit groups(t.na, outer_tile_rows(vecs));
      for (std::int64_t g = 0; g < groups.parts; ++g) {
        const std::int64_t i = groups.begin(g);
        add_outer_tile<T, true, false>(t, i, static_cast<int>(groups.size(g)), column, vecs, tail,
                                       {t.a.data + i, t.a.stride}, b_of(column, vecs));
      }
    });
  }
  // Along the rows of the result, so that memory is written in order.
  const EvenSplit groups(t.na, outer_tile_rows(kMaxTileVecs));
  for (std::int64_t g = 0; g < groups.parts; ++g) {
    const std::int64_t i = groups.begin(g), m = groups.size(g);
    pack_rows(t.a, list, rows, i, m, m, packed.a);
    for_column_tiles<T>(t.nb, [&](std::int64_t column, int vecs, Tail<T> tail) {
      add_outer_tile<T, false, false>(t, i, static_cast<int>(m), column, vecs, tail, {packed.a, m},
                                      b_of(column, vecs));
    });
  }
}

// Pairs of the rows listed, each bucket's by themselves, the last row of an odd number with zeros:
// `count` columns, `width` apart; up to a vector past them is overwritten.
template <class Operand>
GLAI_ALWAYS_INLINE void pack_row_pairs(const Rows<float>& from, const Buckets& buckets, int subsets,
                                       std::int64_t first, std::int64_t count, std::int64_t width,
                                       Operand* out) {
  using Vector = Vec<float>;
  for (int s = 1; s < subsets; ++s) {
    for (int i = buckets.begin[s]; i < buckets.begin[s + 1]; i += 2, out += width) {
      const bool odd = i + 1 == buckets.begin[s + 1];
      const float* line = from.data + buckets.rows[i] * from.stride + first;
      const float* next = from.data + buckets.rows[odd ? i : i + 1] * from.stride + first;
      for (std::int64_t j = 0; j < count; j += Vector::width) {
        const Tail<float> here(static_cast<int>(count - j < Vector::width ? count - j : Vector::width));
        const Vector second = odd ? Vector::zero() : Vector::load(next + j, here);
        Vec<Operand>::of(Vector::load(line + j, here), second).store(out + j);
      }
    }
  }
}

// Operands that pack_row_pairs makes of a group's products.
GLAI_ALWAYS_INLINE std::int64_t most_row_pairs(std::int64_t rows, int subsets) {
  return rows / 2 + subsets;
}

// The same from operands rounded to bfloat16, in pairs of samples. memory: for all of a, a tile's b.
template <class Operand>
GLAI_ALWAYS_INLINE void add_paired_outer_products(const OuterProducts<float>& t, Operand* memory) {
  constexpr std::int64_t lanes = Vec<float>::width;
  const int subsets = 1 << t.gates;
  Buckets pairs{};
  for (int s = 1; s < subsets; ++s) {
    const int rows = t.buckets.begin[s + 1] - t.buckets.begin[s];
    pairs.begin[s + 1] = static_cast<std::uint16_t>(pairs.begin[s] + (rows + 1) / 2);
  }
  const OuterProducts<float> products{t.a, t.na, t.b, t.nb, pairs, t.gates, t.sums, t.outs};
  const std::int64_t count = pairs.begin[subsets];
  const EvenSplit tiles((t.nb + lanes - 1) / lanes, kMaxTileVecs);
  const int most_vecs = tiles.parts == 0 ? 1 : static_cast<int>(tiles.size(0));
  const EvenSplit groups(t.na, outer_tile_rows(most_vecs));
  Operand* a = memory;
  Operand* b = memory + count * t.na + lanes;
  for (std::int64_t g = 0; g < groups.parts; ++g) {
    const std::int64_t i = groups.begin(g), m = groups.size(g);
    pack_row_pairs(t.a, t.buckets, subsets, i, m, m, a + i * count);
  }
  for_column_tiles<float>(t.nb, [&](std::int64_t column, int vecs, Tail<float> tail) {
    const std::int64_t width = vecs * lanes, left = t.nb - column;
    pack_row_pairs(t.b, t.buckets, subsets, column, left < width ? left : width, width, b);
    for (std::int64_t g = 0; g < groups.parts; ++g) {
      const std::int64_t i = groups.begin(g), m = groups.size(g);
      add_outer_tile<Operand, false, false>(products, i, static_cast<int>(m), column, vecs, tail,
                                            {a + i * count, m}, {b, width});
    }
  });
}

}  // namespace glai::GLAI_ISA
