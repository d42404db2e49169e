// What a group of paths adds to its gradients: the outer products of the samples of each bucket, summed
// in registers, chain of subsets by chain; from operands where they lie, copied in order, or in pairs.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "cpu/products/buckets.hpp"
#include "cpu/products/operands.hpp"
#include "cpu/products/panel.hpp"
#include "cpu/products/subset_chains.hpp"
#include "cpu/products/tiles.hpp"

namespace glai::GLAI_ISA {

// How a tile reads an operand: the rows listed, of which b's may end within its last vector; or row
// after row, whole vectors.
enum class Reads : std::uint8_t { listed, listed_tail, in_order };

template <class Operand>
struct ChainTile {
  using T = typename SumOf<Operand>::Type;
  const Operand* a;  // M columns
  std::int64_t a_stride;
  const Operand* b;  // V vectors
  std::int64_t b_stride;
  const Buckets& buckets;  // the rows listed; those read in order lie in the order of the list
  const SubsetChains& chains;
  Tail<T> tail;  // lanes of b's last vector, listed_tail; the others count as zero
  T* totals;     // [gates, M, V vectors], written
};

// totals[gate, i, :] = sum over the samples that have the gate on of a[sample, i] * b[sample, :].
template <class Operand, int M, int V, Reads A, Reads B>
void chain_tile(const ChainTile<Operand>& t) {
  using T = typename SumOf<Operand>::Type;
  using Vector = Vec<T>;
  using Factor = Vec<Operand>;
  Vector sum[M][V] = {};
  for (int c = 0; c < t.chains.count; ++c) {
    const ChainStep& step = t.chains.steps[c];
    if (step.begins) {
#pragma GCC unroll 16
      for (int i = 0; i < M; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[i][v] = Vector::zero();
      }
    }
    const std::int64_t end = t.buckets.begin[step.subset + 1];
    for (std::int64_t r = t.buckets.begin[step.subset]; r < end; ++r) {
      const Operand* a = t.a + (A == Reads::in_order ? r : t.buckets.rows[r]) * t.a_stride;
      const Operand* b = t.b + (B == Reads::in_order ? r : t.buckets.rows[r]) * t.b_stride;
      Factor column[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        const Operand* from = b + v * Vector::width;
        column[v] =
            B == Reads::listed_tail && v == V - 1 ? Factor::load(from, t.tail) : Factor::load(from);
      }
#pragma GCC unroll 16
      for (int i = 0; i < M; ++i) {
        const Factor s = Factor::broadcast(a[i]);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[i][v] = sum[i][v].plus_product(s, column[v]);
      }
    }
    for (unsigned left = step.credited; left != 0; left &= left - 1) {
      const int gate = __builtin_ctz(left);
      T* total = t.totals + gate * (M * V * Vector::width);
      const bool first = (step.first >> gate & 1u) != 0;
#pragma GCC unroll 16
      for (int i = 0; i < M; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v, total += Vector::width) {
          (first ? sum[i][v] : sum[i][v].plus(Vector::load(total))).store(total);
        }
      }
    }
  }
}

// Runs the instance for `rows` x `vecs` known at run time, 1 <= vecs <= kMaxTileVecs.
template <class Operand, Reads A, Reads B, int V = 1>
GLAI_ALWAYS_INLINE void run_chain_tile(int rows, int vecs, const ChainTile<Operand>& t) {
  if constexpr (V < kMaxTileVecs) {
    if (vecs > V) return run_chain_tile<Operand, A, B, V + 1>(rows, vecs, t);
  }
  [&]<int... M>(std::integer_sequence<int, M...>) {
    static constexpr void (*kRun[])(const ChainTile<Operand>&) = {
        chain_tile<Operand, M + 1, V, A, B>...};
    kRun[rows - 1](t);
  }(std::make_integer_sequence<int, outer_tile_rows(V)>{});
}

// Where the gradients of a group's paths go, a stretch of a row at a time.
template <class T>
struct WriteGradient {
  bool add;  // to what is there

  GLAI_ALWAYS_INLINE void operator()(T* out, const T* values, std::int64_t count) const {
    constexpr std::int64_t lanes = Vec<T>::width;
    std::int64_t j = 0;
    for (; j + lanes <= count; j += lanes) {
      const auto value = Vec<T>::load(values + j);
      (add ? value.plus(Vec<T>::load(out + j)) : value).store(out + j);
    }
    if (j == count) return;
    const Tail<T> tail(static_cast<int>(count - j));
    const auto value = Vec<T>::load(values + j, tail);
    (add ? value.plus(Vec<T>::load(out + j, tail)) : value).store(out + j, tail);
  }
};

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
// j]; transposed: out[j, i].
template <class T, class Write = WriteGradient<T>>
struct OuterProducts {
  Rows<T> a;
  std::int64_t na;
  std::int64_t
      panel_rows;  // a lies in panels, each of a tile's columns: of so many rows; 0: as a matrix
  Rows<T> b;
  std::int64_t nb;
  const Buckets& buckets;
  int gates;
  T* const* outs;  // per path
  std::int64_t out_stride;
  bool transposed;
  Write write;
  T* totals;  // [gates, tile], then [tile] where transposed
};

