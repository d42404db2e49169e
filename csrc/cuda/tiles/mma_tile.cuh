// A block's product on tensor cores: 8 warps, 4 down and 2 across. fp16, bf16, and float as tf32.
#pragma once

#include "cuda/tiles/numbers.cuh"
#include "cuda/tiles/pipeline.cuh"

namespace glai {

template <class T>
GLAI_DEVICE void mma(float (&acc)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  if constexpr (std::is_same_v<T, fp16>) mma_fp16(acc, a, b);
  if constexpr (std::is_same_v<T, bf16>) mma_bf16(acc, a, b);
  if constexpr (std::is_same_v<T, float>) mma_tf32(acc, a, b);
}

// Rows by units of 16 columns, of which each of two neighbouring warps takes 8: whatever a unit's
// columns mean, a thread holds the same columns of every unit.
template <class T_, int kRowTiles, int kUnits_>
struct MmaTile {
  using T = T_;
  using Sum = float;
  static constexpr int kThreads = 256;
  static constexpr int kRows = 4 * 16 * kRowTiles;
  static constexpr int kUnits = kUnits_;
  static constexpr int kPerUnit = 4 * kRowTiles;  // sums that a thread holds of a unit
  static constexpr int kPerRow = 2;  // of them, in one row; the other rows' columns are the same

  float sums[kUnits][kRowTiles][4];

  GLAI_DEVICE float& sum(int unit, int e) { return sums[unit][e / 4][e % 4]; }

  // Where in the tile, and where in its unit, sum(unit, e) lies.
  static GLAI_DEVICE int row(int e) {
    return warp_index() % 4 * 16 * kRowTiles + e / 4 * 16 + e % 4 / 2 * 8 + lane_index() / 4;
  }
  static GLAI_DEVICE int column(int e) { return warp_index() / 4 * 8 + lane_index() % 4 * 2 + e % 2; }

  // sums += a b; A, B: the OperandTiles. A step of depth is two fragments of 32 bytes. Sums of rows from
  // `rows` on are of no use.
  template <class A, class B>
  GLAI_DEVICE void multiply(const T* a, const T* b, int rows = kRows) {
    if (warp_index() % 4 * 16 * kRowTiles >= rows) return;
    std::uint32_t fragment_a[2][kRowTiles][4];
    GLAI_UNROLL
    for (int k = 0; k < 2; ++k) {
      GLAI_UNROLL
      for (int i = 0; i < kRowTiles; ++i) {
        load_a<A>(fragment_a[k][i], a, warp_index() % 4 * 16 * kRowTiles + 16 * i, k);
      }
    }
    GLAI_UNROLL
    for (int unit = 0; unit < kUnits; ++unit) {
      std::uint32_t fragment_b[4];  // of both fragments of depth
      load_b<B>(fragment_b, b, 16 * unit + warp_index() / 4 * 8);
      GLAI_UNROLL
      for (int k = 0; k < 2; ++k) {
        const std::uint32_t of_step[2] = {fragment_b[2 * k], fragment_b[2 * k + 1]};
        GLAI_UNROLL
        for (int i = 0; i < kRowTiles; ++i) mma<T>(sums[unit][i], fragment_a[k][i], of_step);
      }
    }
  }

 private:
  static constexpr int kChunk = 16 / sizeof(T);  // depth of a matrix that load_matrices takes

  // Matrices in the order of fragment words: rows +0, +8, then the same one chunk of depth on.
  template <class A>
  static GLAI_DEVICE void load_a(std::uint32_t (&to)[4], const T* a, int row, int k) {
    const int matrix = lane_index() / 8, r = lane_index() % 8;
    const int depth = k * 2 * kChunk;
    if constexpr (A::kDepthInner) {
      load_matrices(to, a + A::at(row + matrix % 2 * 8 + r, depth + matrix / 2 * kChunk));
      round(to);
    } else if constexpr (sizeof(T) == 2) {
      load_matrices_transposed(to, a + A::at(row + matrix % 2 * 8, depth + matrix / 2 * 8 + r));
    } else {
      load_words<A>(to, a, row, depth, 2, 8, 4);
    }
  }

  // Matrices: the two halves of the first fragment's depth, then of the second's.
  template <class B>
  static GLAI_DEVICE void load_b(std::uint32_t (&to)[4], const T* b, int column) {
    const int matrix = lane_index() / 8, r = lane_index() % 8;
    if constexpr (B::kDepthInner) {
      load_matrices(to, b + B::at(column + r, matrix * kChunk));
      round(to);
    } else if constexpr (sizeof(T) == 2) {
      load_matrices_transposed(to, b + B::at(column, matrix * 8 + r));
    } else {
      load_words<B>(to, b, column, 0, 1, 0, 4);
    }
  }

  // Words cannot be loaded transposed as matrices. Word i lies (i % n) * across_step on, and
  // (i / n) * depth_step deeper.
  template <class Operand>
  static GLAI_DEVICE void load_words(std::uint32_t (&to)[4], const T* from, int across, int depth, int n,
                                     int across_step, int depth_step) {
    const int g = lane_index() / 4, t = lane_index() % 4;
    GLAI_UNROLL
    for (int i = 0; i < 4; ++i) {
      to[i] =
          bits_of(from[Operand::at(across + g + i % n * across_step, depth + t + i / n * depth_step)]);
    }
    round(to);
  }

  static GLAI_DEVICE void round(std::uint32_t (&words)[4]) {
    if constexpr (std::is_same_v<T, float>) {
      GLAI_UNROLL
      for (int i = 0; i < 4; ++i) words[i] = round_to_tf32(words[i]);
    }
  }
};

}  // namespace glai
