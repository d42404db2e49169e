// All CPU loops, compiled for generic. CMake gives this file, and only this file, the flags for it.
#define GLAI_ISA isa_generic

// The vocabulary before the loops that speak it.
#include "cpu/simd/generic.hpp"

#include "cpu/op_table.hpp"

namespace glai {
const OpTable kCpuGeneric = GLAI_ISA::op_table();
}
