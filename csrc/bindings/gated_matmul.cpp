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

Form form_of(const char* op, const OptionalStringArg& form) {
  const std::optional<std::string> name = text(form, op, "form");
  return name ? parse_form(op, *name) : Form::automatic;
}

Precision precision_of(const char* op, const OptionalStringArg& precision) {
  const std::optional<std::string> name = text(precision, op, "precision");
  return name ? parse_precision(op, *name) : Precision::automatic;
}

std::optional<GateEstimate> gate_estimate(const char* op, const EstimateArg& estimate) {
  if (estimate.is_none()) return std::nullopt;
  if (!PyTuple_Check(estimate.ptr()) || PyTuple_GET_SIZE(estimate.ptr()) != 2) {
    throw py::type_error(std::string(op) + ": estimate must be None or (density, deviation), got " +
                         Py_TYPE(estimate.ptr())->tp_name);
  }
  const auto item = [&](int i, const char* name) {
    return number(py::reinterpret_borrow<FloatArg>(PyTuple_GET_ITEM(estimate.ptr(), i)), op, name);
  };
  return GateEstimate{item(0, "density"), item(1, "deviation")};
}

void bind_plan(py::module_& m) {
  m.def(
      "plan_cuda_product",
      [](const StringArg& op_name, const TensorArg& y, const IntArg& n_gates, const IntArg& depth,
         const BoolArg& tf32, const EstimateArg& estimate, const OptionalStringArg& form) {
        const std::string name = text(op_name, "plan_cuda_product", "op");
        const char* op = name.c_str();
        const TensorView v = view(y, op, "y");
        const std::int64_t paths = integer(n_gates, op, "n_gates"), d = integer(depth, op, "depth");
        check_plan_cuda_product(op, v, paths, d);
        const Form wanted = form_of(op, form);
        check_form(op, kProductForms, v.device, wanted);
        const CudaProductPlan plan =
            plan_cuda_product(v, paths, d, flag(tf32, op, "tf32"), gate_estimate(op, estimate), wanted);
        return py::typing::Tuple<py::str, py::int_, py::int_>(
            py::make_tuple(form_name(plan.form), plan.slices, plan.reference_words));
      },
      "op"_a, "y"_a, "n_gates"_a, "depth"_a, "tf32"_a, "estimate"_a, "form"_a);
  m.def(
      "plan_cuda_weight_grad",
      [](const TensorArg& x, const IntArg& n_gates, const IntArg& columns) {
        const char* op = "gated_matmul_weight_grad";
        const TensorView v = view(x, op, "x");
        const std::int64_t p = integer(n_gates, op, "n_gates"), c = integer(columns, op, "columns");
        check_plan_cuda_weight_grad(v, p, c);
        return weight_grad_tiling(v.dtype, v.shape[0], p, v.shape[1], c).splits;
      },
      "x"_a, "n_gates"_a, "columns"_a);
  m.def(
      "explain_cuda_form",
      [](const IntArg& n, const IntArg& p, const IntArg& depth, const IntArg& columns,
         const BoolArg& tensor_cores, const EstimateArg& estimate) {
        const char* op = "explain_cuda_form";
        const GatedShape shape{integer(n, op, "n"), integer(p, op, "p"), integer(depth, op, "depth"),
                               integer(columns, op, "columns")};
        check_explain_cuda_form(shape);
        const CudaFormChoice why =
            choose_cuda_form(shape, flag(tensor_cores, op, "tensor_cores"), gate_estimate(op, estimate));
        return py::typing::Dict<py::str, py::object>(
            py::dict("form"_a = form_name(why.form), "dense"_a = why.dense,
                     "compaction"_a = why.compaction, "reference"_a = why.reference));
      },
      "n"_a, "p"_a, "depth"_a, "columns"_a, "tensor_cores"_a, "estimate"_a);
  m.def(
      "explain_form",
      [](const StringArg& op_name, const TensorArg& words, const IntArg& n_gates, const IntArg& d,
         const IntArg& c) {
        const char* op = "explain_form";
        const GatedMatmulExplanation why = explain_gated_matmul(
            text(op_name, op, "op"), view(words, op, "words"), integer(n_gates, op, "n_gates"),
            integer(d, op, "d"), integer(c, op, "c"));
        return py::typing::Dict<py::str, py::object>(
            py::dict("form"_a = form_name(why.plan.form), "group_gates"_a = why.plan.group_gates,
                     "by_features"_a = why.plan.by_features, "sums_first"_a = why.sums_first,
                     "density"_a = why.density, "deviation"_a = why.deviation,
                     "compaction"_a = why.plan.compaction, "subset_sums"_a = why.plan.subset_sums,
                     "reference"_a = why.plan.reference));
      },
      "op"_a, "words"_a, "n_gates"_a, "d"_a, "c"_a);
}

