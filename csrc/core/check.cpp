#include "core/check.hpp"

#include <initializer_list>
#include <stdexcept>
#include <utility>

#include "core/gates.hpp"
#include "core/tiling.hpp"

namespace glai {
namespace {

// A dimension by its letter; size < 0 means "whatever it is".
struct Dim {
  const char* name;
  std::int64_t size = -1;
};

// What a kernel needs of the strides. Inputs: unit_stride in the last dimension, or in one of the last
// two (either_unit_stride). Outputs: rows, which may be slices of a larger buffer but must not overlap.
enum class Layout { unit_stride, either_unit_stride, rows, contiguous };

using DTypes = std::initializer_list<DType>;
using Dims = std::initializer_list<Dim>;

[[noreturn]] void fail(const std::string& sentence) { throw std::invalid_argument(sentence); }

std::string describe(DTypes dtypes, Dims dims) {
  std::string text;
  std::size_t i = 0;
  for (const DType dtype : dtypes) {
    if (i > 0) text += i + 1 == dtypes.size() ? " or " : ", ";
    text += dtype_name(dtype);
    ++i;
  }
  text += " [";
  i = 0;
  for (const Dim& dim : dims) {
    if (i++ > 0) text += ", ";
    text += dim.name;
    if (dim.size >= 0) text += "=" + std::to_string(dim.size);
  }
  return text + "]";
}

std::string describe(const TensorView& v) {
  std::string text = dtype_name(v.dtype) + " [";
  for (int i = 0; i < v.ndim; ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(v.shape[i]);
  }
  return text + "]";
}

bool has_layout(const TensorView& v, Layout layout) {
  for (int i = 0; i < v.ndim; ++i) {
    if (v.shape[i] == 0) return true;
  }
  if (layout == Layout::either_unit_stride) {
    for (int i = v.ndim - 2; i < v.ndim; ++i) {
      if (v.shape[i] == 1 || v.stride[i] == 1) return true;
    }
    return false;
  }
  std::int64_t inner = 1;  // elements from one step of the dimension to the next, at least
  for (int i = v.ndim - 1; i >= 0; --i) {
    if (v.shape[i] != 1) {
      const bool exact = layout != Layout::rows || i == v.ndim - 1;
      if (exact ? v.stride[i] != inner : v.stride[i] < inner) return false;
      inner = v.stride[i] * v.shape[i];
    }
    if (layout == Layout::unit_stride) return true;
  }
  return true;
}

const char* layout_demand(Layout layout) {
  switch (layout) {
    case Layout::unit_stride: return "have stride 1 in its last dimension";
    case Layout::either_unit_stride: return "have stride 1 in one of its last two dimensions";
    case Layout::rows: return "have stride 1 in its last dimension and rows that do not overlap";
    case Layout::contiguous: break;
  }
  return "be contiguous";
}

std::int64_t item_size(DType dtype) {
  switch (dtype) {
    case DType::float64:
    case DType::int64: return 8;
    case DType::float16:
    case DType::bfloat16:
    case DType::int16: return 2;
    case DType::boolean:
    case DType::uint8:
    case DType::int8: return 1;
    default: return 4;
  }
}

// From the first byte of a tensor to past its last one.
std::pair<const char*, const char*> bytes(const TensorView& v) {
  std::int64_t last = 0;
  for (int i = 0; i < v.ndim; ++i) {
    if (v.shape[i] == 0) return {nullptr, nullptr};
    last += (v.shape[i] - 1) * v.stride[i];
  }
  const std::int64_t size = item_size(v.dtype);
  const auto* begin = v.as<const char>();
  return {begin, begin + (last + 1) * size};
}

class Checker {
 public:
  // All tensors of an op must share the device of the first one, named here.
  Checker(const char* op, const char* first, const Device& device)
      : op_(op), first_(first), device_(device) {
    if (device.type == DeviceType::other) {
      fail(std::string(op) + ": " + first + " must be on cpu or cuda, got another kind of device");
    }
  }

