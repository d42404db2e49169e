// All CPU loops, compiled for avx2. CMake gives this file, and only this file, the flags for it.
#define GLAI_ISA isa_avx2

// The vocabulary before the loops that speak it.
#include "cpu/simd/avx2.hpp"

#include "cpu/op_table.hpp"

namespace glai {
const OpTable kCpuAvx2 = GLAI_ISA::op_table();
}
