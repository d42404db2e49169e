// The dense product of samples and units, bias[h] + sum_k x[n,k] w[h,k], in the registers of a block:
// what selector_gates makes bits of, and gated_linear stores where a gate is on.
#pragma once

#include "core/args.hpp"
#include "cuda/tiles/launch.cuh"
#include "cuda/tiles/numbers.cuh"
#include "cuda/tiles/pipeline.cuh"

namespace glai {

template <class T>
struct LinearProduct {
  int device;
  void* stream;
  std::int64_t n, d, h;
  const T* x;
  std::int64_t x_stride;
  const T* w;
  std::int64_t w_unit, w_depth;  // strides, one of them 1
  const T* bias;                 // or null
  int x_granule, w_granule;      // copy_granule of the rows

  bool depth_inner() const { return w_depth == 1 || d == 1; }
};

// x [N, D], weight [H, D], bias [H]
template <class T>
LinearProduct<T> linear_product(const TensorView& x, const TensorView& weight,
                                const std::optional<TensorView>& bias, const Execution& exec) {
  LinearProduct<T> q = {};
  q.device = x.device.index;
  q.stream = exec.stream;
  q.n = x.shape[0];
  q.d = x.shape[1];
  q.h = weight.shape[0];
  q.x = x.as<const T>();
  q.x_stride = x.stride[0];
  q.w = weight.as<const T>();
  q.w_unit = weight.stride[0];
  q.w_depth = weight.stride[1];
  q.bias = bias ? bias->as<const T>() : nullptr;
  q.x_granule = copy_granule(q.x, {q.x_stride});
  q.w_granule = copy_granule(q.w, {q.depth_inner() ? q.w_unit : q.w_depth});
  return q;
}

// kDepthInner: w_depth is 1, otherwise w_unit.
template <class Tile, bool kDepthInner>
struct LinearBlock {
  using T = typename Tile::T;
  static constexpr int kColumns = 16 * Tile::kUnits;  // units of the layer
  using A = OperandTile<T, Tile::kRows, true>;
  using B = OperandTile<T, kColumns, kDepthInner>;
  static constexpr std::size_t kSharedBytes = kStages * (A::kElements + B::kElements) * sizeof(T);

  const LinearProduct<T>& q;
  std::int64_t row, column;

  GLAI_DEVICE T* stage_a(int stage) const {
    return reinterpret_cast<T*>(shared_memory()) + stage * (A::kElements + B::kElements);
  }
  GLAI_DEVICE T* stage_b(int stage) const { return stage_a(stage) + A::kElements; }

  GLAI_DEVICE void load(int stage, std::int64_t depth) const {
    load_tile<A, Tile::kThreads>(stage_a(stage), q.x_granule, [&](int i, int k) -> Chunk<T> {
      const std::int64_t n = row + i;
      return {q.x + n * q.x_stride + depth + k, n < q.n ? q.d - depth - k : 0};
    });
    load_tile<B, Tile::kThreads>(stage_b(stage), q.w_granule, [&](int i, int j) -> Chunk<T> {
      const std::int64_t h = column + (kDepthInner ? i : j), k = depth + (kDepthInner ? j : i);
      const bool inside = kDepthInner ? h < q.h : k < q.d;
      return {q.w + h * q.w_unit + k * q.w_depth, inside ? (kDepthInner ? q.d - k : q.h - h) : 0};
    });
  }

  // sums = bias
  GLAI_DEVICE void begin(Tile& tile) const {
    GLAI_UNROLL
    for (int unit = 0; unit < Tile::kUnits; ++unit) {
      GLAI_UNROLL
      for (int e = 0; e < Tile::kPerUnit; ++e) {
        const std::int64_t h = column + 16 * unit + Tile::column(e);
        tile.sum(unit, e) = q.bias != nullptr && h < q.h ? widen(q.bias[h]) : 0;
      }
    }
  }

  GLAI_DEVICE void multiply(Tile& tile) const {
    begin(tile);
    pipeline(
        (q.d + A::kDepth - 1) / A::kDepth,
        [&](int stage, std::int64_t step) { load(stage, step * A::kDepth); },
        [&](int stage, std::int64_t) { tile.template multiply<A, B>(stage_a(stage), stage_b(stage)); });
  }

  // Blocks in turn share their weights.
  static GLAI_DEVICE LinearBlock of_index(const LinearProduct<T>& q, std::int64_t block) {
    const std::int64_t row_tiles = (q.n + Tile::kRows - 1) / Tile::kRows;
    return {q, block % row_tiles * Tile::kRows, block / row_tiles * kColumns};
  }
  static Launch launch_of(const char* op, const LinearProduct<T>& q) {
    const std::int64_t row_tiles = (q.n + Tile::kRows - 1) / Tile::kRows;
    const std::int64_t column_tiles = (q.h + kColumns - 1) / kColumns;
    return {op, q.device, q.stream, row_tiles * column_tiles, Tile::kThreads, kSharedBytes};
  }
};

}  // namespace glai
