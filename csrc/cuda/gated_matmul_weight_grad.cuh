// gated_matmul_weight_grad: a block owns a tile of one path's gradient, and sums over the samples that
// have the path on.
#pragma once

#include "cuda/gathered_product.cuh"
#include "cuda/launch.cuh"

namespace glai {

// dw[p,d,c] (+)= sum_n g[n,p] x[n,d] dy[n,c]; db[p,c] (+)= sum_n g[n,p] dy[n,c]
template <class T>
struct WeightGradProduct {
  int device;
  void* stream;
  std::int64_t n, p, d, c;
  const T* x;
  std::int64_t x_stride;
  const T* dy;
  std::int64_t dy_stride;
  const std::uint32_t* columns;  // [P, ceil(N/32)]
  T* dw;
  std::int64_t dw_path, dw_row;  // strides
  T* db;                         // or null
  std::int64_t db_path;
  bool accumulate;
  int x_granule, dy_granule;  // copy_granule of the rows

  // One where there are no features either: the bias is with the first.
  GLAI_HOST_DEVICE std::int64_t row_tiles(std::int64_t rows) const {
    return d > rows ? (d + rows - 1) / rows : 1;
  }
};

template <class Tile>
GLAI_KERNEL_AT_ONCE(Tile::kThreads, 2)  // with more, some of them would spill
gated_matmul_weight_grad_kernel(WeightGradProduct<typename Tile::T> q) {
  using T = typename Tile::T;
  using Product = GatheredProduct<Tile>;
  using B = typename Product::B;
  constexpr int kColumns = 16 * Tile::kUnits;
  const std::int64_t row_tiles = q.row_tiles(Tile::kRows);
  const std::int64_t column_tiles = (q.c + kColumns - 1) / kColumns;
  const std::int64_t block = block_index();  // tiles of a path share its samples
  const std::int64_t row = block % row_tiles * Tile::kRows;
  const std::int64_t column = block / row_tiles % column_tiles * kColumns;
  const std::int64_t path = block / row_tiles / column_tiles;
  const std::uint32_t* bits = q.columns + path * words_per_row(q.n);

  Tile tile = {};
  SumOf<T> bias = 0;  // of column thread_index(), where the block has the path's first rows
  const bool with_bias = q.db != nullptr && row == 0 && thread_index() < kColumns;
  const bool any = Product::add(
      tile, q.n, [&](std::int64_t word) { return bits[word]; },
      SampleRows<T>{q.x, q.x_stride, row, q.d, q.x_granule},
      SampleRows<T>{q.dy, q.dy_stride, column, q.c, q.dy_granule},
      [&](const T* dy) {
        if (!with_bias) return;
        for (int k = 0; k < B::kDepth; ++k) bias += widen(dy[B::at(thread_index(), k)]);
      });
  if (q.accumulate && !any) return;
  const auto store = [&](T* to, SumOf<T> sum) {
    *to = narrow<T>(q.accumulate ? widen(*to) + sum : sum);
  };
  GLAI_UNROLL
  for (int unit = 0; unit < Tile::kUnits; ++unit) {
    GLAI_UNROLL
    for (int e = 0; e < Tile::kPerUnit; ++e) {
      const std::int64_t d = row + Tile::row(e), c = column + unit * 16 + Tile::column(e);
      if (d < q.d && c < q.c) store(q.dw + path * q.dw_path + d * q.dw_row + c, tile.sum(unit, e));
    }
  }
  if (with_bias && column + thread_index() < q.c) {
    store(q.db + path * q.db_path + column + thread_index(), bias);
  }
}

template <class Tile>
void launch_weight_grad_tiles(const WeightGradProduct<typename Tile::T>& q) {
  constexpr int kColumns = 16 * Tile::kUnits;
  const std::int64_t tiles = q.row_tiles(Tile::kRows) * ((q.c + kColumns - 1) / kColumns);
  launch({"gated_matmul_weight_grad", q.device, q.stream, tiles * q.p, Tile::kThreads,
          GatheredProduct<Tile>::kSharedBytes},
         gated_matmul_weight_grad_kernel<Tile>, q);
}

}  // namespace glai
