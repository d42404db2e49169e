// path_gram: the gram matrix of the path features g[n,p] * x[n,d]. A block (p, q) of it is the sum of
// x x^T over the samples where both paths are on: it depends on the pair alone and is symmetric, so only
// its upper half is summed.
//
// Paths q are taken five at a time. The samples of p are sorted by which of the five they have on; the
// outer products of each of the 31 subsets are summed once, and a block is the sum of the 16 subsets
// that hold its q: five blocks for one pass over the samples of p.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/args.hpp"
#include "core/gates.hpp"
#include "core/plan.hpp"
#include "core/scratch.hpp"
#include "cpu/parallel.hpp"
#include "cpu/products/buckets.hpp"
#include "cpu/products/dense_outer_product.hpp"
#include "cpu/products/panel.hpp"
#include "cpu/products/tiles.hpp"

namespace glai::GLAI_ISA {

constexpr int kGramGates = kMaxGroupGates;
constexpr int kGramSubsets = 1 << kGramGates;
static_assert(kGramGates <= 8);  // a subset is a byte
// Blocks are computed in squares of at most this side, so that the sums of all subsets stay in the
// second-level cache.
template <class T>
constexpr std::int64_t kGramSide = 256 / sizeof(T);
// Between the squares of two subsets, a cache line more than a square: else a row of all subsets falls
// on few cache sets.
template <class T>
constexpr std::int64_t kGramSquareStride = kGramSide<T> * kGramSide<T> + 64 / sizeof(T);
// Samples per pass: enough that each subset has many.
constexpr std::int64_t kGramSamples = 4096;

// Features of a dense gram matrix, whose sums are a matrix of their own until they are added: 128 MB.
constexpr std::int64_t kMostDense = 4096;

// A square of a block: features [row, row + rows) by [column, column + columns), row <= column.
struct GramSquare {
  std::int64_t row, rows;
  std::int64_t column, columns;
  GLAI_ALWAYS_INLINE bool on_diagonal() const { return row == column; }
};

// The samples of one path by the subset of a group's gates that they have on.
struct SubsetRows {
  Buckets sorted;
  int used[kGramSubsets];  // the subsets that have samples, but the empty one
  int n_used;
};

// `gates` masks those of the group that count.
GLAI_ALWAYS_INLINE void sort_by_subset(const std::uint32_t* words, std::int64_t n_words,
                                       std::int64_t first_gate, std::uint32_t gates,
                                       const std::uint16_t* rows, std::int64_t active, SubsetRows& out) {
  const std::int64_t word = first_gate / kWordBits;
  const int shift = static_cast<int>(first_gate % kWordBits);
  const bool straddles = shift > kWordBits - kGramGates && word + 1 < n_words;
  std::uint8_t subset[kGramSamples];
  std::uint16_t place[kGramSubsets] = {};
  for (std::int64_t i = 0; i < active; ++i) {
    const std::uint32_t* row = words + rows[i] * n_words + word;
    std::uint64_t bits = row[0];
    if (straddles) bits |= static_cast<std::uint64_t>(row[1]) << kWordBits;
    subset[i] = static_cast<std::uint8_t>(bits >> shift & gates);
    ++place[subset[i]];
  }
  out.n_used = 0;
  std::uint16_t sum = 0;
  for (int s = 1; s < kGramSubsets; ++s) {
    if (place[s] > 0) out.used[out.n_used++] = s;
    out.sorted.begin[s] = sum;
    sum = static_cast<std::uint16_t>(sum + place[s]);
    place[s] = out.sorted.begin[s];
  }
  out.sorted.begin[kGramSubsets] = sum;
  place[0] = sum;
  for (std::int64_t i = 0; i < active; ++i) {
    const int s = subset[i];
    out.sorted.rows[place[s]] = rows[i];
    place[s] = static_cast<std::uint16_t>(place[s] + (s != 0));
  }
}

// A tile of a square: rows [i, i + m), columns [j, j + vecs vectors), of which tail are in the square.
// Its sums lie at `at`, [m, vecs vectors], among those of the square.
template <class T>
struct GramTile {
  std::int64_t i;
  int m;
  std::int64_t j;
  int vecs;
  Tail<T> tail;
  std::int64_t at;
};

// Calls f(GramTile) for the tiles of a square; on the diagonal only those that hold some column >= row.
template <class T, class F>
GLAI_ALWAYS_INLINE void for_gram_tiles(const GramSquare& square, const F& f) {
  constexpr std::int64_t width = Vec<T>::width;
  std::int64_t at = 0;
  for (std::int64_t i = 0; i < square.rows;) {
    const std::int64_t start = square.on_diagonal() ? i / width * width : 0;
    const std::int64_t vecs_left = (square.columns - start + width - 1) / width;
    const int most =
        outer_tile_rows(vecs_left < kMaxTileVecs ? static_cast<int>(vecs_left) : kMaxTileVecs);
    const int m = square.rows - i < most ? static_cast<int>(square.rows - i) : most;
    for_column_tiles<T>(square.columns - start, [&](std::int64_t column, int vecs, Tail<T> tail) {
      f(GramTile<T>{i, m, start + column, vecs, tail, at});
      at += m * vecs * width;
    });
    i += m;
  }
}

// sums = a^T b over the rows listed, tile by tile.
template <class T>
GLAI_ALWAYS_INLINE void sum_outer_products(const GramSquare& square, const T* a, const T* b,
                                           std::int64_t stride, const std::uint16_t* rows,
                                           std::int64_t n_rows, T* sums) {
  for_gram_tiles<T>(square, [&](const GramTile<T>& tile) {
    run_outer_tile<T, true, true>(tile.m, tile.vecs,
                                  {a + tile.i, stride, b + tile.j, stride, rows, n_rows, tile.tail,
                                   sums + tile.at, 0, true, false});
  });
}

// blocks[gate] = sum of the subsets that hold the gate, as squares. Row by row, so that a row of all
// subsets is read from the first-level cache for every gate but the first.
template <class T>
GLAI_ALWAYS_INLINE void sum_subsets(const GramSquare& square, const SubsetRows& subsets, const T* sums,
                                    T* blocks) {
  constexpr std::int64_t side = kGramSide<T>, width = Vec<T>::width;
  std::int64_t from[kGramGates][kGramSubsets];
  int count[kGramGates] = {};
  for (int u = 0; u < subsets.n_used; ++u) {
    const int subset = subsets.used[u];
    for (int gate = 0; gate < kGramGates; ++gate) {
      if ((subset >> gate & 1) != 0) from[gate][count[gate]++] = subset * kGramSquareStride<T>;
    }
  }
  for_gram_tiles<T>(square, [&](const GramTile<T>& tile) {
    for (int i = 0; i < tile.m; ++i) {
      const std::int64_t at = tile.at + i * tile.vecs * width, place = (tile.i + i) * side + tile.j;
      for (int gate = 0; gate < kGramGates; ++gate) {
        if (count[gate] == 0) continue;
        for (int v = 0; v < tile.vecs; ++v) {
          const T* line = sums + at + v * width;
          Vec<T> sum = Vec<T>::load(line + from[gate][0]);
          for (int c = 1; c < count[gate]; ++c) sum = sum.plus(Vec<T>::load(line + from[gate][c]));
          sum.store(blocks + gate * kGramSquareStride<T> + place + v * width);
        }
      }
    }
  });
}

// One task: a band of rows of the blocks (p, q >= p).
template <class T>
class GramBand {
 public:
  GLAI_ALWAYS_INLINE GramBand(const PathGramArgs& a, std::int64_t p, std::int64_t band)
      : a_(a), p_(p), band_(band), width_(a.features.shape[1]), split_(width_, kGramSide<T>) {
    ScratchSizes sizes;
    const auto sums_at = sizes.add<T>(kGramSubsets * kGramSquareStride<T>);
    const auto blocks_at = sizes.add<T>(kGramGates * kGramSquareStride<T>);
    const auto mirrored_at = sizes.add<T>(kGramSide<T> * kGramSide<T>);
    const auto active_at = sizes.add<std::uint16_t>(kRowList);
    const auto sorted_at = sizes.add<std::uint16_t>(kRowList);
    std::byte* memory = scratch(Scratch::task, sizes.bytes());
    sums_ = reinterpret_cast<T*>(memory + sums_at);
    blocks_ = reinterpret_cast<T*>(memory + blocks_at);
    mirrored_ = reinterpret_cast<T*>(memory + mirrored_at);
    active_.rows = reinterpret_cast<std::uint16_t*>(memory + active_at);
    subsets_.sorted.rows = reinterpret_cast<std::uint16_t*>(memory + sorted_at);
  }

