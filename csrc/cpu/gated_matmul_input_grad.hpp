// The input gradient is a gated product itself: dy in the place of x, each path's weights transposed.
#pragma once

#include "core/args.hpp"
#include "cpu/gated_matmul.hpp"

namespace glai::GLAI_ISA {

template <class Bf16>
void gated_matmul_input_grad(const GatedMatmulInputGradArgs& a) {
  TensorView transposed = a.weight;  // [P, C, D]
  transposed.shape[1] = a.weight.shape[2];
  transposed.shape[2] = a.weight.shape[1];
  transposed.stride[1] = a.weight.stride[2];
  transposed.stride[2] = a.weight.stride[1];
  gated_matmul<Bf16>(
      {a.dy, a.words, a.n_gates, transposed, {}, a.dx, a.form, a.exec, a.cuda, a.precision});
}

}  // namespace glai::GLAI_ISA
