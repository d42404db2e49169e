// The launchers that the CUDA op table names; one per op, in the .cu file of its family.
#pragma once

#include "core/args.hpp"

namespace glai {

void launch_pack_gates(const PackGatesArgs& args);
void launch_unpack_gates(const UnpackGatesArgs& args);
void launch_gate_counts(const GateCountsArgs& args);
void launch_gate_hamming(const GateHammingArgs& args);
void launch_path_gates(const PathGatesArgs& args);
void launch_apply_gates(const ApplyGatesArgs& args);

// A step of other ops: words [N, ceil(P/32)] turned to columns [P, ceil(N/32)], bits over samples.
void launch_gate_columns(const char* op, const TensorView& words, std::int64_t n_gates,
                         const TensorView& columns, const Execution& exec);

void launch_selector_gates(const SelectorGatesArgs& args);
void launch_gated_linear(const GatedLinearArgs& args);
void launch_gated_matmul(const GatedMatmulArgs& args);
void launch_gated_matmul_input_grad(const GatedMatmulInputGradArgs& args);
void launch_gated_matmul_weight_grad(const GatedMatmulWeightGradArgs& args);
void launch_path_kernel(const PathKernelArgs& args);
void launch_path_gram(const PathGramArgs& args);
void launch_integer_gram(const IntegerGramArgs& args);

}  // namespace glai