  void tensor(const char* name, const TensorView& v, DTypes dtypes, Dims dims,
              Layout layout = Layout::unit_stride) const {
    bool good = v.ndim == static_cast<int>(dims.size());
    bool dtype_good = false;
    for (const DType dtype : dtypes) dtype_good = dtype_good || v.dtype == dtype;
    int i = 0;
    for (const Dim& dim : dims) {
      good = good && (dim.size < 0 || v.shape[i] == dim.size);
      ++i;
    }
    if (!good || !dtype_good) {
      fail(std::string(op_) + ": " + name + " must be " + describe(dtypes, dims) + ", got " +
           describe(v));
    }
    if (!(v.device == device_)) {
      fail(std::string(op_) + ": " + name + " must be on " + device_name(device_) + " like " + first_ +
           ", got " + device_name(v.device));
    }
    if (!has_layout(v, layout)) {
      fail(std::string(op_) + ": " + name + " must " + layout_demand(layout) +
           ", pass a copy made with " + name + ".contiguous()");
    }
  }

  // An output that is read while it is written would give neither the one nor the other.
  void apart(const char* name, const TensorView& out, const char* other_name,
             const TensorView& other) const {
    const auto [begin, end] = bytes(out);
    const auto [other_begin, other_end] = bytes(other);
    if (begin < other_end && other_begin < end) {
      fail(std::string(op_) + ": " + name + " must not share memory with " + other_name);
    }
  }

  void words(const char* name, const TensorView& v, Dim n, const char* gate_letter,
             std::int64_t n_gates) const {
    if (n_gates < 0) fail(std::string(op_) + ": n_gates must be >= 0, got " + std::to_string(n_gates));
    const std::string w = std::string("ceil(") + gate_letter + "/32)";
    tensor(name, v, {DType::int32}, {n, {w.c_str(), words_per_row(n_gates)}}, Layout::contiguous);
  }

