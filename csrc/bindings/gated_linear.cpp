#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>

#include "bindings/arguments.hpp"
#include "bindings/tensor_arg.hpp"
#include "core/checks/check.hpp"
#include "core/dispatch.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace glai::bindings {

void bind_gated_linear(py::module_& m) {
  m.def(
      "gated_linear",
      [](const TensorArg& x, const TensorArg& words, const IntArg& n_gates, const TensorArg& u,
         const std::optional<TensorArg>& bias, const TensorArg& y, const BoolArg& tf32,
         const IntArg& threads, const IntArg& stream) {
        const char* op = "gated_linear";
        const GatedLinearArgs args{view(x, op, "x"),
                                   view(words, op, "gates.words"),
                                   integer(n_gates, op, "n_gates"),
                                   view(u, op, "u"),
                                   view(bias, op, "bias"),
                                   view(y, op, "y"),
                                   execution(op, threads, stream),
                                   {flag(tf32, op, "tf32"), std::nullopt, std::nullopt}};
        check_and_run(op, check_gated_linear, &OpTable::gated_linear, args.x.device, args);
      },
      "x"_a, "words"_a, "n_gates"_a, "u"_a, "bias"_a, "y"_a, "tf32"_a, "threads"_a, "stream"_a);
  m.def(
      "apply_gates",
      [](const TensorArg& values, const TensorArg& words, const IntArg& n_gates, const TensorArg& out,
         const IntArg& threads, const IntArg& stream) {
        const char* op = "apply_gates";
        const ApplyGatesArgs args{view(values, op, "values"), view(words, op, "gates.words"),
                                  integer(n_gates, op, "n_gates"), view(out, op, "out"),
                                  execution(op, threads, stream)};
        check_and_run(op, check_apply_gates, &OpTable::apply_gates, args.values.device, args);
      },
      "values"_a, "words"_a, "n_gates"_a, "out"_a, "threads"_a, "stream"_a);
}

}  // namespace glai::bindings