  // Adds the samples [begin, end).
  GLAI_ALWAYS_INLINE void add(std::int64_t begin, std::int64_t end) {
    const std::int64_t n_words = words_per_row(a_.n_gates);
    const auto* words = a_.words.as<const std::uint32_t>() + begin * n_words;
    fill_buckets(words, n_words, {{static_cast<std::int32_t>(p_)}, 1, 0}, end - begin, 1, active_);
    const std::int64_t active = active_.begin[2];
    if (active == 0) return;
    for (std::int64_t first = p_ / kGramGates * kGramGates; first < a_.n_gates; first += kGramGates) {
      std::uint32_t gates = kGramSubsets - 1;
      if (first < p_) gates &= ~0u << (p_ - first);
      if (a_.n_gates - first < kGramGates) gates &= (1u << (a_.n_gates - first)) - 1u;
      sort_by_subset(words, n_words, first, gates, active_.rows, active, subsets_);
      for (std::int64_t i = band_; subsets_.n_used > 0 && i < split_.parts; ++i) {
        add_square(begin, first,
                   {split_.begin(band_), split_.size(band_), split_.begin(i), split_.size(i)});
      }
    }
  }

 private:
  static constexpr std::int64_t kRowList = bucket_capacity(kGramSamples, kGramSubsets, 1);

