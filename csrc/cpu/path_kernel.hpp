// path_kernel: k(n,m) = (z_n . z_m + 1) * prod over layers of (bits that n and m share + 1).
// A task owns a block of rows and columns of the result, which stays in cache: products are summed into
// it by register tiles, the shared bits of each layer counted by tiles of the same shape and multiplied
// in, and it is stored once. Of a symmetric kernel one half is computed and stored mirrored too.
#pragma once

#include <cstdint>
#include <utility>

#include "core/args.hpp"
#include "core/gates.hpp"
#include "core/scratch.hpp"
#include "cpu/parallel.hpp"
#include "cpu/products/panel.hpp"
#include "cpu/products/tiles.hpp"

namespace glai::GLAI_ISA {

// Rows and columns per task: one tile wide, and so high that packing a panel costs little beside its
// use.
constexpr std::int64_t kKernelRows = 256;
template <class T>
constexpr std::int64_t kKernelColumns = kMaxTileVecs * Vec<T>::width;
static_assert(kKernelRows % kKernelColumns<float> == 0 && kKernelRows % kKernelColumns<double> == 0);
// Features per step: the panel of a tile's columns stays in the first-level cache.
template <class T>
constexpr std::int64_t kKernelFeatures = 24 * 1024 / (kKernelColumns<T> * sizeof(T));

// Working memory of a task.
template <class T>
struct KernelMemory {
  T* block;              // [kKernelRows, kKernelColumns<T>]
  T* spare;              // as many: factors, then the block mirrored
  T* panel;              // [kKernelFeatures<T>, kKernelColumns<T>]
  std::uint32_t* words;  // [CommonBits<T>::kMostWords, kKernelColumns<T>]
};

template <class T>
GLAI_ALWAYS_INLINE KernelMemory<T> kernel_memory() {
  constexpr std::int64_t width = kKernelColumns<T>;
  ScratchSizes sizes;
  const auto block_at = sizes.add<T>(kKernelRows * width);
  const auto spare_at = sizes.add<T>(kKernelRows * width);
  const auto panel_at = sizes.add<T>(kKernelFeatures<T> * width);
  const auto words_at = sizes.add<std::uint32_t>(CommonBits<T>::kMostWords * width);
  std::byte* memory = scratch(Scratch::task, sizes.bytes());
  return {reinterpret_cast<T*>(memory + block_at), reinterpret_cast<T*>(memory + spare_at),
          reinterpret_cast<T*>(memory + panel_at), reinterpret_cast<std::uint32_t*>(memory + words_at)};
}

// Calls f<M, V>() for M x V = `rows` x `vecs`, known at run time; rows as many as outer_tile_rows
// allows.
template <int M, int V, class F>
void call_tile(const F& f) {
  f.template operator()<M, V>();
}

template <int V = 1, class F>
GLAI_ALWAYS_INLINE void with_tile_size(int rows, int vecs, const F& f) {
  if constexpr (V < kMaxTileVecs) {
    if (vecs > V) return with_tile_size<V + 1>(rows, vecs, f);
  }
  [&]<int... M>(std::integer_sequence<int, M...>) {
    static constexpr void (*kCall[])(const F&) = {call_tile<M + 1, V, F>...};
    kCall[rows - 1](f);
  }(std::make_integer_sequence<int, outer_tile_rows(V)>{});
}

template <class T>
struct CommonBitsTile {
  const std::uint32_t* rows;  // M rows of words
  std::int64_t row_stride;
  const std::uint32_t* columns;  // [n_words, kKernelColumns<T>]
  std::int64_t n_words;
  bool first, last;  // steps of this layer
  T* factors;        // [M, kKernelColumns<T>]: 1 + the shared bits of earlier steps
  T* block;          // [M, kKernelColumns<T>]
};

// factors += shared bits; with the last step, block *= factors.
template <class T, int M, int V>
GLAI_ALWAYS_INLINE void common_bits_tile(const CommonBitsTile<T>& t) {
  CommonBits<T> count[M][V];
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) count[i][v] = CommonBits<T>::zero();
  }
  for (std::int64_t j = 0; j < t.n_words; ++j) {
    const std::uint32_t* column = t.columns + j * kKernelColumns<T>;
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const std::uint32_t row = t.rows[i * t.row_stride + j];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) count[i][v] = count[i][v].plus_common(row, column + v * Vec<T>::width);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const std::int64_t place = i * kKernelColumns<T> + v * Vec<T>::width;
      const Vec<T> before = t.first ? Vec<T>::broadcast(T(1)) : Vec<T>::load(t.factors + place);
      const Vec<T> factor = before.plus(count[i][v].total());
      if (t.last) {
        Vec<T>::load(t.block + place).times(factor).store(t.block + place);
      } else {
        factor.store(t.factors + place);
      }
    }
  }
}

