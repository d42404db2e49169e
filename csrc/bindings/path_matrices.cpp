#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bindings/arguments.hpp"
#include "bindings/tensor_arg.hpp"
#include "core/checks/check.hpp"
#include "core/dispatch.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace glai::bindings {

void bind_path_matrices(py::module_& m) {
  m.def(
      "path_kernel",
      [](const TensorArg& xa, const TensorsArg& words_a, const std::optional<TensorArg>& xb,
         const TensorsArg& words_b, const IntsArg& n_units, const TensorArg& out, const BoolArg& tf32,
         const IntArg& threads, const IntArg& stream) {
        const char* op = "path_kernel";
        const std::vector<TensorView> a = views(words_a, op, "words_a");
        const std::vector<TensorView> b = xb ? views(words_b, op, "words_b") : a;
        const std::vector<std::int64_t> units = integers(n_units, op, "n_units");
        if (a.size() != units.size() || b.size() != units.size()) {
          throw py::value_error(std::string(op) +
                                ": words_a and words_b must be of as many layers as n_units, " +
                                std::to_string(units.size()) + ", got " + std::to_string(a.size()) +
                                " and " + std::to_string(b.size()));
        }
        std::vector<UnitLayerPair> layers;
        for (std::size_t l = 0; l < units.size(); ++l) layers.push_back({a[l], b[l], units[l]});
        const PathKernelArgs args{view(xa, op, "xa"),
                                  view(xb ? *xb : xa, op, "xb"),
                                  layers.data(),
                                  static_cast<std::int64_t>(layers.size()),
                                  !xb,
                                  view(out, op, "out"),
                                  execution(op, threads, stream),
                                  {flag(tf32, op, "tf32"), std::nullopt, std::nullopt}};
        check_and_run(op, check_path_kernel, &OpTable::path_kernel, args.xa.device, args);
      },
      "xa"_a, "words_a"_a, "xb"_a, "words_b"_a, "n_units"_a, "out"_a, "tf32"_a, "threads"_a, "stream"_a);
  m.def(
      "path_gram",
      [](const TensorArg& x, const TensorArg& words, const IntArg& n_gates,
         const std::optional<TensorArg>& sample_weight, const TensorArg& features,
         const std::optional<TensorArg>& weighted, const TensorArg& out,
         const OptionalCudaProductArg& cuda, const IntArg& threads, const IntArg& stream) {
        const char* op = "path_gram";
        const PathGramArgs args{view(x, op, "x"),
                                view(words, op, "gates.words"),
                                integer(n_gates, op, "n_gates"),
                                view(sample_weight, op, "sample_weight"),
                                view(features, op, "features"),
                                view(weighted, op, "weighted"),
                                view(out, op, "out"),
                                execution(op, threads, stream),
                                view(cuda, op)};
        check_and_run(op, check_path_gram, &OpTable::path_gram, args.x.device, args);
      },
      "x"_a, "words"_a, "n_gates"_a, "sample_weight"_a, "features"_a, "weighted"_a, "out"_a, "cuda"_a,
      "threads"_a, "stream"_a);
}

}  // namespace glai::bindings
