// All CPU loops, compiled for avx512_bf16 (Zen 4, Sapphire Rapids: AVX-512 with BF16,
// VPOPCNTDQ and VNNI). CMake gives this file, and only this file, the flags for it.
//
// Two tables: not every processor that has bfloat16 dot products runs them as fast as multiply-adds.
#define GLAI_ISA isa_avx512_bf16

// The vocabulary before the loops that speak it.
#include "cpu/simd/avx512.hpp"

#include "cpu/op_table.hpp"

namespace glai {
const OpTable kCpuAvx512Bf16 = GLAI_ISA::op_table();
const OpTable kCpuAvx512Bf16Dot = GLAI_ISA::op_table<GLAI_ISA::PairedBf16>();
}  // namespace glai
