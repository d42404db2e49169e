// All CPU loops, compiled for avx512. CMake gives this file, and only this file, the flags for it.
#define GLAI_ISA isa_avx512

// The vocabulary before the loops that speak it.
#include "cpu/simd/avx512.hpp"

#include "cpu/op_table.hpp"

namespace glai {
namespace {

constexpr OpTable with_vnni() {
  OpTable table = GLAI_ISA::op_table();
  table.integer_gram = integer_gram_vnni;
  table.integer_features = integer_features_vnni;
  return table;
}

}  // namespace

const OpTable kCpuAvx512 = GLAI_ISA::op_table();
const OpTable kCpuAvx512Vnni = with_vnni();
}  // namespace glai
