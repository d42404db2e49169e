// All CPU loops, compiled for avx512_bf16 (Zen 4, Sapphire Rapids: AVX-512 with BF16,
// VPOPCNTDQ and VNNI). CMake gives this file, and only this file, the flags for it.
#define GLAI_ISA isa_avx512_bf16

// The vocabulary before the loops that speak it.
#include "cpu/simd_avx512.hpp"

#include "cpu/op_table.hpp"

namespace glai {
const OpTable kCpuAvx512Bf16 = GLAI_ISA::op_table();
}