 private:
  const char* op_;
  const char* first_;
  Device device_;
};

const DTypes kFloats = {DType::float32, DType::float64};
const DTypes kCudaFloats = {DType::float32, DType::float64, DType::float16, DType::bfloat16};

const DTypes& floats_of(const Device& device) {
  return device.type == DeviceType::cuda ? kCudaFloats : kFloats;
}

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

// The workspace of products that go path by path.
void check_gate_columns(const char* op, const Checker& check, const TensorView& words,
                        std::int64_t n_gates, const CudaProduct& cuda) {
  if (words.device.type != DeviceType::cuda) return;
  if (!cuda.gate_columns) fail(std::string(op) + ": gate_columns must come with tensors on cuda");
  check.tensor("gate_columns", *cuda.gate_columns, {DType::int32},
               {{"P", n_gates}, {"ceil(N/32)", words_per_row(words.shape[0])}}, Layout::contiguous);
}

}  // namespace

std::string dtype_name(DType dtype) {
  switch (dtype) {
    case DType::boolean: return "bool";
    case DType::uint8: return "uint8";
    case DType::int8: return "int8";
    case DType::int16: return "int16";
    case DType::int32: return "int32";
    case DType::int64: return "int64";
    case DType::float16: return "float16";
    case DType::bfloat16: return "bfloat16";
    case DType::float32: return "float32";
    case DType::float64: return "float64";
    case DType::other: break;
  }
  return "another dtype";
}

std::string device_name(const Device& device) {
  switch (device.type) {
    case DeviceType::cpu: return "cpu";
    case DeviceType::cuda: return "cuda:" + std::to_string(device.index);
    case DeviceType::other: break;
  }
  return "another device";
}

std::string form_name(Form form) {
  switch (form) {
    case Form::compaction: return "compaction";
    case Form::subset_sums: return "subset_sums";
    case Form::reference: return "reference";
    case Form::dense: return "dense";
    case Form::automatic: break;
  }
  return "automatic";
}

Form parse_form(const char* op, const std::string& name) {
  for (const Form form : {Form::compaction, Form::subset_sums, Form::reference, Form::dense}) {
    if (name == form_name(form)) return form;
  }
  fail(std::string(op) +
       ": form must be None, 'compaction', 'subset_sums', 'reference' or 'dense', got '" + name + "'");
}

void check_form(const char* op, const Device& device, Form form) {
  const bool weight_grad = std::string(op) == "gated_matmul_weight_grad";
  const bool cuda = device.type == DeviceType::cuda;
  const bool refused = form == (cuda ? Form::subset_sums : Form::dense) ||
                       (weight_grad && (form == Form::reference || form == Form::dense));
  if (!refused) return;
  const char* forms = cuda ? (weight_grad ? "None or 'compaction' on cuda"
                                          : "None, 'dense', 'compaction' or 'reference' on cuda")
                           : (weight_grad ? "None, 'compaction' or 'subset_sums'"
                                          : "None, 'compaction', 'subset_sums' or 'reference' on cpu");
  fail(std::string(op) + ": form must be " + forms + ", got '" + form_name(form) + "'");
}

std::string precision_name(Precision precision) {
  switch (precision) {
    case Precision::fp32: return "fp32";
    case Precision::tf32: return "tf32";
    case Precision::bf16: return "bf16";
    case Precision::automatic: break;
  }
  return "automatic";
}

Precision parse_precision(const char* op, const std::string& name) {
  for (const Precision precision : {Precision::fp32, Precision::tf32, Precision::bf16}) {
    if (name == precision_name(precision)) return precision;
  }
  fail(std::string(op) + ": precision must be None, 'fp32', 'tf32' or 'bf16', got '" + name + "'");
}

void check_words(const char* op, const TensorView& words, std::int64_t n_gates) {
  const Checker check(op, "words", words.device);
  check.words("words", words, {"N"}, "P", n_gates);
  if (words.device.type != DeviceType::cpu || n_gates == 0) return;
  const std::int64_t w = words_per_row(n_gates);
  const std::uint32_t padding = ~last_word_mask(n_gates);
  const auto* last = words.as<std::uint32_t>() + (w - 1);
  for (std::int64_t n = 0; n < words.shape[0]; ++n) {
    if ((last[n * w] & padding) != 0) {
      fail(std::string(op) + ": the padding bits of words (past gate P=" + std::to_string(n_gates) +
           ") must be zero, got a set bit in row " + std::to_string(n));
    }
  }
}

void check_pack_gates(const PackGatesArgs& a) {
  const Checker check("pack_gates", "bits", a.bits.device);
  check.tensor("bits", a.bits, {DType::boolean, DType::float32, DType::float64}, {{"N"}, {"P"}});
  check.words("words", a.words, {"N", a.bits.shape[0]}, "P", a.bits.shape[1]);
}

void check_unpack_gates(const UnpackGatesArgs& a) {
  const Checker check("unpack_gates", "words", a.words.device);
  check.words("words", a.words, {"N"}, "P", a.n_gates);
  check.tensor("bits", a.bits, {DType::boolean}, {{"N", a.words.shape[0]}, {"P", a.n_gates}},
               Layout::contiguous);
}

void check_gate_counts(const GateCountsArgs& a) {
  const Checker check("gate_counts", "words", a.words.device);
  check.words("words", a.words, {"N"}, "P", a.n_gates);
  check.tensor("counts", a.counts, {DType::int64}, {{"P", a.n_gates}}, Layout::contiguous);
}

void check_gate_hamming(const GateHammingArgs& a) {
  const Checker check("gate_hamming", "words_a", a.words_a.device);
  check.words("words_a", a.words_a, {"N"}, "P", a.n_gates);
  check.words("words_b", a.words_b, {"N", a.words_a.shape[0]}, "P", a.n_gates);
  check.tensor("distance", a.distance, {DType::int64}, {{"N", a.words_a.shape[0]}}, Layout::contiguous);
}

void check_path_gates(const PathGatesArgs& a) {
  const Checker check("path_gates", "unit_words", a.unit_words.device);
  const std::int64_t n = a.unit_words.ndim > 0 ? a.unit_words.shape[0] : 0;
  check.words("unit_words", a.unit_words, {"N"}, "h", a.n_units);
  check.words("inner_words", a.inner_words, {"N", n}, "inner", a.n_inner);
  check.words("words", a.words, {"N", n}, "P", (a.n_units + 1) * a.n_inner);
}

void check_selector_gates(const SelectorGatesArgs& a) {
  const Checker check("selector_gates", "x", a.x.device);
  check.tensor("x", a.x, floats_of(a.x.device), {{"N"}, {"D"}});
  const DType dtype = a.x.dtype;
  check.tensor("weight", a.weight, {dtype}, {{"H"}, {"D", a.x.shape[1]}}, Layout::either_unit_stride);
  const std::int64_t h = a.weight.shape[0];
  if (a.bias) check.tensor("bias", *a.bias, {dtype}, {{"H", h}});
  check.words("words", a.words, {"N", a.x.shape[0]}, "H", h);
}

void check_gated_linear(const GatedLinearArgs& a) {
  const Checker check("gated_linear", "x", a.x.device);
  check.tensor("x", a.x, floats_of(a.x.device), {{"N"}, {"D"}});
  const DType dtype = a.x.dtype;
  const std::int64_t n = a.x.shape[0];
  check.words("gates.words", a.words, {"N", n}, "P", a.n_gates);
  check.tensor("u", a.u, {dtype}, {{"P", a.n_gates}, {"D", a.x.shape[1]}}, Layout::either_unit_stride);
  if (a.bias) check.tensor("bias", *a.bias, {dtype}, {{"P", a.n_gates}});
  check.tensor("y", a.y, {dtype}, {{"N", n}, {"P", a.n_gates}}, Layout::rows);
}

void check_apply_gates(const ApplyGatesArgs& a) {
  const Checker check("apply_gates", "values", a.values.device);
  check.tensor("values", a.values, floats_of(a.values.device), {{"N"}, {"P", a.n_gates}});
  const Dim n{"N", a.values.shape[0]};
  check.words("gates.words", a.words, n, "P", a.n_gates);
  check.tensor("out", a.out, {a.values.dtype}, {n, {"P", a.n_gates}}, Layout::rows);
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
  if (a.bias) check.tensor("bias", *a.bias, {dtype}, {{"P", a.n_gates}, {"C", c}});
  check.tensor("y", a.y, {dtype}, {{"N", n}, {"C", c}}, Layout::rows);
  check_form("gated_matmul", a.y.device, a.form);
  check_partial("gated_matmul", check, a.y, a.n_gates, d, a.form, a.cuda);
  check_precision("gated_matmul", a.x, a.precision);
}

void check_gated_matmul_input_grad(const GatedMatmulInputGradArgs& a) {
  const Checker check("gated_matmul_input_grad", "dy", a.dy.device);
  check.tensor("dy", a.dy, floats_of(a.dy.device), {{"N"}, {"C"}});
  const DType dtype = a.dy.dtype;
  const std::int64_t n = a.dy.shape[0], c = a.dy.shape[1];
  check.words("gates.words", a.words, {"N", n}, "P", a.n_gates);
  check.tensor("weight", a.weight, {dtype}, {{"P", a.n_gates}, {"D"}, {"C", c}},
               Layout::either_unit_stride);
  check.tensor("dx", a.dx, {dtype}, {{"N", n}, {"D", a.weight.shape[1]}}, Layout::rows);
  check_form("gated_matmul_input_grad", a.dx.device, a.form);
  check_partial("gated_matmul_input_grad", check, a.dx, a.n_gates, c, a.form, a.cuda);
  check_precision("gated_matmul_input_grad", a.dy, a.precision);
}

void check_gated_matmul_weight_grad(const GatedMatmulWeightGradArgs& a) {
  const Checker check("gated_matmul_weight_grad", "x", a.x.device);
  check_form("gated_matmul_weight_grad", a.x.device, a.form);
  check.tensor("x", a.x, floats_of(a.x.device), {{"N"}, {"D"}});
  const DType dtype = a.x.dtype;
  const std::int64_t n = a.x.shape[0], d = a.x.shape[1];
  check.words("gates.words", a.words, {"N", n}, "P", a.n_gates);
  check.tensor("dy", a.dy, {dtype}, {{"N", n}, {"C"}});
  const std::int64_t c = a.dy.shape[1];
  check.tensor("out", a.dw, {dtype}, {{"P", a.n_gates}, {"D", d}, {"C", c}}, Layout::rows);
  check.apart("out", a.dw, "x", a.x);
  check.apart("out", a.dw, "dy", a.dy);
  check.apart("out", a.dw, "gates.words", a.words);
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
}

void check_path_kernel(const PathKernelArgs& a) {
  const Checker check("path_kernel", "xa", a.xa.device);
  check.tensor("xa", a.xa, floats_of(a.xa.device), {{"Na"}, {"D"}});
  const DType dtype = a.xa.dtype;
  check.tensor("xb", a.xb, {dtype}, {{"Nb"}, {"D", a.xa.shape[1]}});
  if (a.xa.device.type == DeviceType::cuda && a.n_layers > kMaxCudaLayers) {
    fail("path_kernel: layers_a must be at most " + std::to_string(kMaxCudaLayers) + " on cuda, got " +
         std::to_string(a.n_layers));
  }
  const std::int64_t na = a.xa.shape[0], nb = a.xb.shape[0];
  for (std::int64_t l = 0; l < a.n_layers; ++l) {
    const std::string place = "[" + std::to_string(l) + "].words";
    const UnitLayerPair& layer = a.layers[l];
    check.words(("layers_a" + place).c_str(), layer.words_a, {"Na", na}, "h", layer.n_units);
    check.words(("layers_b" + place).c_str(), layer.words_b, {"Nb", nb}, "h", layer.n_units);
  }
  check.tensor("out", a.out, {dtype}, {{"Na", na}, {"Nb", nb}}, Layout::rows);
  check.apart("out", a.out, "xa", a.xa);
  check.apart("out", a.out, "xb", a.xb);
  for (std::int64_t l = 0; l < a.n_layers; ++l) {
    const std::string place = "[" + std::to_string(l) + "].words";
    check.apart("out", a.out, ("layers_a" + place).c_str(), a.layers[l].words_a);
    check.apart("out", a.out, ("layers_b" + place).c_str(), a.layers[l].words_b);
  }
}

void check_path_gram(const PathGramArgs& a) {
  const Checker check("path_gram", "x", a.x.device);
  check.tensor("x", a.x, kFloats, {{"N"}, {"D"}});
  const DType dtype = a.x.dtype;
  const std::int64_t n = a.x.shape[0], width = a.x.shape[1] + 1;
  check.words("gates.words", a.words, {"N", n}, "P", a.n_gates);
  const Dim size{"P*(D+1)", a.n_gates * width};
  check.tensor("out", a.out, {dtype}, {size, size}, Layout::rows);
  check.apart("out", a.out, "x", a.x);
  check.apart("out", a.out, "gates.words", a.words);
  check.tensor("features", a.features, {dtype}, {{"N", n}, {"D+1", width}}, Layout::rows);
  if (a.sample_weight.has_value() != a.weighted.has_value()) {
    fail("path_gram: sample_weight and weighted must come together");
  }
  if (a.sample_weight) {
    check.tensor("sample_weight", *a.sample_weight, {dtype}, {{"N", n}});
    check.apart("out", a.out, "sample_weight", *a.sample_weight);
    check.tensor("weighted", *a.weighted, {dtype}, {{"N", n}, {"D+1", width}}, Layout::rows);
    if (a.weighted->stride[0] != a.features.stride[0] && n > 1) {
      fail("path_gram: weighted must have the strides of features, pass torch.empty_like(features)");
    }
  }
  check_gate_columns("path_gram", check, a.words, a.n_gates, a.cuda);
}

void check_train_steps(const TrainStepsArgs& a) {
  const Checker check("train_steps", "x", a.x.device);
  check.tensor("x", a.x, {DType::float32, DType::float64}, {{"N"}, {"D"}});
  const DType dtype = a.x.dtype;
  const std::int64_t n = a.x.shape[0], d = a.x.shape[1], p = a.n_gates;
  check.words("gates.words", a.words, {"N", n}, "P", p);
  check.tensor("output", a.output, {dtype}, {{"B"}, {"C"}}, Layout::contiguous);
  const std::int64_t b = a.output.shape[0], c = a.output.shape[1];
  const bool classes = a.targets.dtype == DType::int64;
  if (classes) {
    check.tensor("targets", a.targets, {DType::int64}, {{"N", n}});
  } else {
    check.tensor("targets", a.targets, {dtype}, {{"N", n}, {"C", c}});
  }
  if (a.sample_weight) check.tensor("sample_weight", *a.sample_weight, {dtype}, {{"N", n}});
  check.tensor("order", a.order, {DType::int64}, {{"S"}}, Layout::contiguous);
  const std::int64_t steps = (a.order.shape[0] + b - 1) / (b < 1 ? 1 : b);
  check.tensor("losses", a.losses, {DType::float64}, {{"steps", steps}}, Layout::contiguous);
  if (b < 1 || c < 1) fail("train_steps: output must be [B >= 1, C >= 1], got " + describe(a.output));
  const std::int64_t k = a.directions ? (d + 1) * (p + c) : p * (d + 1) * c;
  const std::pair<const char*, const TensorView*> flat[] = {{"parameters", &a.parameters},
                                                            {"exp_avg", &a.exp_avg},
                                                            {"exp_avg_sq", &a.exp_avg_sq},
                                                            {"mean", &a.mean},
                                                            {"gradient", &a.gradient}};
  for (const auto& [name, view] : flat) {
    check.tensor(name, *view, {dtype}, {{"K", k}}, Layout::contiguous);
  }
  check.tensor("batch_x", a.batch_x, {dtype}, {{"B", b}, {"D+1", d + 1}}, Layout::rows);
  check.words("batch_words", a.batch_words, {"B", b}, "P", p);
  check.tensor("row_losses", a.row_losses, {DType::float64}, {{"B", b}}, Layout::contiguous);
  if (a.directions) {
    if (!a.hidden || !a.hidden_grad || !a.output_weights) {
      fail("train_steps: with directions, hidden, hidden_grad and output_weights must be given");
    }
    check.tensor("directions", *a.directions, {dtype}, {{"P", p}, {"C", c}});
    check.tensor("hidden", *a.hidden, {dtype}, {{"B", b}, {"P+D+1", p + d + 1}}, Layout::contiguous);
    check.tensor("hidden_grad", *a.hidden_grad, {dtype}, {{"B", b}, {"P", p}}, Layout::contiguous);
    check.tensor("output_weights", *a.output_weights, {dtype}, {{"P+D+1", p + d + 1}, {"C", c}},
                 Layout::contiguous);
  }
  for (std::int64_t i = 0; i < a.order.shape[0]; ++i) {
    const std::int64_t id = a.order.as<const std::int64_t>()[i];
    if (id < 0 || id >= n) {
      fail("train_steps: order must be samples in [0, N=" + std::to_string(n) + "), got " +
           std::to_string(id));
    }
    const std::int64_t target =
        classes ? a.targets.as<const std::int64_t>()[id * a.targets.stride[0]] : 0;
    if (target < 0 || target >= c) {
      fail("train_steps: targets must be classes in [0, C=" + std::to_string(c) + "), got " +
           std::to_string(target));
    }
  }
}

void check_model_output(const ModelOutputArgs& a) {
  const Checker check("model_output", "x", a.x.device);
  if (a.x.device.type != DeviceType::cpu) {
    fail("model_output: x must be on cpu, got " + device_name(a.x.device));
  }
  check.tensor("x", a.x, kFloats, {{"N"}, {"I"}});
  if (a.layers.empty()) fail("model_output: layers must hold one hidden layer at least, got none");
  if (!a.projection) return;
  const Dim features{"I", a.x.shape[1]};
  check.tensor("mean", a.projection->mean, {a.x.dtype}, {features});
  check.tensor("scale", a.projection->scale, kFloats, {});
  if (a.projection->rotation) {
    check.tensor("rotation", *a.projection->rotation, {a.x.dtype}, {features, {"D"}},
                 Layout::either_unit_stride);
  }
}

}  // namespace glai
