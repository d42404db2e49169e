// A block's product on CUDA cores, in the arithmetic of T itself: float and double. The shape and the
// words of MmaTile, so that kernels take either.
#pragma once

#include "cuda/tiles/numbers.cuh"
#include "cuda/tiles/pipeline.cuh"

namespace glai {

// Threads 16 by 16; each holds kRowsPerThread rows, 16 apart, and one column of each unit of 16.
template <class T_, int kRowsPerThread, int kUnits_>
struct FmaTile {
  using T = T_;
  using Sum = T;
  static constexpr int kThreads = 256;
  static constexpr int kRows = 16 * kRowsPerThread;
  static constexpr int kUnits = kUnits_;
  static constexpr int kPerUnit = kRowsPerThread;
  static constexpr int kPerRow = 1;

  T sums[kUnits][kRowsPerThread];

  GLAI_DEVICE T& sum(int unit, int e) { return sums[unit][e]; }
  static GLAI_DEVICE int row(int e) { return thread_index() / 16 + 16 * e; }
  static GLAI_DEVICE int column(int) { return thread_index() % 16; }

  // sums += a b; A, B: the OperandTiles, a of any type that widens to T. Sums of rows from `rows` on are
  // of no use.
  template <class A, class B, class OfA>
  GLAI_DEVICE void multiply(const OfA* a, const T* b, int rows = kRows) {
    GLAI_UNROLL
    for (int k = 0; k < B::kDepth; ++k) {
      T of_a[kRowsPerThread], of_b[kUnits];
      GLAI_UNROLL
      for (int e = 0; e < kRowsPerThread; ++e) of_a[e] = widen(a[A::at(row(e), k)]);
      GLAI_UNROLL
      for (int unit = 0; unit < kUnits; ++unit) of_b[unit] = b[B::at(16 * unit + column(0), k)];
      GLAI_UNROLL
      for (int unit = 0; unit < kUnits; ++unit) {
        GLAI_UNROLL
        for (int e = 0; e < kRowsPerThread; ++e) {
          if (16 * e < rows) sums[unit][e] += of_a[e] * of_b[unit];
        }
      }
    }
  }
};

}  // namespace glai
