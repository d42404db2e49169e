// gated_matmul_weight_grad: a block owns a tile of one path's gradient, and sums over the samples that
// have the path on, or over those of one split where blocks would be few.
#pragma once

#include "cuda/gathered_product.cuh"
#include "cuda/tiles/launch.cuh"

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
  SumOf<T>* partial;          // [splits, P, D+1, C], biases last; or null where there is one split
  std::int64_t splits;        // of the samples
  int x_granule, dy_granule;  // copy_granule of the rows

  // Path's (d, c), d = D: its bias.
  GLAI_DEVICE void store(std::int64_t path, std::int64_t row, std::int64_t c, SumOf<T> sum) const {
    T* to = row < d ? dw + path * dw_path + row * dw_row + c : db + path * db_path + c;
    *to = narrow<T>(accumulate ? widen(*to) + sum : sum);
  }

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
  // From the last path on, which is on for all samples: the longest first.
  const std::int64_t path = q.p - 1 - block / row_tiles / column_tiles % q.p;
  const std::int64_t split = block / row_tiles / column_tiles / q.p, n_words = words_per_row(q.n);
  const std::uint32_t* bits = q.columns + path * words_per_row(q.n);

  Tile tile = {};
  SumOf<T> bias = 0;  // of column thread_index(), where the block has the path's first rows
  const bool with_bias = q.db != nullptr && row == 0 && thread_index() < kColumns;
  const bool any = Product::add(
      tile, n_words * split / q.splits, n_words * (split + 1) / q.splits,
      [&](std::int64_t word) { return bits[word]; },
      SampleRows<T>{q.x, q.x_stride, row, q.d, q.x_granule},
      SampleRows<T>{q.dy, q.dy_stride, column, q.c, q.dy_granule},
      [&](const T* dy) {
        if (!with_bias) return;
        for (int k = 0; k < B::kDepth; ++k) bias += widen(dy[B::at(thread_index(), k)]);
      });
  if (q.accumulate && !any && q.partial == nullptr) return;
  // d = D: of the bias.
  const auto store = [&](std::int64_t d, std::int64_t c, SumOf<T> sum) {
    if (q.partial != nullptr) {
      q.partial[((split * q.p + path) * (q.d + 1) + d) * q.c + c] = sum;
    } else {
      q.store(path, d, c, sum);
    }
  };
  GLAI_UNROLL
  for (int unit = 0; unit < Tile::kUnits; ++unit) {
    GLAI_UNROLL
    for (int e = 0; e < Tile::kPerUnit; ++e) {
      const std::int64_t d = row + Tile::row(e), c = column + unit * 16 + Tile::column(e);
      if (d < q.d && c < q.c) store(d, c, tile.sum(unit, e));
    }
  }
  if (with_bias && column + thread_index() < q.c) store(q.d, column + thread_index(), bias);
}

// dw, db (+)= the partial sums of all splits, in order.
template <class T>
GLAI_KERNEL(256)
sum_weight_grad_splits_kernel(WeightGradProduct<T> q) {
  const std::int64_t rows = q.db != nullptr ? q.d + 1 : q.d, size = q.p * (q.d + 1) * q.c;
  for (std::int64_t i = block_index() * 256 + thread_index(); i < size; i += block_count() * 256) {
    const std::int64_t d = i / q.c % (q.d + 1);
    if (d >= rows) continue;
    SumOf<T> sum = 0;
    for (std::int64_t split = 0; split < q.splits; ++split) sum += q.partial[split * size + i];
    q.store(i / q.c / (q.d + 1), d, i % q.c, sum);
  }
}

template <class Tile>
void launch_weight_grad_tiles(const WeightGradProduct<typename Tile::T>& q) {
  constexpr int kColumns = 16 * Tile::kUnits;
  const std::int64_t tiles = q.row_tiles(Tile::kRows) * ((q.c + kColumns - 1) / kColumns);
  launch({"gated_matmul_weight_grad", q.device, q.stream, tiles * q.p * q.splits, Tile::kThreads,
          GatheredProduct<Tile>::kSharedBytes},
         gated_matmul_weight_grad_kernel<Tile>, q);
  if (q.partial == nullptr) return;
  const std::int64_t blocks = (q.p * (q.d + 1) * q.c + 255) / 256;
  launch({"gated_matmul_weight_grad", q.device, q.stream, blocks < 65536 ? blocks : 65536, 256},
         sum_weight_grad_splits_kernel<typename Tile::T>, q);
}

}  // namespace glai