// A block of the result: rows of a against columns, which are rows of b.
struct KernelBlock {
  std::int64_t row, rows;
  std::int64_t column, columns;
};

// block[i, j] += z_row+i . z_column+j
template <class T>
GLAI_ALWAYS_INLINE void add_inner_products(const PathKernelArgs& a, const KernelBlock& k,
                                           const KernelMemory<T>& memory) {
  constexpr std::int64_t width = kKernelColumns<T>, step = kKernelFeatures<T>;
  const std::int64_t d = a.xa.shape[1], a_stride = a.xa.stride[0], b_stride = a.xb.stride[0];
  const T* xa = a.xa.as<const T>() + k.row * a_stride;
  const T* xb = a.xb.as<const T>() + k.column * b_stride;
  const int vecs = static_cast<int>((k.columns + Vec<T>::width - 1) / Vec<T>::width);
  const EvenSplit groups(k.rows, outer_tile_rows(vecs));
  std::uint16_t in_order[kKernelRows];
  for (std::int64_t i = 0; i < k.rows; ++i) in_order[i] = static_cast<std::uint16_t>(i);
  // Lanes past the last column are summed like the others, and not stored.
  for (std::int64_t j = 0; k.columns < width && j < step * width; ++j) memory.panel[j] = T(0);
  for (std::int64_t first = 0; first < d; first += step) {
    const std::int64_t count = d - first < step ? d - first : step;
    pack_transposed(xb + first, b_stride, count, k.columns, memory.panel, width);
    for (std::int64_t g = 0; g < groups.parts; ++g) {
      const GatherTile<T> tile{xa + first,   a_stride, in_order + groups.begin(g),
                               memory.panel, width,    count,
                               memory.block, width};
      with_tile_size(static_cast<int>(groups.size(g)), vecs,
                     [&]<int M, int V>() { gather_tile<T, M, V>(tile); });
    }
  }
}

// block[i, j] *= 1 + units of the layer that are on in both samples.
template <class T>
GLAI_ALWAYS_INLINE void multiply_common_bits(const UnitLayerPair& layer, const KernelBlock& k,
                                             const KernelMemory<T>& memory) {
  constexpr std::int64_t width = kKernelColumns<T>;
  constexpr std::int64_t step = CommonBits<T>::kMostWords;
  const std::int64_t w = words_per_row(layer.n_units);
  const auto* words_a = layer.words_a.as<const std::uint32_t>() + k.row * w;
  const auto* words_b = layer.words_b.as<const std::uint32_t>() + k.column * w;
  const int vecs = static_cast<int>((k.columns + Vec<T>::width - 1) / Vec<T>::width);
  const EvenSplit groups(k.rows, outer_tile_rows(vecs));
  // Lanes past the last column are counted like the others, and not stored.
  for (std::int64_t j = 0; k.columns < width && j < step * width; ++j) memory.words[j] = 0;
  for (std::int64_t first = 0; first < w; first += step) {
    const std::int64_t count = w - first < step ? w - first : step;
    pack_transposed<std::uint32_t, Vec<float>::width>(words_b + first, w, count, k.columns, memory.words,
                                                      width);
    for (std::int64_t g = 0; g < groups.parts; ++g) {
      const std::int64_t i = groups.begin(g);
      const CommonBitsTile<T> tile{words_a + i * w + first,
                                   w,
                                   memory.words,
                                   count,
                                   first == 0,
                                   first + count == w,
                                   memory.spare + i * width,
                                   memory.block + i * width};
      with_tile_size(static_cast<int>(groups.size(g)), vecs,
                     [&]<int M, int V>() { common_bits_tile<T, M, V>(tile); });
    }
  }
}

