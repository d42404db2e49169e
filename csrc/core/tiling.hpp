// How CUDA blocks divide a gated product among them. A function of shapes, types and the form alone, so
// that neither the device nor what else runs on it changes the order of sums.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/args.hpp"

namespace glai {

struct GatedMatmulTiling {
  std::int64_t rows, columns;  // of y that a block owns
  std::int64_t paths;          // that it takes at a time
  std::int64_t splits;         // of the paths: each gives partial sums, which are added up in order
};

// The forms that gather rows: of paths that are on, or that deviate from the reference.
constexpr bool gathers_rows(Form form) { return form == Form::compaction || form == Form::reference; }

// Rows of y that a block owns. Dense: its sums, 128 of a thread's for the products and 16 for y, fill
// the registers. The forms that gather: its sums take 128 KiB of shared memory.
constexpr std::int64_t tile_rows(Form form, std::size_t sum_bytes) {
  if (gathers_rows(form)) return static_cast<std::int64_t>(2048 / sum_bytes);
  return sum_bytes == 8 ? 64 : 256;
}

// The same where there are few. Dense: many would leave multiprocessors without a block. The forms that
// gather: there are no more, or a GPU's blocks have less shared memory.
constexpr std::int64_t few_tile_rows(Form form, std::size_t sum_bytes) {
  if (gathers_rows(form)) return static_cast<std::int64_t>(1024 / sum_bytes);
  return sum_bytes == 8 ? 64 : 128;
}

// Columns of y that a block owns, and the paths that a block of the dense form takes at a time.
constexpr int kDenseColumns = 16, kDensePaths = 8;
constexpr int kCompactionColumns = 64;

// y [n, c] over p paths.
GatedMatmulTiling gated_matmul_tiling(Form form, DType dtype, std::int64_t n, std::int64_t p,
                                      std::int64_t c);

// Where the parts of the reference form's workspace begin, in bytes, behind the words of the majority:
// the sums, and the norms, which there is room for or not.
struct ReferenceMemory {
  std::int64_t sums, norms, with_norms;
};
ReferenceMemory reference_memory(DType dtype, std::int64_t p, std::int64_t depth, std::int64_t c);

// How many ways the samples of a weight gradient dw [p, d, c] are split, and the rows and columns of a
// path's gradient that a block owns.
struct WeightGradTiling {
  std::int64_t rows, columns, splits;
};
constexpr std::int64_t weight_grad_rows(std::size_t sum_bytes, bool narrow) {
  return narrow || sum_bytes == 8 ? 64 : 128;
}
constexpr std::int64_t weight_grad_columns(bool narrow) { return narrow ? 16 : 64; }
WeightGradTiling weight_grad_tiling(DType dtype, std::int64_t n, std::int64_t p, std::int64_t d,
                                    std::int64_t c);

// What products of a type are summed in.
DType sum_dtype(DType dtype);

}  // namespace glai
