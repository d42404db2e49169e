// A block's product of bytes on tensor cores: 8 warps, 4 down and 2 across, sums in 32 bits.
#pragma once

#include <cstdint>

#include "cuda/tiles/pipeline.cuh"

namespace glai {

// a^T b of tiles whose rows are samples and whose bytes lie column by column, as features do. Tensor
// cores want four samples of a column in one word. Matrices are loaded transposed as 16-bit elements, of
// which each is two columns; then two words of samples give one of the even column and one of the odd.
// So the samples of a fragment come in another order than they lie in, the same for a and b, and its
// rows are first the even columns, then the odd ones.
template <int kRowTiles, int kUnits>
struct ByteTile {
  static constexpr int kThreads = 256;
  static constexpr int kRows = 4 * 16 * kRowTiles, kColumns = 2 * 16 * kUnits;
  static constexpr int kSums = kUnits * 2 * kRowTiles * 4;  // that a thread holds
  static constexpr int kFragmentDepth = 32;                 // samples

  std::int32_t sums[kUnits][2][kRowTiles][4];  // of a unit of 16 columns, the even and the odd ones

  GLAI_DEVICE std::int32_t sum(int i) const {
    return sums[i / (8 * kRowTiles)][i / (4 * kRowTiles) % 2][i / 4 % kRowTiles][i % 4];
  }

  // Where in the tile sum(i) lies.
  static GLAI_DEVICE int row(int i) {
    return (warp_index() % 4 * kRowTiles + i / 4 % kRowTiles) * 16 + lane_index() / 4 * 2 + i % 4 / 2;
  }
  static GLAI_DEVICE int column(int i) {
    const int unit = warp_index() / 4 * kUnits + i / (8 * kRowTiles);
    return unit * 16 + (lane_index() % 4 * 2 + i % 2) * 2 + i / (4 * kRowTiles) % 2;
  }

  template <class A, class B>
  GLAI_DEVICE void multiply(const std::uint8_t* a, const std::uint8_t* b) {
    static_assert(!A::kDepthInner && !B::kDepthInner && A::kDepth == B::kDepth);
    GLAI_UNROLL
    for (int depth = 0; depth < A::kDepth; depth += kFragmentDepth) {
      std::uint32_t of_a[kRowTiles][4];
      GLAI_UNROLL
      for (int i = 0; i < kRowTiles; ++i) {
        load<A>(of_a[i], a, (warp_index() % 4 * kRowTiles + i) * 16, depth);
      }
      GLAI_UNROLL
      for (int unit = 0; unit < kUnits; ++unit) {
        std::uint32_t of_b[4];
        load<B>(of_b, b, (warp_index() / 4 * kUnits + unit) * 16, depth);
        const std::uint32_t even[2] = {of_b[0], of_b[2]}, odd[2] = {of_b[1], of_b[3]};
        GLAI_UNROLL
        for (int i = 0; i < kRowTiles; ++i) {
          mma_bytes(sums[unit][0][i], of_a[i], even);
          mma_bytes(sums[unit][1][i], of_a[i], odd);
        }
      }
    }
  }

 private:
  // 16 columns of 32 samples: the even ones and the odd ones of the first 16 samples, then of the
  // others.
  template <class Operand>
  static GLAI_DEVICE void load(std::uint32_t (&to)[4], const std::uint8_t* from, int column, int depth) {
    std::uint32_t pairs[4];  // of samples, two columns each; matrix i: samples 8i to 8i+7
    load_matrices_transposed(pairs, from + Operand::at(column, depth + lane_index()));
    GLAI_UNROLL
    for (int half = 0; half < 2; ++half) {
      to[2 * half] = byte_permute(pairs[2 * half], pairs[2 * half + 1], 0x6420u);
      to[2 * half + 1] = byte_permute(pairs[2 * half], pairs[2 * half + 1], 0x7531u);
    }
  }
};

}  // namespace glai
