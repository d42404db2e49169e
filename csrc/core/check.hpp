// Every contract of every op, checked once, before any kernel runs. A violation throws
// std::invalid_argument (Python: ValueError) with one sentence:
// "gated_matmul: weight must be float32 [P=64, D=784, C], got float32 [63, 784, 10]".
#pragma once

#include <string>

#include "core/args.hpp"
#include "core/model_output.hpp"

namespace glai {

std::string dtype_name(DType dtype);
std::string device_name(const Device& device);

// "compaction" -> Form::compaction; throws for names that are no form of this op.
Form parse_form(const char* op, const std::string& name);
std::string form_name(Form form);
// Refuses forms that the op does not have on that device.
void check_form(const char* op, const Device& device, Form form);

// "bf16" -> Precision::bf16; throws for names that are none. Whether tensors may take it is checked with
// them.
Precision parse_precision(const char* op, const std::string& name);
std::string precision_name(Precision precision);

void check_words(const char* op, const TensorView& words, std::int64_t n_gates);

void check_pack_gates(const PackGatesArgs& args);
void check_unpack_gates(const UnpackGatesArgs& args);
void check_gate_counts(const GateCountsArgs& args);
void check_gate_hamming(const GateHammingArgs& args);
void check_path_gates(const PathGatesArgs& args);
void check_selector_gates(const SelectorGatesArgs& args);
void check_gated_linear(const GatedLinearArgs& args);
void check_apply_gates(const ApplyGatesArgs& args);
void check_gated_matmul(const GatedMatmulArgs& args);
void check_gated_matmul_input_grad(const GatedMatmulInputGradArgs& args);
void check_gated_matmul_weight_grad(const GatedMatmulWeightGradArgs& args);
void check_path_kernel(const PathKernelArgs& args);
void check_path_gram(const PathGramArgs& args);
void check_train_steps(const TrainStepsArgs& args);
// What no op within checks.
void check_model_output(const ModelOutputArgs& args);

}  // namespace glai
