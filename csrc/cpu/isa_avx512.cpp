// All CPU loops, compiled for avx512. CMake gives this file, and only this file, the flags for it.
#define GLAI_ISA isa_avx512

// The vocabulary before the loops that speak it.
#include "cpu/simd/avx512.hpp"

#include "cpu/op_table.hpp"

namespace glai {
const OpTable kCpuAvx512 = GLAI_ISA::op_table();
}