  GLAI_ALWAYS_INLINE void add_square(std::int64_t begin, std::int64_t first, const GramSquare& square) {
    const TensorView& weighted = a_.weighted ? *a_.weighted : a_.features;
    const std::int64_t stride = a_.features.stride[0];
    const T* left = weighted.as<const T>() + begin * stride + square.row;
    const T* right = a_.features.as<const T>() + begin * stride + square.column;
    int on = 0;  // gates that some sample has on
    for (int u = 0; u < subsets_.n_used; ++u) on |= subsets_.used[u];
    for (int gate = 0; gate < kGramGates; ++gate) {
      if ((on >> gate & 1) != 0) prefetch_block(first + gate, square);
    }
    for (int u = 0; u < subsets_.n_used; ++u) {
      const int s = subsets_.used[u];
      const Buckets& sorted = subsets_.sorted;
      sum_outer_products(square, left, right, stride, sorted.rows + sorted.begin[s],
                         sorted.begin[s + 1] - sorted.begin[s], sums_ + s * kGramSquareStride<T>);
    }
    sum_subsets(square, subsets_, sums_, blocks_);
    for (int gate = 0; gate < kGramGates; ++gate) {
      if ((on >> gate & 1) != 0) add_block(first + gate, square, blocks_ + gate * kGramSquareStride<T>);
    }
  }

  GLAI_ALWAYS_INLINE T* block_of_out(std::int64_t q, std::int64_t row, std::int64_t column) const {
    return a_.out.as<T>() + (p_ * width_ + row) * a_.out.stride[0] + q * width_ + column;
  }

  // Rows of a large result lie in memory, and on a page each: they are sent for before they are needed.
  GLAI_ALWAYS_INLINE void prefetch_block(std::int64_t q, const GramSquare& square) const {
    for (std::int64_t i = 0; i < square.rows; ++i) {
      const T* row = block_of_out(q, square.row + i, square.column);
      for (std::int64_t j = 0; j < square.columns; j += 64 / sizeof(T))
        __builtin_prefetch(row + j, 1, 2);
    }
  }

  // out += block, and its mirror image where that lies above the diagonal of out.
  GLAI_ALWAYS_INLINE void add_block(std::int64_t q, const GramSquare& square, T* block) {
    constexpr std::int64_t side = kGramSide<T>, width = Vec<T>::width;
    const std::int64_t stride = a_.out.stride[0];
    T* out = block_of_out(q, square.row, square.column);
    if (p_ == q) {
      for (std::int64_t i = 0; i < square.rows; ++i) {
        const std::int64_t start = square.on_diagonal() ? i : 0;
        add_row(block + i * side + start, square.columns - start, out + i * stride + start);
      }
      return;
    }
    pack_transposed(block, side, square.columns, square.rows, mirrored_, side);
    for (std::int64_t i = 0; square.on_diagonal() && i < square.rows; ++i) {
      for (std::int64_t j = 0; j < i; j += width) {
        const std::int64_t place = i * side + j;
        const int lanes = static_cast<int>(i - j < width ? i - j : width);
        Vec<T>::load(mirrored_ + place).store(block + place, Tail<T>(lanes));
      }
    }
    for (std::int64_t i = 0; i < square.rows; ++i) {
      add_row(block + i * side, square.columns, out + i * stride);
    }
    if (square.on_diagonal()) return;
    out = block_of_out(q, square.column, square.row);
    for (std::int64_t j = 0; j < square.columns; ++j) {
      add_row(mirrored_ + j * side, square.rows, out + j * stride);
    }
  }

