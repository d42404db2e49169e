// glai_native._native: arguments in, checks called, GIL released, op run. No arithmetic.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "bindings/tensor_arg.hpp"
#include "core/check.hpp"
#include "core/cuda_form.hpp"
#include "core/dispatch.hpp"
#include "core/model_output.hpp"
#include "core/plan.hpp"
#include "core/tiling.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace glai::bindings {
namespace {

Execution execution(int threads, std::uintptr_t stream) {
  return {threads < 1 ? 1 : threads, reinterpret_cast<void*>(stream)};
}

Form form_of(const char* op, const py::object& form) {
  if (form.is_none()) return Form::automatic;
  if (py::isinstance<py::str>(form)) return parse_form(op, form.cast<std::string>());
  throw py::type_error(std::string(op) + ": form must be None or a str, got " +
                       Py_TYPE(form.ptr())->tp_name);
}

Precision precision_of(const char* op, const py::object& precision) {
  if (precision.is_none()) return Precision::automatic;
  if (py::isinstance<py::str>(precision)) return parse_precision(op, precision.cast<std::string>());
  throw py::type_error(std::string(op) + ": precision must be None or a str, got " +
                       Py_TYPE(precision.ptr())->tp_name);
}

// What a product on CUDA does with float32: as it was asked for by name, otherwise as torch allows.
bool takes_tf32(Precision precision, bool allowed) {
  return precision == Precision::automatic ? allowed : precision == Precision::tf32;
}

template <class Args>
void check_and_run(const char* op, void (*check)(const Args&), void (*OpTable::*entry)(const Args&),
                   const Device& device, const Args& args) {
  check(args);
  const py::gil_scoped_release release;
  run(op, entry, device, args);
}

void bind_gates(py::module_& m) {
  m.def(
      "check_words",
      [](const TensorArg& words, std::int64_t n_gates) {
        const TensorView v = view(words, "PackedGates", "words");
        check_words("PackedGates", v, n_gates);
      },
      "words"_a, "n_gates"_a);
  m.def(
      "pack_gates",
      [](const TensorArg& bits, const TensorArg& words, int threads, std::uintptr_t stream) {
        const char* op = "pack_gates";
        const PackGatesArgs args{view(bits, op, "bits"), view(words, op, "words"),
                                 execution(threads, stream)};
        check_and_run(op, check_pack_gates, &OpTable::pack_gates, args.bits.device, args);
      },
      "bits"_a, "words"_a, "threads"_a, "stream"_a);
  m.def(
      "unpack_gates",
      [](const TensorArg& words, std::int64_t n_gates, const TensorArg& bits, int threads,
         std::uintptr_t stream) {
        const char* op = "unpack_gates";
        const UnpackGatesArgs args{view(words, op, "words"), n_gates, view(bits, op, "bits"),
                                   execution(threads, stream)};
        check_and_run(op, check_unpack_gates, &OpTable::unpack_gates, args.words.device, args);
      },
      "words"_a, "n_gates"_a, "bits"_a, "threads"_a, "stream"_a);
  m.def(
      "gate_counts",
      [](const TensorArg& words, std::int64_t n_gates, const TensorArg& counts, int threads,
         std::uintptr_t stream) {
        const char* op = "gate_counts";
        const GateCountsArgs args{view(words, op, "words"), n_gates, view(counts, op, "counts"),
                                  execution(threads, stream)};
        check_and_run(op, check_gate_counts, &OpTable::gate_counts, args.words.device, args);
      },
      "words"_a, "n_gates"_a, "counts"_a, "threads"_a, "stream"_a);
  m.def(
      "gate_hamming",
      [](const TensorArg& words_a, const TensorArg& words_b, std::int64_t n_gates,
         const TensorArg& distance, int threads, std::uintptr_t stream) {
        const char* op = "gate_hamming";
        const GateHammingArgs args{view(words_a, op, "words_a"), view(words_b, op, "words_b"), n_gates,
                                   view(distance, op, "distance"), execution(threads, stream)};
        check_and_run(op, check_gate_hamming, &OpTable::gate_hamming, args.words_a.device, args);
      },
      "words_a"_a, "words_b"_a, "n_gates"_a, "distance"_a, "threads"_a, "stream"_a);
  m.def(
      "path_gates",
      [](const TensorArg& unit_words, std::int64_t n_units, const TensorArg& inner_words,
         std::int64_t n_inner, const TensorArg& words, int threads, std::uintptr_t stream) {
        const char* op = "path_gates";
        const PathGatesArgs args{view(unit_words, op, "unit_words"),
                                 n_units,
                                 view(inner_words, op, "inner_words"),
                                 n_inner,
                                 view(words, op, "words"),
                                 execution(threads, stream)};
        check_and_run(op, check_path_gates, &OpTable::path_gates, args.unit_words.device, args);
      },
      "unit_words"_a, "n_units"_a, "inner_words"_a, "n_inner"_a, "words"_a, "threads"_a, "stream"_a);
  m.def(
      "selector_gates",
      [](const TensorArg& x, const TensorArg& weight, const std::optional<TensorArg>& bias,
         const TensorArg& words, bool tf32, int threads, std::uintptr_t stream) {
        const char* op = "selector_gates";
        const SelectorGatesArgs args{view(x, op, "x"),           view(weight, op, "weight"),
                                     view(bias, op, "bias"),     view(words, op, "words"),
                                     execution(threads, stream), {tf32, std::nullopt, std::nullopt}};
        check_and_run(op, check_selector_gates, &OpTable::selector_gates, args.x.device, args);
      },
      "x"_a, "weight"_a, "bias"_a, "words"_a, "tf32"_a, "threads"_a, "stream"_a);
}

void bind_gated_linear(py::module_& m) {
  m.def(
      "gated_linear",
      [](const TensorArg& x, const TensorArg& words, std::int64_t n_gates, const TensorArg& u,
         const std::optional<TensorArg>& bias, const TensorArg& y, bool tf32, int threads,
         std::uintptr_t stream) {
        const char* op = "gated_linear";
        const GatedLinearArgs args{view(x, op, "x"),
                                   view(words, op, "gates.words"),
                                   n_gates,
                                   view(u, op, "u"),
                                   view(bias, op, "bias"),
                                   view(y, op, "y"),
                                   execution(threads, stream),
                                   {tf32, std::nullopt, std::nullopt}};
        check_and_run(op, check_gated_linear, &OpTable::gated_linear, args.x.device, args);
      },
      "x"_a, "words"_a, "n_gates"_a, "u"_a, "bias"_a, "y"_a, "tf32"_a, "threads"_a, "stream"_a);
  m.def(
      "apply_gates",
      [](const TensorArg& values, const TensorArg& words, std::int64_t n_gates, const TensorArg& out,
         int threads, std::uintptr_t stream) {
        const char* op = "apply_gates";
        const ApplyGatesArgs args{view(values, op, "values"), view(words, op, "gates.words"), n_gates,
                                  view(out, op, "out"), execution(threads, stream)};
        check_and_run(op, check_apply_gates, &OpTable::apply_gates, args.values.device, args);
      },
      "values"_a, "words"_a, "n_gates"_a, "out"_a, "threads"_a, "stream"_a);
}

void bind_gated_matmul(py::module_& m) {
  m.def(
      "gated_matmul",
      [](const TensorArg& x, const TensorArg& words, std::int64_t n_gates, const TensorArg& weight,
         const std::optional<TensorArg>& bias, const TensorArg& y, const py::object& form,
         const py::object& precision, bool tf32, const std::optional<TensorArg>& partial,
         const std::optional<TensorArg>& reference, int threads, std::uintptr_t stream) {
        const char* op = "gated_matmul";
        const Precision rounding = precision_of(op, precision);
        const GatedMatmulArgs args{view(x, op, "x"),
                                   view(words, op, "gates.words"),
                                   n_gates,
                                   view(weight, op, "weight"),
                                   view(bias, op, "bias"),
                                   view(y, op, "y"),
                                   form_of(op, form),
                                   execution(threads, stream),
                                   {takes_tf32(rounding, tf32), view(partial, op, "partial"),
                                    std::nullopt, view(reference, op, "reference")},
                                   rounding};
        check_and_run(op, check_gated_matmul, &OpTable::gated_matmul, args.x.device, args);
      },
      "x"_a, "words"_a, "n_gates"_a, "weight"_a, "bias"_a, "y"_a, "form"_a, "precision"_a, "tf32"_a,
      "partial"_a, "reference"_a, "threads"_a, "stream"_a);
  m.def(
      "gated_matmul_input_grad",
      [](const TensorArg& dy, const TensorArg& words, std::int64_t n_gates, const TensorArg& weight,
         const TensorArg& dx, const py::object& form, const py::object& precision, bool tf32,
         const std::optional<TensorArg>& partial, const std::optional<TensorArg>& reference, int threads,
         std::uintptr_t stream) {
        const char* op = "gated_matmul_input_grad";
        const Precision rounding = precision_of(op, precision);
        const GatedMatmulInputGradArgs args{view(dy, op, "dy"),
                                            view(words, op, "gates.words"),
                                            n_gates,
                                            view(weight, op, "weight"),
                                            view(dx, op, "dx"),
                                            form_of(op, form),
                                            execution(threads, stream),
                                            {takes_tf32(rounding, tf32), view(partial, op, "partial"),
                                             std::nullopt, view(reference, op, "reference")},
                                            rounding};
        check_and_run(op, check_gated_matmul_input_grad, &OpTable::gated_matmul_input_grad,
                      args.dy.device, args);
      },
      "dy"_a, "words"_a, "n_gates"_a, "weight"_a, "dx"_a, "form"_a, "precision"_a, "tf32"_a, "partial"_a,
      "reference"_a, "threads"_a, "stream"_a);
  m.def(
      "gated_matmul_weight_grad",
      [](const TensorArg& x, const TensorArg& words, std::int64_t n_gates, const TensorArg& dy,
         const TensorArg& dw, const std::optional<TensorArg>& db, bool accumulate,
         const py::object& form, const py::object& precision, bool tf32,
         const std::optional<TensorArg>& partial, const std::optional<TensorArg>& gate_columns,
         int threads, std::uintptr_t stream) {
        const char* op = "gated_matmul_weight_grad";
        const Precision rounding = precision_of(op, precision);
        const GatedMatmulWeightGradArgs args{view(x, op, "x"),
                                             view(words, op, "gates.words"),
                                             n_gates,
                                             view(dy, op, "dy"),
                                             view(dw, op, "out"),
                                             view(db, op, "bias_out"),
                                             accumulate,
                                             form_of(op, form),
                                             execution(threads, stream),
                                             {takes_tf32(rounding, tf32), view(partial, op, "partial"),
                                              view(gate_columns, op, "gate_columns")},
                                             rounding};
        check_and_run(op, check_gated_matmul_weight_grad, &OpTable::gated_matmul_weight_grad,
                      args.x.device, args);
      },
      "x"_a, "words"_a, "n_gates"_a, "dy"_a, "dw"_a, "db"_a, "accumulate"_a, "form"_a, "precision"_a,
      "tf32"_a, "partial"_a, "gate_columns"_a, "threads"_a, "stream"_a);
}

// Density and deviation.
std::optional<GateEstimate> gate_estimate(const std::optional<std::pair<double, double>>& estimate) {
  if (!estimate) return std::nullopt;
  return GateEstimate{estimate->first, estimate->second};
}

void bind_plan(py::module_& m) {
  m.def(
      "plan_cuda_product",
      [](const std::string& op, const TensorArg& y, std::int64_t n_gates, std::int64_t depth, bool tf32,
         const std::optional<std::pair<double, double>>& estimate, const py::object& form) {
        const TensorView v = view(y, op.c_str(), "y");
        const Form wanted = form_of(op.c_str(), form);
        check_form(op.c_str(), v.device, wanted);
        const std::int64_t n = v.shape[0], c = v.shape[1];
        Form taken = wanted;
        if (wanted == Form::automatic) {
          const bool tensor_cores = tf32 || v.dtype == DType::float16 || v.dtype == DType::bfloat16;
          taken = choose_cuda_form({n, n_gates, depth, c}, tensor_cores, gate_estimate(estimate)).form;
        }
        std::int64_t slices = gated_matmul_tiling(taken, v.dtype, n, n_gates, c).splits, words = 0;
        if (taken == Form::reference) {
          const ReferenceMemory memory = reference_memory(v.dtype, n_gates, depth, c);
          ++slices;
          words = (wanted == Form::automatic ? memory.with_norms : memory.norms) / 4;
        }
        return py::typing::Tuple<py::str, py::int_, py::int_>(
            py::make_tuple(form_name(taken), slices, words));
      },
      "op"_a, "y"_a, "n_gates"_a, "depth"_a, "tf32"_a, "estimate"_a, "form"_a);
  m.def(
      "plan_cuda_weight_grad",
      [](const TensorArg& x, std::int64_t n_gates, std::int64_t columns) {
        const TensorView v = view(x, "gated_matmul_weight_grad", "x");
        return weight_grad_tiling(v.dtype, v.shape[0], n_gates, v.shape[1], columns).splits;
      },
      "x"_a, "n_gates"_a, "columns"_a);
  m.def(
      "explain_cuda_form",
      [](std::int64_t n, std::int64_t p, std::int64_t depth, std::int64_t columns, bool tensor_cores,
         const std::optional<std::pair<double, double>>& estimate) {
        const CudaFormChoice why =
            choose_cuda_form({n, p, depth, columns}, tensor_cores, gate_estimate(estimate));
        return py::typing::Dict<py::str, py::object>(
            py::dict("form"_a = form_name(why.form), "dense"_a = why.dense,
                     "compaction"_a = why.compaction, "reference"_a = why.reference));
      },
      "n"_a, "p"_a, "depth"_a, "columns"_a, "tensor_cores"_a, "estimate"_a);
  m.def(
      "explain_form",
      [](const std::string& op, const TensorArg& words, std::int64_t n_gates, std::int64_t d,
         std::int64_t c) {
        const GatedMatmulExplanation why =
            explain_gated_matmul(op, view(words, "explain_form", "words"), n_gates, d, c);
        return py::typing::Dict<py::str, py::object>(
            py::dict("form"_a = form_name(why.plan.form), "group_gates"_a = why.plan.group_gates,
                     "sums_first"_a = why.sums_first, "density"_a = why.density,
                     "deviation"_a = why.deviation, "compaction"_a = why.plan.compaction,
                     "subset_sums"_a = why.plan.subset_sums, "reference"_a = why.plan.reference));
      },
      "op"_a, "words"_a, "n_gates"_a, "d"_a, "c"_a);
}

void bind_path_matrices(py::module_& m) {
  m.def(
      "path_kernel",
      [](const TensorArg& xa, const std::vector<TensorArg>& words_a, const std::optional<TensorArg>& xb,
         const std::vector<TensorArg>& words_b, const std::vector<std::int64_t>& n_units,
         const TensorArg& out, bool tf32, int threads, std::uintptr_t stream) {
        const char* op = "path_kernel";
        const std::vector<TensorArg>& other = xb ? words_b : words_a;
        std::vector<UnitLayerPair> layers;
        for (std::size_t l = 0; l < n_units.size(); ++l) {
          layers.push_back({view(words_a.at(l), op, "layers_a.words"),
                            view(other.at(l), op, "layers_b.words"), n_units[l]});
        }
        const PathKernelArgs args{view(xa, op, "xa"),
                                  view(xb ? *xb : xa, op, "xb"),
                                  layers.data(),
                                  static_cast<std::int64_t>(layers.size()),
                                  !xb,
                                  view(out, op, "out"),
                                  execution(threads, stream),
                                  {tf32, std::nullopt, std::nullopt}};
        check_and_run(op, check_path_kernel, &OpTable::path_kernel, args.xa.device, args);
      },
      "xa"_a, "words_a"_a, "xb"_a, "words_b"_a, "n_units"_a, "out"_a, "tf32"_a, "threads"_a, "stream"_a);
  m.def(
      "path_gram",
      [](const TensorArg& x, const TensorArg& words, std::int64_t n_gates,
         const std::optional<TensorArg>& sample_weight, const TensorArg& features,
         const std::optional<TensorArg>& weighted, const TensorArg& out, bool tf32,
         const std::optional<TensorArg>& gate_columns, int threads, std::uintptr_t stream) {
        const char* op = "path_gram";
        const PathGramArgs args{view(x, op, "x"),
                                view(words, op, "gates.words"),
                                n_gates,
                                view(sample_weight, op, "sample_weight"),
                                view(features, op, "features"),
                                view(weighted, op, "weighted"),
                                view(out, op, "out"),
                                execution(threads, stream),
                                {tf32, std::nullopt, view(gate_columns, op, "gate_columns")}};
        check_and_run(op, check_path_gram, &OpTable::path_gram, args.x.device, args);
      },
      "x"_a, "words"_a, "n_gates"_a, "sample_weight"_a, "features"_a, "weighted"_a, "out"_a, "tf32"_a,
      "gate_columns"_a, "threads"_a, "stream"_a);
}

void bind_training(py::module_& m) {
  m.def(
      "train_steps",
      [](const TensorArg& x, const TensorArg& words, std::int64_t n_gates, const TensorArg& targets,
         const std::optional<TensorArg>& sample_weight, const TensorArg& order,
         const std::optional<TensorArg>& directions, const std::vector<TensorArg>& state,
         std::int64_t step, std::int64_t averaged, const std::vector<double>& adamw,
         const std::vector<TensorArg>& workspace, const TensorArg& losses, int threads) {
        const char* op = "train_steps";
        const auto optional = [&](std::size_t i, const char* name) -> std::optional<TensorView> {
          if (i >= workspace.size()) return std::nullopt;
          return view(workspace[i], op, name);
        };
        const TensorView output = view(workspace.at(2), op, "output");
        const TrainStepsArgs args{view(x, op, "x"),
                                  view(words, op, "gates.words"),
                                  n_gates,
                                  view(targets, op, "targets"),
                                  view(sample_weight, op, "sample_weight"),
                                  view(order, op, "order"),
                                  output.shape[0],
                                  view(directions, op, "directions"),
                                  view(state.at(0), op, "parameters"),
                                  view(state.at(1), op, "exp_avg"),
                                  view(state.at(2), op, "exp_avg_sq"),
                                  view(state.at(3), op, "mean"),
                                  step,
                                  averaged,
                                  {adamw.at(0), adamw.at(1), adamw.at(2), adamw.at(3), adamw.at(4)},
                                  view(workspace.at(0), op, "batch_x"),
                                  view(workspace.at(1), op, "batch_words"),
                                  output,
                                  view(workspace.at(3), op, "gradient"),
                                  view(workspace.at(4), op, "row_losses"),
                                  optional(5, "hidden"),
                                  optional(6, "hidden_grad"),
                                  optional(7, "output_weights"),
                                  view(losses, op, "losses"),
                                  execution(threads, 0)};
        check_and_run(op, check_train_steps, &OpTable::train_steps, args.x.device, args);
      },
      "x"_a, "words"_a, "n_gates"_a, "targets"_a, "sample_weight"_a, "order"_a, "directions"_a,
      "state"_a, "step"_a, "averaged"_a, "adamw"_a, "workspace"_a, "losses"_a, "threads"_a);
}

void bind_model_output(py::module_& m) {
  m.def(
      "model_output",
      [](const TensorArg& x, const std::vector<TensorArg>& projection,
         const std::vector<TensorArg>& layers, const TensorArg& weight, const TensorArg& bias,
         const std::vector<TensorArg>& directions, const TensorArg& y, int threads) {
        const char* op = "model_output";
        ModelOutputArgs args{view(x, op, "x"),           std::nullopt,           {},
                             view(weight, op, "weight"), view(bias, op, "bias"), std::nullopt,
                             view(y, op, "y"),           execution(threads, 0)};
        if (!projection.empty()) {
          args.projection = {view(projection.at(0), op, "mean"), view(projection.at(1), op, "scale"),
                             std::nullopt};
          if (projection.size() > 2) args.projection->rotation = view(projection[2], op, "rotation");
        }
        for (std::size_t i = 0; i < layers.size(); i += 2) {
          args.layers.push_back(
              {view(layers[i], op, "hidden_weight"), view(layers.at(i + 1), op, "hidden_bias")});
        }
        if (!directions.empty()) {
          args.directions = {view(directions.at(0), op, "directions"),
                             view(directions.at(1), op, "constant_weight"),
                             view(directions.at(2), op, "constant_bias")};
        }
        check_model_output(args);
        const py::gil_scoped_release release;
        model_output(args);
      },
      "x"_a, "projection"_a, "layers"_a, "weight"_a, "bias"_a, "directions"_a, "y"_a, "threads"_a);
}

void bind_build(py::module_& m) {
  m.def("version", [] { return GLAI_VERSION; });
  m.def("openmp", [] {
#ifdef _OPENMP
    return true;
#else
    return false;
#endif
  });
  m.def("cpu_isas", &cpu_isas);
  m.def("cpu_isa", &cpu_isa);
  m.def("force_cpu_isa", &force_cpu_isa, "name"_a);
  m.def("cuda_status", [] {
    const CudaStatus status = cuda_status();
    return py::make_tuple(status.compiled, status.available, status.reason);
  });
}

}  // namespace
}  // namespace glai::bindings

PYBIND11_MODULE(_native, m) {
  m.doc() = "Native kernels of glai_native; call them through glai_native.ops.";
  glai::bindings::bind_build(m);
  glai::bindings::bind_gates(m);
  glai::bindings::bind_gated_linear(m);
  glai::bindings::bind_gated_matmul(m);
  glai::bindings::bind_plan(m);
  glai::bindings::bind_model_output(m);
  glai::bindings::bind_path_matrices(m);
  glai::bindings::bind_training(m);
}
