// Included by each isa_*.cpp after its Simd vocabulary: the loops, and the table that names them.
#pragma once

#include "core/dispatch.hpp"
#include "cpu/class_sums.hpp"
#include "cpu/gated_linear.hpp"
#include "cpu/gated_matmul.hpp"
#include "cpu/gated_matmul_input_grad.hpp"
#include "cpu/gated_matmul_weight_grad.hpp"
#include "cpu/gates.hpp"
#include "cpu/integer_features.hpp"
#include "cpu/integer_gram.hpp"
#include "cpu/path_gram.hpp"
#include "cpu/path_kernel.hpp"
#include "cpu/selector_gates.hpp"
#include "cpu/structure_steps.hpp"
#include "cpu/train_steps.hpp"

namespace glai::GLAI_ISA {

// Bf16: operands of gated products of precision "bf16".
template <class Bf16 = RoundedToBf16>
constexpr OpTable op_table() {
  return {
      .pack_gates = pack_gates,
      .unpack_gates = unpack_gates,
      .gate_counts = gate_counts,
      .gate_hamming = gate_hamming,
      .path_gates = path_gates,
      .selector_gates = selector_gates,
      .gated_linear = gated_linear,
      .apply_gates = apply_gates,
      .gated_matmul = gated_matmul<Bf16>,
      .gated_matmul_input_grad = gated_matmul_input_grad<Bf16>,
      .gated_matmul_weight_grad = gated_matmul_weight_grad<Bf16>,
      .path_kernel = path_kernel,
      .path_gram = path_gram,
      .integer_gram = integer_gram,
      .class_sums = class_sums,
      .integer_features = integer_features,
      .train_steps = train_steps,
      .structure_steps = structure_steps,
  };
}

}  // namespace glai::GLAI_ISA