  static GLAI_ALWAYS_INLINE void add_row(const T* from, std::int64_t count, T* to) {
    constexpr std::int64_t width = Vec<T>::width;
    std::int64_t j = 0;
    for (; j + width <= count; j += width) {
      Vec<T>::load(to + j).plus(Vec<T>::load(from + j)).store(to + j);
    }
    if (j < count) {
      const Tail<T> tail(static_cast<int>(count - j));
      Vec<T>::load(to + j, tail).plus(Vec<T>::load(from + j, tail)).store(to + j, tail);
    }
  }

  const PathGramArgs& a_;
  const std::int64_t p_, band_, width_;  // width: D + 1
  const EvenSplit split_;
  Buckets active_;  // the samples that have p on
  SubsetRows subsets_;
  T* sums_;      // [kGramSubsets, kGramSquareStride<T>]: a square by tiles, for each subset
  T* blocks_;    // [kGramGates, kGramSquareStride<T>]: a square by rows, for each gate
  T* mirrored_;  // [kGramSide<T>, kGramSide<T>]
};

// features[n, :] = x[n, :], 1;  weighted[n, :] = sample_weight[n] * features[n, :]
// Runs once, so that the compiler would rather call the accessors of std::optional than inline them;
// such a call is a function shared between instruction sets.
template <class T>
[[gnu::flatten]] void write_features(const PathGramArgs& a) {
  const std::int64_t n = a.x.shape[0], d = a.x.shape[1], stride = a.features.stride[0];
  for (std::int64_t i = 0; i < n; ++i) {
    const T* x = a.x.as<const T>() + i * a.x.stride[0];
    T* features = a.features.as<T>() + i * stride;
    for (std::int64_t k = 0; k < d; ++k) features[k] = x[k];
    features[d] = T(1);
    if (!a.weighted) continue;
    const T weight = a.sample_weight->as<const T>()[i];
    T* weighted = a.weighted->as<T>() + i * stride;
    for (std::int64_t k = 0; k <= d; ++k) weighted[k] = weight * features[k];
  }
}

// One path that every sample has on, as units have it: no subsets, a dense product.
inline bool is_dense(const PathGramArgs& a) {
  if (a.n_gates != 1 || a.features.shape[1] > kMostDense) return false;
  const auto* words = a.words.as<const std::uint32_t>();
  for (std::int64_t i = 0; i < a.x.shape[0]; ++i) {
    if ((words[i] & 1u) == 0) return false;
  }
  return a.x.shape[0] > 0;
}

template <class T>
void add_dense_gram(const PathGramArgs& a) {
  const std::int64_t width = a.features.shape[1];
  const auto sums = std::make_unique_for_overwrite<T[]>(static_cast<std::size_t>(width * width));
  dense_outer_product<T, true>(a.weighted ? *a.weighted : a.features, a.features, sums.get(),
                               a.exec.threads);
  const double work = static_cast<double>(width * width);
  parallel_for(width, work, a.exec.threads, [&](std::int64_t i) {
    T* row = a.out.as<T>() + i * a.out.stride[0];
    for (std::int64_t j = i; j < width; ++j) row[j] += sums[static_cast<std::size_t>(i * width + j)];
  });
}

template <class T>
void path_gram_of(const PathGramArgs& a) {
  const std::int64_t n = a.x.shape[0], width = a.features.shape[1];
  const std::int64_t bands = EvenSplit(width, kGramSide<T>).parts;
  const double size = static_cast<double>(a.n_gates * width);
  write_features<T>(a);
  if (is_dense(a)) return add_dense_gram<T>(a);
  parallel_for(a.n_gates * bands, static_cast<double>(n) * size * size, a.exec.threads,
               [&](std::int64_t task) {
                 GramBand<T> band(a, task / bands, task % bands);
                 for (std::int64_t begin = 0; begin < n; begin += kGramSamples) {
                   band.add(begin, n - begin < kGramSamples ? n : begin + kGramSamples);
                 }
               });
}

inline void path_gram(const PathGramArgs& a) {
  if (a.x.dtype == DType::float64) return path_gram_of<double>(a);
  path_gram_of<float>(a);
}

}  // namespace glai::GLAI_ISA
