// From a checked args struct to the kernel that runs it: one table of function pointers per CPU
// instruction set, and one for CUDA.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "core/args.hpp"

namespace glai {

struct OpTable {
  void (*pack_gates)(const PackGatesArgs&);
  void (*unpack_gates)(const UnpackGatesArgs&);
  void (*gate_counts)(const GateCountsArgs&);
  void (*gate_hamming)(const GateHammingArgs&);
  void (*path_gates)(const PathGatesArgs&);
  void (*selector_gates)(const SelectorGatesArgs&);
  void (*gated_linear)(const GatedLinearArgs&);
  void (*apply_gates)(const ApplyGatesArgs&);
  void (*gated_matmul)(const GatedMatmulArgs&);
  void (*gated_matmul_input_grad)(const GatedMatmulInputGradArgs&);
  void (*gated_matmul_weight_grad)(const GatedMatmulWeightGradArgs&);
  void (*path_kernel)(const PathKernelArgs&);
  void (*path_gram)(const PathGramArgs&);
  void (*integer_gram)(const IntegerGramArgs&);
  void (*class_sums)(const ClassSumsArgs&);
  void (*integer_features)(const IntegerFeaturesArgs&);
  void (*train_steps)(const TrainStepsArgs&);
  void (*structure_steps)(const StructureStepsArgs&);
};

extern const OpTable kCpuGeneric;
#ifdef GLAI_X86
extern const OpTable kCpuAvx2;
extern const OpTable kCpuAvx512;
extern const OpTable kCpuAvx512Vnni;
extern const OpTable kCpuAvx512Bf16;
extern const OpTable kCpuAvx512Bf16Dot;
// What kCpuAvx512Vnni has of its own.
void integer_gram_vnni(const IntegerGramArgs&);
void integer_features_vnni(const IntegerFeaturesArgs&);
#endif
#ifdef GLAI_CUDA_COMPILED
extern const OpTable kCuda;
// Empty when a device can be used, otherwise why not; never throws.
std::string cuda_unavailable_reason();
#endif

// The instruction sets that this machine runs.
std::vector<std::string> cpu_isas();
std::string cpu_isa();
// Uses the named set from now on; throws when this machine or build lacks it.
void force_cpu_isa(const std::string& name);

struct CudaStatus {
  bool compiled;
  bool available;
  std::string reason;  // why not available; empty when it is
};
CudaStatus cuda_status();

const OpTable& op_table(const char* op, const Device& device);

// Whether no element is to be written. Sizes beside a size of zero may be any that 64 bits hold: loops
// over them would not end.
template <class Args>
bool writes_nothing(const Args&) {
  return false;
}
inline bool writes_nothing(const PackGatesArgs& a) { return is_empty(a.words); }
inline bool writes_nothing(const UnpackGatesArgs& a) { return is_empty(a.bits); }
inline bool writes_nothing(const GateHammingArgs& a) { return is_empty(a.distance); }
inline bool writes_nothing(const PathGatesArgs& a) { return is_empty(a.words); }
inline bool writes_nothing(const SelectorGatesArgs& a) { return is_empty(a.words); }
inline bool writes_nothing(const GatedLinearArgs& a) { return is_empty(a.y); }
inline bool writes_nothing(const ApplyGatesArgs& a) { return is_empty(a.out); }
inline bool writes_nothing(const GatedMatmulArgs& a) { return is_empty(a.y); }
inline bool writes_nothing(const GatedMatmulInputGradArgs& a) { return is_empty(a.dx); }
inline bool writes_nothing(const GatedMatmulWeightGradArgs& a) {
  return is_empty(a.dw) && (!a.db || is_empty(*a.db));
}
inline bool writes_nothing(const PathKernelArgs& a) { return is_empty(a.out); }
inline bool writes_nothing(const PathGramArgs& a) { return is_empty(a.out); }
inline bool writes_nothing(const IntegerGramArgs& a) { return is_empty(a.out) || is_empty(a.features); }
inline bool writes_nothing(const ClassSumsArgs& a) { return is_empty(a.out) || is_empty(a.features); }
inline bool writes_nothing(const IntegerFeaturesArgs& a) { return is_empty(a.out); }

// Runs the op's table entry on the device of its first tensor.
template <class Args>
void run(const char* op, void (*OpTable::*entry)(const Args&), const Device& device, const Args& args) {
  void (*kernel)(const Args&) = op_table(op, device).*entry;
  if (kernel == nullptr) {
    throw std::invalid_argument(std::string(op) +
                                ": there is no CUDA kernel for this op yet, move its tensors to cpu");
  }
  if (!writes_nothing(args)) kernel(args);
}

}  // namespace glai