// A result larger than this is stored past the caches, which could not hold it and would first read what
// is to be overwritten.
constexpr double kStreamedBytes = 16e6;

template <class T>
GLAI_ALWAYS_INLINE void store_row(const T* from, std::int64_t count, T* to, bool stream) {
  constexpr std::int64_t width = Vec<T>::width;
  std::int64_t i = 0;
  if (stream) {
    for (; i < count && reinterpret_cast<std::uintptr_t>(to + i) % sizeof(Vec<T>) != 0; ++i)
      to[i] = from[i];
    for (; i + width <= count; i += width) Vec<T>::load(from + i).stream(to + i);
  }
  for (; i < count; ++i) to[i] = from[i];
}

// Of a symmetric kernel, what lies on or above the diagonal, and its mirror image.
template <class T>
GLAI_ALWAYS_INLINE void store_block(const PathKernelArgs& a, const KernelBlock& k, const T* block,
                                    T* mirrored, bool stream) {
  constexpr std::int64_t width = kKernelColumns<T>;
  const std::int64_t stride = a.out.stride[0];
  T* out = a.out.as<T>() + k.row * stride + k.column;
  const std::int64_t diagonal = k.column - k.row;  // the block's row that meets its first column there
  for (std::int64_t i = 0; i < k.rows; ++i) {
    const std::int64_t start = a.symmetric && i > diagonal ? i - diagonal : 0;
    store_row(block + i * width + start, k.columns - start, out + i * stride + start, stream);
  }
  if (a.symmetric) {
    pack_transposed(block, width, k.columns, k.rows, mirrored, kKernelRows);
    out = a.out.as<T>() + k.column * stride + k.row;
    for (std::int64_t j = 0; j < k.columns; ++j) {
      const std::int64_t above = diagonal + j;
      const std::int64_t count = above < k.rows ? above : k.rows;
      store_row(mirrored + j * kKernelRows, count, out + j * stride, stream);
    }
  }
  if (stream) stream_fence();
}

template <class T>
void path_kernel_of(const PathKernelArgs& a) {
  constexpr std::int64_t width = kKernelColumns<T>;
  const std::int64_t n = a.xa.shape[0], m = a.xb.shape[0];
  const std::int64_t row_tasks = (n + kKernelRows - 1) / kKernelRows;
  const std::int64_t column_tasks = (m + width - 1) / width;
  const double work =
      static_cast<double>(n) * static_cast<double>(m) * static_cast<double>(a.xa.shape[1] + 1);
  const bool stream = static_cast<double>(n) * static_cast<double>(m) * sizeof(T) >= kStreamedBytes;

  parallel_for(row_tasks * column_tasks, work, a.exec.threads, [&](std::int64_t task) {
    KernelBlock k;
    k.row = task / column_tasks * kKernelRows;  // tasks in turn share their rows of x
    k.column = task % column_tasks * width;
    k.columns = m - k.column < width ? m - k.column : width;
    // Of a symmetric kernel, the rows down to the diagonal.
    const std::int64_t end = a.symmetric ? k.column + k.columns : n;
    if (k.row >= end) return;
    k.rows = end - k.row < kKernelRows ? end - k.row : kKernelRows;

    const KernelMemory<T> memory = kernel_memory<T>();
    for (std::int64_t i = 0; i < k.rows * width; ++i) memory.block[i] = T(1);
    add_inner_products(a, k, memory);
    for (std::int64_t l = 0; l < a.n_layers; ++l) multiply_common_bits(a.layers[l], k, memory);
    store_block(a, k, memory.block, memory.spare, stream);
  });
}

inline void path_kernel(const PathKernelArgs& a) {
  if (a.xa.dtype == DType::float64) return path_kernel_of<double>(a);
  path_kernel_of<float>(a);
}

}  // namespace glai::GLAI_ISA
