// What the threads of a warp compute together: the host bodies of the warp-wide primitives. Fragments
// are laid out as the PTX manual says; g = lane / 4, t = lane % 4.
#pragma once

#include <cstdint>

namespace glai::simt {

std::uint32_t ballot(bool on);
std::uint32_t shuffle(std::uint32_t value, int lane);
std::uint32_t shuffle_up(std::uint32_t value, int delta);  // the lowest lanes keep theirs

// Four matrices of 8 rows of 16 bytes; lanes 8i to 8i+7 bring the rows of matrix i. to[i]: word t of row
// g of matrix i; transposed: 16-bit elements g of rows 2t and 2t+1.
void load_matrices(std::uint32_t to[4], const void* row, bool transposed);

// acc[16x8] += a[16xK] b[Kx8]: K = 16 halves (two in a word, the lower k in the lower half), or K = 8
// tf32.
enum class MmaType { fp16, bf16, tf32 };
void mma(MmaType type, float acc[4], const std::uint32_t a[4], const std::uint32_t b[2]);

// The same with K = 32 bytes without sign, four in a word.
void mma_bytes(std::int32_t acc[4], const std::uint32_t a[4], const std::uint32_t b[2]);

}  // namespace glai::simt
