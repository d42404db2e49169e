#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <vector>

#include "bindings/arguments.hpp"
#include "bindings/tensor_arg.hpp"
#include "core/checks/check.hpp"
#include "core/dispatch.hpp"
#include "core/names.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace glai::bindings {

void bind_integer_sums(py::module_& m) {
  m.def(
      "integer_gram",
      [](const TensorArg& features, const IntArg& sign, const TensorArg& out, const IntArg& threads,
         const IntArg& stream) {
        const char* op = "integer_gram";
        const IntegerGramArgs args{view(features, op, "features"), integer(sign, op, "sign"),
                                   view(out, op, "out"), execution(op, threads, stream)};
        check_and_run(op, check_integer_gram, &OpTable::integer_gram, args.features.device, args);
      },
      "features"_a, "sign"_a, "out"_a, "threads"_a, "stream"_a);
  m.def(
      "class_sums",
      [](const TensorArg& features, const TensorArg& classes, const IntArg& sign, const TensorArg& out,
         const IntArg& threads, const IntArg& stream) {
        const char* op = "class_sums";
        const ClassSumsArgs args{view(features, op, "features"), view(classes, op, "classes"),
                                 integer(sign, op, "sign"), view(out, op, "out"),
                                 execution(op, threads, stream)};
        check_and_run(op, check_class_sums, &OpTable::class_sums, args.features.device, args);
      },
      "features"_a, "classes"_a, "sign"_a, "out"_a, "threads"_a, "stream"_a);
  m.def(
      "integer_features",
      [](const TensorArg& x, const TensorArg& mean, const TensorArg& scale, const TensorsArg& weights,
         const TensorsArg& biases, const TensorsArg& multipliers, const IntsArg& shifts,
         const TensorArg& out, const IntArg& threads, const IntArg& stream) {
        const char* op = "integer_features";
        const std::vector<TensorView> weight = views(weights, op, "weights"),
                                      bias = views(biases, op, "biases"),
                                      multiplier = views(multipliers, op, "multipliers");
        const std::vector<std::int64_t> shift = integers(shifts, op, "shifts");
        if (bias.size() != weight.size() || multiplier.size() != weight.size() ||
            shift.size() != weight.size()) {
          fail(std::string(op) + ": biases, multipliers and shifts must be as many as weights, " +
               std::to_string(weight.size()) + ", got " + std::to_string(bias.size()) + ", " +
               std::to_string(multiplier.size()) + " and " + std::to_string(shift.size()));
        }
        std::vector<IntegerLayer> layers;
        for (std::size_t l = 0; l < weight.size(); ++l) {
          layers.push_back({weight[l], bias[l], multiplier[l], shift[l]});
        }
        const IntegerFeaturesArgs args{view(x, op, "x"),
                                       view(mean, op, "mean"),
                                       view(scale, op, "scale"),
                                       layers.data(),
                                       static_cast<std::int64_t>(layers.size()),
                                       view(out, op, "out"),
                                       execution(op, threads, stream)};
        check_and_run(op, check_integer_features, &OpTable::integer_features, args.x.device, args);
      },
      "x"_a, "mean"_a, "scale"_a, "weights"_a, "biases"_a, "multipliers"_a, "shifts"_a, "out"_a,
      "threads"_a, "stream"_a);
}

}  // namespace glai::bindings