// Of the shortest call: plain tensors on the CPU that nobody watches, in layouts that the kernel reads.
// Its output is made here too, so that Python asks nothing of each tensor. None where it is another
// call's, or an error to be told: whoever asked takes the long way then, which tells it.
py::object product_on_cpu(PyObject* const* given) {
  static PyObject* const new_empty = PyUnicode_InternFromString("new_empty");
  const char* op = "gated_matmul";
  const auto tensor = [&](int i) { return py::reinterpret_borrow<TensorArg>(given[i]); };
  PyObject* const tensors[] = {given[0], given[3], given[4]};
  if (!takes_bare_kernel(tensors, 3)) return py::none();
  GatedMatmulArgs args{};
  args.x = view(tensor(0), op, "x");
  if (args.x.device.type != DeviceType::cpu || args.x.ndim != 2) return py::none();
  args.words = view(tensor(1), op, "gates.words");
  args.n_gates = integer(py::reinterpret_borrow<IntArg>(given[2]), op, "n_gates");
  args.weight = view(tensor(3), op, "weight");
  if (args.weight.ndim != 3 || args.x.stride[1] != 1 || args.weight.stride[2] != 1) return py::none();
  if (given[4] != Py_None) {
    args.bias = view(tensor(4), op, "bias");
    if (args.bias->ndim != 2 || args.bias->stride[1] != 1) return py::none();
  }
  args.exec = execution(op, py::reinterpret_borrow<IntArg>(given[5]));
  const auto size = [](std::int64_t value) {
    return py::reinterpret_steal<py::object>(PyLong_FromLongLong(value));
  };
  const py::object rows = size(args.x.shape[0]), columns = size(args.weight.shape[2]);
  PyObject* made[] = {given[0], rows.ptr(), columns.ptr()};
  const auto y =
      py::reinterpret_steal<TensorArg>(PyObject_VectorcallMethod(new_empty, made, 3, nullptr));
  if (!y) throw py::error_already_set();
  args.y = view(y, op, "y");
  check_and_run(op, check_gated_matmul, &OpTable::gated_matmul, args.x.device, args);
  return y;
}

PyObject* gated_matmul_on_cpu(PyObject*, PyObject* const* given, Py_ssize_t count) {
  constexpr Py_ssize_t kArguments = 6;
  try {
    if (count == kArguments) return product_on_cpu(given).release().ptr();
  } catch (const std::exception&) {
    PyErr_Clear();
  }
  Py_RETURN_NONE;
}