// Vectors of a tile that is `rows` high: as many as leave all rows to one tile, two at least.
GLAI_ALWAYS_INLINE constexpr int outer_tile_vecs(std::int64_t rows) {
  int vecs = kMaxTileVecs;
  while (vecs > 2 && outer_tile_rows(vecs) < rows) --vecs;
  return vecs;
}

// Vectors of the widest of the tiles that cover nb columns.
template <class T>
GLAI_ALWAYS_INLINE int widest_tile(std::int64_t nb, int most_vecs) {
  const EvenSplit tiles((nb + Vec<T>::width - 1) / Vec<T>::width, most_vecs);
  return tiles.parts == 0 ? 1 : static_cast<int>(tiles.size(0));
}

// The columns of a, cut into panels that any of these tiles takes.
template <class T>
GLAI_ALWAYS_INLINE EvenSplit outer_panels(std::int64_t na, std::int64_t nb, int most_vecs) {
  return EvenSplit(na, outer_tile_rows(widest_tile<T>(nb, most_vecs)));
}

// A tile's totals, m rows from i on of `vecs` vectors from `column` on, go to the paths.
template <class T, class Write>
GLAI_ALWAYS_INLINE void write_totals(const OuterProducts<T, Write>& t, std::int64_t i, std::int64_t m,
                                     std::int64_t column, int vecs) {
  constexpr std::int64_t lanes = Vec<T>::width;
  const std::int64_t width = vecs * lanes, left = t.nb - column;
  const std::int64_t count = left < width ? left : width;
  for (int g = 0; g < t.gates; ++g) {
    const T* totals = t.totals + g * m * width;
    if (!t.transposed) {
      T* out = t.outs[g] + i * t.out_stride + column;
      for (std::int64_t r = 0; r < m; ++r) t.write(out + r * t.out_stride, totals + r * width, count);
      continue;
    }
    T* turned = t.totals + t.gates * m * width;
    pack_transposed(totals, width, width, m, turned, m);
    T* out = t.outs[g] + column * t.out_stride + i;
    if (m == t.out_stride) {
      t.write(out, turned, count * m);
    } else {
      for (std::int64_t j = 0; j < count; ++j) t.write(out + j * t.out_stride, turned + j * m, m);
    }
  }
}

// The tile of rows [i, i + m) and the vectors from `column` on; a and b start there.
template <class Operand, Reads A, Reads B, class T, class Write>
GLAI_ALWAYS_INLINE void add_outer_tile(const OuterProducts<T, Write>& t, const Buckets& buckets,
                                       std::int64_t i, std::int64_t m, std::int64_t column, int vecs,
                                       Tail<T> tail, const Rows<Operand>& a, const Rows<Operand>& b) {
  if constexpr (std::is_same_v<Write, WriteGradient<T>>) {
    if (t.gates == 1 && !t.transposed) {  // straight from the registers
      const std::int64_t begin = buckets.begin[1];
      return run_outer_tile<Operand, A != Reads::in_order, B != Reads::in_order>(
          static_cast<int>(m), vecs,
          {a.data, a.stride, b.data, b.stride, buckets.rows + begin, buckets.begin[2] - begin, tail,
           t.outs[0] + i * t.out_stride + column, t.out_stride, false, t.write.add});
    }
  }
  run_chain_tile<Operand, A, B>(
      static_cast<int>(m), vecs,
      {a.data, a.stride, b.data, b.stride, buckets, kSubsetChains[t.gates], tail, t.totals});
  write_totals(t, i, m, column, vecs);
}

template <class T, class Write>
GLAI_ALWAYS_INLINE Rows<T> panel_of(const OuterProducts<T, Write>& t, std::int64_t i, std::int64_t m) {
  if (t.panel_rows == 0) return {t.a.data + i, t.a.stride};
  return {t.a.data + i * t.panel_rows, m};
}

// Operands read where they lie.
template <class T, class Write>
GLAI_ALWAYS_INLINE void add_outer_products(const OuterProducts<T, Write>& t, int most_vecs) {
  for_column_tiles<T>(
      t.nb,
      [&](std::int64_t column, int vecs, Tail<T> tail) {
        const bool whole = column + vecs * Vec<T>::width <= t.nb;
        const EvenSplit panels = t.panel_rows == 0 ? EvenSplit(t.na, outer_tile_rows(vecs))
                                                   : outer_panels<T>(t.na, t.nb, most_vecs);
        for (std::int64_t g = 0; g < panels.parts; ++g) {
          const std::int64_t i = panels.begin(g), m = panels.size(g);
          const Rows<T> a = panel_of(t, i, m), b{t.b.data + column, t.b.stride};
          if (whole) {
            add_outer_tile<T, Reads::listed, Reads::listed>(t, t.buckets, i, m, column, vecs, tail, a,
                                                            b);
          } else {
            add_outer_tile<T, Reads::listed, Reads::listed_tail>(t, t.buckets, i, m, column, vecs, tail,
                                                                 a, b);
          }
        }
      },
      most_vecs);
}

