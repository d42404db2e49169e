// Every contract of every op, checked once, before any kernel runs. A violation throws
// std::invalid_argument (Python: ValueError) with one sentence:
// "gated_matmul: weight must be float32 [P=64, D=784, C], got float32 [63, 784, 10]".
#pragma once

#include <cstdint>
#include <initializer_list>

#include "core/args.hpp"
#include "core/plan.hpp"

namespace glai {

// The forms that may be forced on a kind of device, and how a refusal lists them.
struct DeviceForms {
  std::initializer_list<Form> forms;
  const char* listed;
};
struct OpForms {
  DeviceForms cpu, cuda;
};
extern const OpForms kProductForms;     // gated_matmul, gated_matmul_input_grad
extern const OpForms kWeightGradForms;  // gated_matmul_weight_grad

// Refuses forms that the op does not have on that device.
void check_form(const char* op, const OpForms& forms, const Device& device, Form form);

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
void check_integer_gram(const IntegerGramArgs& args);
void check_class_sums(const ClassSumsArgs& args);
void check_integer_features(const IntegerFeaturesArgs& args);
void check_train_steps(const TrainStepsArgs& args);
void check_structure_steps(const StructureStepsArgs& args);
void check_model_output(const ModelOutputArgs& args);

// What plans and explanations are made of; op: whose plan it is.
void check_plan_cuda_product(const char* op, const TensorView& y, std::int64_t n_gates,
                             std::int64_t depth);
void check_plan_cuda_weight_grad(const TensorView& x, std::int64_t n_gates, std::int64_t columns);
void check_explain_cuda_form(const GatedShape& shape);
void check_explain_form(const TensorView& words, std::int64_t n_gates, std::int64_t d, std::int64_t c);

}  // namespace glai
