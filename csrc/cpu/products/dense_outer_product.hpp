// out = aᵀ · b, summed over rows that are read in order: the weight gradient of a dense layer.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/scratch.hpp"
#include "core/tensor.hpp"
#include "cpu/parallel.hpp"
#include "cpu/products/dense_product.hpp"
#include "cpu/products/outer_products.hpp"
#include "cpu/products/tiles.hpp"

namespace glai::GLAI_ISA {

// Rows that are summed at a time: of a tile's columns of b they then take half of the first-level cache.
constexpr std::int64_t kOuterRows = 256;
constexpr std::int64_t kOuterGroups = 16;  // of a task; their rows of a stay in the second-level cache

// a: [N, A], b: [N, B], both with a unit stride in their rows; out: [A, B], packed, written. Tasks are
// cut by shape, and each element is summed by one of them, row after row. Upper: tiles that lie below
// the diagonal are left out.
template <class T, bool Upper = false>
void dense_outer_product(const TensorView& a, const TensorView& b, T* out, int threads) {
  constexpr std::int64_t lanes = Vec<T>::width;
  const std::int64_t n = a.shape[0], na = a.shape[1], nb = b.shape[1];
  const EvenSplit passes(n, kOuterRows), tiles((nb + lanes - 1) / lanes, kMaxTileVecs);
  const EvenSplit groups(na, outer_tile_rows(kMaxTileVecs)), chunks(groups.parts, kOuterGroups);
  const std::int64_t most = passes.parts == 0 ? 0 : passes.size(0);
  ScratchSizes sizes;
  const auto a_at = sizes.add<T>(most * na);  // [groups, rows, columns of a group]
  const auto b_at = sizes.add<T>(most * tiles.begin(tiles.parts) * lanes);  // [tiles, rows, vectors]
  std::byte* memory = scratch(Scratch::call, sizes.bytes());
  T* packed_a = reinterpret_cast<T*>(memory + a_at);
  T* packed_b = reinterpret_cast<T*>(memory + b_at);
  for (std::int64_t pass = 0; pass < passes.parts; ++pass) {
    const std::int64_t rows = passes.size(pass);
    const T* from_a = a.as<const T>() + passes.begin(pass) * a.stride[0];
    const T* from_b = b.as<const T>() + passes.begin(pass) * b.stride[0];
    parallel_for(
        groups.parts + tiles.parts, static_cast<double>(rows * (na + nb)), threads, [&](std::int64_t i) {
          if (i < groups.parts) {
            const std::int64_t first = groups.begin(i), columns = groups.size(i);
            T* to = packed_a + first * rows;
            for (std::int64_t r = 0; r < rows; ++r, to += columns) {
              for (std::int64_t j = 0; j < columns; ++j) to[j] = from_a[r * a.stride[0] + first + j];
            }
            return;
          }
          const std::int64_t first = tiles.begin(i - groups.parts) * lanes;
          const int vecs = static_cast<int>(tiles.size(i - groups.parts));
          const std::int64_t left = nb - first - (vecs - 1) * lanes;
          pack_rows(from_b + first, b.stride[0], rows, vecs,
                    Tail<T>(static_cast<int>(left < lanes ? left : lanes)), packed_b + first * rows);
        });
    const double work = static_cast<double>(rows * na) * static_cast<double>(nb);
    parallel_for(tiles.parts * chunks.parts, work, threads, [&](std::int64_t task) {
      const std::int64_t tile = task / chunks.parts, chunk = task % chunks.parts;
      const std::int64_t column = tiles.begin(tile) * lanes;
      const int vecs = static_cast<int>(tiles.size(tile));
      const std::int64_t left = nb - column - (vecs - 1) * lanes;
      const Tail<T> tail(static_cast<int>(left < lanes ? left : lanes));
      for (std::int64_t g = chunks.begin(chunk); g < chunks.begin(chunk) + chunks.size(chunk); ++g) {
        const std::int64_t i = groups.begin(g), m = groups.size(g);
        if (Upper && column + vecs * lanes <= i) continue;
        run_outer_tile<T, false, false>(
            static_cast<int>(m), vecs,
            {packed_a + i * rows, m, packed_b + column * rows, vecs * lanes, nullptr, rows, tail,
             out + i * nb + column, nb, false, pass > 0});
      }
    });
  }
}

constexpr std::int64_t kSummedColumns = 256;  // of a task

// out[j] = sum over the rows of a[row, j], row after row.
template <class T>
void column_sums(const TensorView& a, T* out, int threads) {
  constexpr std::int64_t lanes = Vec<T>::width;
  const std::int64_t n = a.shape[0], columns = a.shape[1];
  const std::int64_t tasks = (columns + kSummedColumns - 1) / kSummedColumns;
  parallel_for(tasks, static_cast<double>(n * columns), threads, [&](std::int64_t task) {
    const std::int64_t first = task * kSummedColumns;
    const std::int64_t end = first + kSummedColumns < columns ? first + kSummedColumns : columns;
    for (std::int64_t j = first; j < end; ++j) out[j] = T(0);
    for (std::int64_t i = 0; i < n; ++i) {
      const T* row = a.as<const T>() + i * a.stride[0];
      std::int64_t j = first;
      for (; j + lanes <= end; j += lanes)
        Vec<T>::load(out + j).plus(Vec<T>::load(row + j)).store(out + j);
      for (; j < end; ++j) out[j] += row[j];
    }
  });
}

}  // namespace glai::GLAI_ISA
