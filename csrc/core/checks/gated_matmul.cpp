#include "core/checks/check.hpp"

#include <string>

#include "core/checks/checker.hpp"
#include "core/names.hpp"
#include "core/tiling.hpp"

namespace glai {

namespace {

// Operands are rounded where tensors are float32; others say with their dtype what they want.
void check_precision(const char* op, const TensorView& x, Precision precision) {
  if (precision == Precision::automatic) return;
  const std::string must = std::string(op) + ": precision must be None",
                    got = ", got '" + precision_name(precision) + "'";
  if (x.dtype != DType::float32) fail(must + " for " + dtype_name(x.dtype) + " tensors" + got);
  if (x.device.type == DeviceType::cpu && precision == Precision::tf32) {
    fail(must + ", 'fp32' or 'bf16' on cpu" + got);
  }
  if (x.device.type == DeviceType::cuda && precision == Precision::bf16) {
    fail(must + ", 'fp32' or 'tf32' for float32 tensors on cuda" + got +
         ": pass bfloat16 tensors instead");
  }
}

// The workspace of products whose paths are split; how often is for the caller to say.
void check_partial(const char* op, const Checker& check, const TensorView& y, std::int64_t n_gates,
                   std::int64_t depth, Form form, const CudaProduct& cuda) {
  if (y.device.type == DeviceType::cuda && form == Form::reference) {
    const std::string must = std::string(op) + ": form 'reference' on cuda must come with ";
    if (!cuda.partial || cuda.partial->ndim != 3 || cuda.partial->shape[0] < 2) {
      fail(must + "partial of 2 slices or more");
    }
    if (!cuda.reference) fail(must + "the workspace reference");
    const ReferenceMemory memory = reference_memory(y.dtype, n_gates, depth, y.shape[1]);
    const std::int64_t words = cuda.reference->ndim == 1 ? cuda.reference->shape[0] : 0;
    const bool with_norms = 4 * words == memory.with_norms;
    check.tensor("reference", *cuda.reference, {DType::int32},
                 {{"words", (with_norms ? memory.with_norms : memory.norms) / 4}}, Layout::contiguous);
    if (reinterpret_cast<std::uintptr_t>(cuda.reference->data) % 16 != 0) {
      fail(std::string(op) + ": reference must begin at a multiple of 16 bytes");
    }
  }
  if (!cuda.partial) return;
  check.tensor("partial", *cuda.partial, {sum_dtype(y.dtype)},
               {{"splits"}, {"rows", y.shape[0]}, {"columns", y.shape[1]}}, Layout::contiguous);
  if (cuda.partial->shape[0] == 0) fail(std::string(op) + ": partial must have splits >= 1, got 0");
}

}  // namespace

const OpForms kProductForms = {{{Form::compaction, Form::subset_sums, Form::reference},
                                "None, 'compaction', 'subset_sums' or 'reference' on cpu"},
                               {{Form::dense, Form::compaction, Form::reference},
                                "None, 'dense', 'compaction' or 'reference' on cuda"}};
const OpForms kWeightGradForms = {
    {{Form::compaction, Form::subset_sums}, "None, 'compaction' or 'subset_sums'"},
    {{Form::compaction}, "None or 'compaction' on cuda"}};

void check_form(const char* op, const OpForms& forms, const Device& device, Form form) {
  if (form == Form::automatic) return;
  const DeviceForms& there = device.type == DeviceType::cuda ? forms.cuda : forms.cpu;
  for (const Form one : there.forms) {
    if (one == form) return;
  }
  fail(std::string(op) + ": form must be " + there.listed + ", got '" + form_name(form) + "'");
}

void check_gated_matmul(const GatedMatmulArgs& a) {
  const Checker check("gated_matmul", "x", a.x.device);
  check.tensor("x", a.x, floats_of(a.x.device), {{"N"}, {"D"}});
  const DType dtype = a.x.dtype;
  const std::int64_t n = a.x.shape[0], d = a.x.shape[1];
  check.words("gates.words", a.words, {"N", n}, "P", a.n_gates);
  check.tensor("weight", a.weight, {dtype}, {{"P", a.n_gates}, {"D", d}, {"C"}},
               Layout::either_unit_stride);
  const std::int64_t c = a.weight.shape[2];
  check.sizes({{"D", d}, {"C", c}});
  if (a.bias) check.tensor("bias", *a.bias, {dtype}, {{"P", a.n_gates}, {"C", c}});
  check.tensor("y", a.y, {dtype}, {{"N", n}, {"C", c}}, Layout::rows);
  check_form("gated_matmul", kProductForms, a.y.device, a.form);
  check_partial("gated_matmul", check, a.y, a.n_gates, d, a.form, a.cuda);
  check_precision("gated_matmul", a.x, a.precision);
  check.apart({{"y", a.y}, {"partial", a.cuda.partial}, {"reference", a.cuda.reference}},
              {{"x", a.x}, {"gates.words", a.words}, {"weight", a.weight}, {"bias", a.bias}});
}

void check_gated_matmul_input_grad(const GatedMatmulInputGradArgs& a) {
  const Checker check("gated_matmul_input_grad", "dy", a.dy.device);
  check.tensor("dy", a.dy, floats_of(a.dy.device), {{"N"}, {"C"}});
  const DType dtype = a.dy.dtype;
  const std::int64_t n = a.dy.shape[0], c = a.dy.shape[1];
  check.words("gates.words", a.words, {"N", n}, "P", a.n_gates);
  check.tensor("weight", a.weight, {dtype}, {{"P", a.n_gates}, {"D"}, {"C", c}},
               Layout::either_unit_stride);
  check.sizes({{"D", a.weight.shape[1]}, {"C", c}});
  check.tensor("dx", a.dx, {dtype}, {{"N", n}, {"D", a.weight.shape[1]}}, Layout::rows);
  check_form("gated_matmul_input_grad", kProductForms, a.dx.device, a.form);
  check_partial("gated_matmul_input_grad", check, a.dx, a.n_gates, c, a.form, a.cuda);
  check_precision("gated_matmul_input_grad", a.dy, a.precision);
  check.apart({{"dx", a.dx}, {"partial", a.cuda.partial}, {"reference", a.cuda.reference}},
              {{"dy", a.dy}, {"gates.words", a.words}, {"weight", a.weight}});
}

void check_gated_matmul_weight_grad(const GatedMatmulWeightGradArgs& a) {
  const Checker check("gated_matmul_weight_grad", "x", a.x.device);
  check_form("gated_matmul_weight_grad", kWeightGradForms, a.x.device, a.form);
  check.tensor("x", a.x, floats_of(a.x.device), {{"N"}, {"D"}});
  const DType dtype = a.x.dtype;
  const std::int64_t n = a.x.shape[0], d = a.x.shape[1];
  check.words("gates.words", a.words, {"N", n}, "P", a.n_gates);
  check.tensor("dy", a.dy, {dtype}, {{"N", n}, {"C"}});
  const std::int64_t c = a.dy.shape[1];
  check.sizes({{"D", d}, {"C", c}});
  check.tensor("out", a.dw, {dtype}, {{"P", a.n_gates}, {"D", d}, {"C", c}}, Layout::rows);
  if (a.db) check.tensor("bias_out", *a.db, {dtype}, {{"P", a.n_gates}, {"C", c}}, Layout::rows);
  check_precision("gated_matmul_weight_grad", a.x, a.precision);
  check_gate_columns("gated_matmul_weight_grad", check, a.words, a.n_gates, a.cuda);
  if (a.cuda.partial) {
    check.tensor("partial", *a.cuda.partial, {sum_dtype(dtype)},
                 {{"splits"}, {"P", a.n_gates}, {"D + 1", d + 1}, {"C", c}}, Layout::contiguous);
    if (a.cuda.partial->shape[0] == 0) {
      fail("gated_matmul_weight_grad: partial must have splits >= 1, got 0");
    }
  }
  check.apart({{"out", a.dw},
               {"bias_out", a.db},
               {"partial", a.cuda.partial},
               {"gate_columns", a.cuda.gate_columns}},
              {{"x", a.x}, {"gates.words", a.words}, {"dy", a.dy}});
}

}  // namespace glai