PyMethodDef product_methods[] = {
    {"gated_matmul_on_cpu",
     reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(gated_matmul_on_cpu)), METH_FASTCALL,
     "gated_matmul_on_cpu(*arguments: typing.Any) -> typing.Any\n\ny [N, C] of x, words, n_gates, "
     "weight, "
     "bias, threads; None where they take the long way, which also tells errors."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

void bind_gated_matmul(py::module_& m) {
  if (PyModule_AddFunctions(m.ptr(), product_methods) != 0) throw py::error_already_set();
  // module_local: the tests' executor is a second module with this class.
  py::class_<CudaProductArg>(m, "CudaProduct", py::module_local())
      .def(py::init([](const BoolArg& tf32, const std::optional<TensorArg>& partial,
                       const std::optional<TensorArg>& gate_columns,
                       const std::optional<TensorArg>& reference) {
             return CudaProductArg{flag(tf32, "CudaProduct", "tf32"), partial, gate_columns, reference};
           }),
           "tf32"_a, py::kw_only(), "partial"_a = py::none(), "gate_columns"_a = py::none(),
           "reference"_a = py::none());
  bind_plan(m);
  m.def(
      "gated_matmul",
      [](const TensorArg& x, const TensorArg& words, const IntArg& n_gates, const TensorArg& weight,
         const std::optional<TensorArg>& bias, const TensorArg& y, const OptionalStringArg& form,
         const OptionalStringArg& precision, const OptionalCudaProductArg& cuda, const IntArg& threads,
         const IntArg& stream) {
        const char* op = "gated_matmul";
        const Precision rounding = precision_of(op, precision);
        const GatedMatmulArgs args{view(x, op, "x"),
                                   view(words, op, "gates.words"),
                                   integer(n_gates, op, "n_gates"),
                                   view(weight, op, "weight"),
                                   view(bias, op, "bias"),
                                   view(y, op, "y"),
                                   form_of(op, form),
                                   execution(op, threads, stream),
                                   view(cuda, op),
                                   rounding};
        check_and_run(op, check_gated_matmul, &OpTable::gated_matmul, args.x.device, args);
      },
      "x"_a, "words"_a, "n_gates"_a, "weight"_a, "bias"_a, "y"_a, "form"_a, "precision"_a, "cuda"_a,
      "threads"_a, "stream"_a);
  m.def(
      "gated_matmul_input_grad",
      [](const TensorArg& dy, const TensorArg& words, const IntArg& n_gates, const TensorArg& weight,
         const TensorArg& dx, const OptionalStringArg& form, const OptionalStringArg& precision,
         const OptionalCudaProductArg& cuda, const IntArg& threads, const IntArg& stream) {
        const char* op = "gated_matmul_input_grad";
        const Precision rounding = precision_of(op, precision);
        const GatedMatmulInputGradArgs args{view(dy, op, "dy"),
                                            view(words, op, "gates.words"),
                                            integer(n_gates, op, "n_gates"),
                                            view(weight, op, "weight"),
                                            view(dx, op, "dx"),
                                            form_of(op, form),
                                            execution(op, threads, stream),
                                            view(cuda, op),
                                            rounding};
        check_and_run(op, check_gated_matmul_input_grad, &OpTable::gated_matmul_input_grad,
                      args.dy.device, args);
      },
      "dy"_a, "words"_a, "n_gates"_a, "weight"_a, "dx"_a, "form"_a, "precision"_a, "cuda"_a, "threads"_a,
      "stream"_a);
  m.def(
      "gated_matmul_weight_grad",
      [](const TensorArg& x, const TensorArg& words, const IntArg& n_gates, const TensorArg& dy,
         const TensorArg& dw, const std::optional<TensorArg>& db, const BoolArg& accumulate,
         const OptionalStringArg& form, const OptionalStringArg& precision,
         const OptionalCudaProductArg& cuda, const IntArg& threads, const IntArg& stream) {
        const char* op = "gated_matmul_weight_grad";
        const Precision rounding = precision_of(op, precision);
        const GatedMatmulWeightGradArgs args{view(x, op, "x"),
                                             view(words, op, "gates.words"),
                                             integer(n_gates, op, "n_gates"),
                                             view(dy, op, "dy"),
                                             view(dw, op, "out"),
                                             view(db, op, "bias_out"),
                                             flag(accumulate, op, "accumulate"),
                                             form_of(op, form),
                                             execution(op, threads, stream),
                                             view(cuda, op),
                                             rounding};
        check_and_run(op, check_gated_matmul_weight_grad, &OpTable::gated_matmul_weight_grad,
                      args.x.device, args);
      },
      "x"_a, "words"_a, "n_gates"_a, "dy"_a, "dw"_a, "db"_a, "accumulate"_a, "form"_a, "precision"_a,
      "cuda"_a, "threads"_a, "stream"_a);
}

}  // namespace glai::bindings