// The same for wide results: b, and a where it is read often and not in panels, copied in the order in
// which tiles read them.
template <class T>
struct PackedOperands {
  T* a;  // [rows, a tile's], or null: as it lies
  T* b;  // [nb in whole vectors, rows]
};

template <class T, class Write>
GLAI_ALWAYS_INLINE void add_packed_outer_products(const OuterProducts<T, Write>& t, int most_vecs,
                                                  const PackedOperands<T>& packed) {
  const std::int64_t rows = t.buckets.begin[1 << t.gates];
  const std::uint16_t* list = t.buckets.rows;
  for_column_tiles<T>(
      t.nb,
      [&](std::int64_t column, int vecs, Tail<T>) {
        const std::int64_t width = vecs * Vec<T>::width, left = t.nb - column;
        pack_rows(t.b, list, rows, column, left < width ? left : width, width, packed.b + column * rows);
      },
      most_vecs);
  const auto b_of = [&](std::int64_t column, int vecs) {
    return Rows<T>{packed.b + column * rows, vecs * Vec<T>::width};
  };
  if (packed.a == nullptr && t.panel_rows == 0) {
    return for_column_tiles<T>(
        t.nb,
        [&](std::int64_t column, int vecs, Tail<T> tail) {
          const EvenSplit panels(t.na, outer_tile_rows(vecs));
          for (std::int64_t g = 0; g < panels.parts; ++g) {
            const std::int64_t i = panels.begin(g), m = panels.size(g);
            add_outer_tile<T, Reads::listed, Reads::in_order>(t, t.buckets, i, m, column, vecs, tail,
                                                              panel_of(t, i, m), b_of(column, vecs));
          }
        },
        most_vecs);
  }
  // Along the rows of the result, so that memory is written in order.
  const EvenSplit panels = outer_panels<T>(t.na, t.nb, most_vecs);
  for (std::int64_t g = 0; g < panels.parts; ++g) {
    const std::int64_t i = panels.begin(g), m = panels.size(g);
    if (packed.a != nullptr) pack_rows(t.a, list, rows, i, m, m, packed.a);
    for_column_tiles<T>(
        t.nb,
        [&](std::int64_t column, int vecs, Tail<T> tail) {
          if (packed.a == nullptr) {
            add_outer_tile<T, Reads::listed, Reads::in_order>(t, t.buckets, i, m, column, vecs, tail,
                                                              panel_of(t, i, m), b_of(column, vecs));
          } else {
            add_outer_tile<T, Reads::in_order, Reads::in_order>(t, t.buckets, i, m, column, vecs, tail,
                                                                {packed.a, m}, b_of(column, vecs));
          }
        },
        most_vecs);
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
template <class Operand, class Write>
GLAI_ALWAYS_INLINE void add_paired_outer_products(const OuterProducts<float, Write>& t, int most_vecs,
                                                  Operand* memory) {
  constexpr std::int64_t lanes = Vec<float>::width;
  const int subsets = 1 << t.gates;
  Buckets pairs{};
  for (int s = 1; s < subsets; ++s) {
    const int rows = t.buckets.begin[s + 1] - t.buckets.begin[s];
    pairs.begin[s + 1] = static_cast<std::uint16_t>(pairs.begin[s] + (rows + 1) / 2);
  }
  const std::int64_t count = pairs.begin[subsets];
  const EvenSplit panels = outer_panels<float>(t.na, t.nb, most_vecs);
  Operand* a = memory;
  Operand* b = memory + count * t.na + lanes;
  for (std::int64_t g = 0; g < panels.parts; ++g) {
    const std::int64_t i = panels.begin(g), m = panels.size(g);
    pack_row_pairs(t.a, t.buckets, subsets, i, m, m, a + i * count);
  }
  for_column_tiles<float>(
      t.nb,
      [&](std::int64_t column, int vecs, Tail<float> tail) {
        const std::int64_t width = vecs * lanes, left = t.nb - column;
        pack_row_pairs(t.b, t.buckets, subsets, column, left < width ? left : width, width, b);
        for (std::int64_t g = 0; g < panels.parts; ++g) {
          const std::int64_t i = panels.begin(g), m = panels.size(g);
          add_outer_tile<Operand, Reads::in_order, Reads::in_order>(t, pairs, i, m, column, vecs, tail,
                                                                    {a + i * count, m}, {b, width});
        }
      },
      most_vecs);
}

}  // namespace glai::GLAI_ISA
