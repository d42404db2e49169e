#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "bindings/arguments.hpp"
#include "bindings/tensor_arg.hpp"
#include "core/checks/check.hpp"
#include "core/cuda_form.hpp"
#include "core/dispatch.hpp"
#include "core/names.hpp"
#include "core/plan.hpp"
#include "core/tiling.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace glai::bindings {
namespace {

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
        check_form(op.c_str(), kProductForms, v.device, wanted);
        const CudaProductPlan plan =
            plan_cuda_product(v, n_gates, depth, tf32, gate_estimate(estimate), wanted);
        return py::typing::Tuple<py::str, py::int_, py::int_>(
            py::make_tuple(form_name(plan.form), plan.slices, plan.reference_words));
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

}  // namespace

void bind_gated_matmul(py::module_& m) {
  // module_local: the tests' executor is a second module with this class.
  py::class_<CudaProductArg>(m, "CudaProduct", py::module_local())
      .def(
          py::init<bool, std::optional<TensorArg>, std::optional<TensorArg>, std::optional<TensorArg>>(),
          "tf32"_a, py::kw_only(), "partial"_a = py::none(), "gate_columns"_a = py::none(),
          "reference"_a = py::none());
  bind_plan(m);
  m.def(
      "gated_matmul",
      [](const TensorArg& x, const TensorArg& words, std::int64_t n_gates, const TensorArg& weight,
         const std::optional<TensorArg>& bias, const TensorArg& y, const py::object& form,
         const py::object& precision, const std::optional<CudaProductArg>& cuda, int threads,
         std::uintptr_t stream) {
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
                                   view(cuda, op),
                                   rounding};
        check_and_run(op, check_gated_matmul, &OpTable::gated_matmul, args.x.device, args);
      },
      "x"_a, "words"_a, "n_gates"_a, "weight"_a, "bias"_a, "y"_a, "form"_a, "precision"_a, "cuda"_a,
      "threads"_a, "stream"_a);
  m.def(
      "gated_matmul_input_grad",
      [](const TensorArg& dy, const TensorArg& words, std::int64_t n_gates, const TensorArg& weight,
         const TensorArg& dx, const py::object& form, const py::object& precision,
         const std::optional<CudaProductArg>& cuda, int threads, std::uintptr_t stream) {
        const char* op = "gated_matmul_input_grad";
        const Precision rounding = precision_of(op, precision);
        const GatedMatmulInputGradArgs args{view(dy, op, "dy"),
                                            view(words, op, "gates.words"),
                                            n_gates,
                                            view(weight, op, "weight"),
                                            view(dx, op, "dx"),
                                            form_of(op, form),
                                            execution(threads, stream),
                                            view(cuda, op),
                                            rounding};
        check_and_run(op, check_gated_matmul_input_grad, &OpTable::gated_matmul_input_grad,
                      args.dy.device, args);
      },
      "dy"_a, "words"_a, "n_gates"_a, "weight"_a, "dx"_a, "form"_a, "precision"_a, "cuda"_a, "threads"_a,
      "stream"_a);
  m.def(
      "gated_matmul_weight_grad",
      [](const TensorArg& x, const TensorArg& words, std::int64_t n_gates, const TensorArg& dy,
         const TensorArg& dw, const std::optional<TensorArg>& db, bool accumulate,
         const py::object& form, const py::object& precision, const std::optional<CudaProductArg>& cuda,
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
                                             view(cuda, op),
                                             rounding};
        check_and_run(op, check_gated_matmul_weight_grad, &OpTable::gated_matmul_weight_grad,
                      args.x.device, args);
      },
      "x"_a, "words"_a, "n_gates"_a, "dy"_a, "dw"_a, "db"_a, "accumulate"_a, "form"_a, "precision"_a,
      "cuda"_a, "threads"_a, "stream"_a);
}

}  // namespace glai::bindings
