// y[n, c] = sum_p g[n, p] * (x[n, :] . w[p, :, c]) of few outputs C: vectors are filled with paths,
// since outputs would leave most of their lanes empty. All paths are multiplied, those that are off for
// nothing.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/gates.hpp"
#include "core/scratch.hpp"
#include "core/tensor.hpp"
#include "cpu/parallel.hpp"
#include "cpu/products/dense_product.hpp"
#include "cpu/products/tiles.hpp"

namespace glai::GLAI_ISA {

// 512 samples, 513 paths, one thread, AVX-512, half of the gates on: with 9 features and one output a
// fifth of the time that gated_matmul takes, with 31 and two a quarter. It falls with the gates that are
// on, this does not.
constexpr std::int64_t kFewOutputs = 2;
constexpr double kFewOutputsDensity = 0.2;

// Of a sample, in lanes of a vector, over all tiles of paths: added up in an order that hangs on
// nothing.
template <class T>
GLAI_ALWAYS_INLINE void add_columns(const T* row, std::int64_t vecs, T* lanes) {
  Vec<T> sum = Vec<T>::load(lanes);
  for (std::int64_t v = 0; v < vecs; ++v) sum = sum.plus(Vec<T>::load(row + v * Vec<T>::width));
  sum.store(lanes);
}

// x [N, D], rows contiguous; words [N, ceil(P/32)]; weight [P, D, C], contiguous; y [N, C], contiguous.
template <class T>
void few_outputs_product(const TensorView& x, const TensorView& words, const TensorView& weight,
                         const TensorView& y, int threads) {
  constexpr std::int64_t lanes = Vec<T>::width;
  const std::int64_t n = x.shape[0], d = x.shape[1], p = weight.shape[0], c = weight.shape[2];
  const EvenSplit tiles((p + lanes - 1) / lanes, kMaxTileVecs), blocks(n, dense_rows<T>(d));
  const std::int64_t padded = tiles.begin(tiles.parts) * lanes, most = kMaxTileVecs * lanes;
  ScratchSizes packed;
  packed.add<T>(c * d * padded);
  // [C, tiles, D, columns of the tile]; columns past the last path are zero.
  T* panels = reinterpret_cast<T*>(scratch(Scratch::weights, packed.bytes()));
  parallel_for(tiles.parts, static_cast<double>(p * d * c), threads, [&](std::int64_t tile) {
    const std::int64_t first = tiles.begin(tile) * lanes, columns = tiles.size(tile) * lanes;
    for (std::int64_t output = 0; output < c; ++output) {
      T* panel = panels + output * d * padded + first * d;
      for (std::int64_t j = 0; j < columns; ++j) {
        const T* path = weight.as<const T>() + (first + j) * d * c + output;
        for (std::int64_t k = 0; k < d; ++k) panel[k * columns + j] = first + j < p ? path[k * c] : T(0);
      }
    }
  });
  const double work = static_cast<double>(n * p) * static_cast<double>(d * c);
  parallel_for(blocks.parts, work, threads, [&](std::int64_t block) {
    const std::int64_t begin = blocks.begin(block), rows = blocks.size(block);
    ScratchSizes sizes;
    const auto products_at = sizes.add<T>(rows * most), sums_at = sizes.add<T>(rows * lanes);
    std::byte* memory = scratch(Scratch::call, sizes.bytes());
    T* products = reinterpret_cast<T*>(memory + products_at);
    T* sums = reinterpret_cast<T*>(memory + sums_at);
    std::byte* working = scratch(Scratch::task, dense_bytes<Exact<T>>(kMaxTileVecs));
    for (std::int64_t output = 0; output < c; ++output) {
      for (std::int64_t i = 0; i < rows * lanes; ++i) sums[i] = T(0);
      for (std::int64_t tile = 0; tile < tiles.parts; ++tile) {
        const std::int64_t first = tiles.begin(tile) * lanes, columns = tiles.size(tile) * lanes;
        const ColumnGates gates{words.as<const std::uint32_t>(), words.shape[1], 0};
        dense_block<Exact<T>>({x.as<const T>() + begin * x.stride[0],
                               x.stride[0],
                               rows,
                               d,
                               {nullptr, {0, 0}, nullptr},
                               columns,
                               products,
                               most,
                               gates.from(begin, first),
                               panels + output * d * padded + first * d},
                              working);
        for (std::int64_t i = 0; i < rows; ++i) {
          add_columns(products + i * most, tiles.size(tile), sums + i * lanes);
        }
      }
      for (std::int64_t i = 0; i < rows; ++i) {
        y.as<T>()[(begin + i) * c + output] = Vec<T>::load(sums + i * lanes).total();
      }
    }
  });
}

}  // namespace glai::GLAI_ISA
