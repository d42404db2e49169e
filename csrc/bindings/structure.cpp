#include <pybind11/pybind11.h>

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

void bind_structure(py::module_& m) {
  m.def(
      "structure_steps",
      [](const TensorArg& x, const TensorArg& targets, const std::optional<TensorArg>& sample_weight,
         const TensorArg& order, const TensorArg& parameters, const TensorArg& exp_avg,
         const TensorArg& exp_avg_sq, const IntArg& step, const FloatArg& learning_rate,
         const FloatArg& beta1, const FloatArg& beta2, const FloatArg& eps, const TensorArg& batch_x,
         const TensorsArg& hidden, const TensorsArg& hidden_words, const TensorArg& output,
         const TensorArg& gradient, const TensorArg& row_losses, const TensorArg& losses,
         const IntArg& threads) {
        const char* op = "structure_steps";
        const std::vector<TensorView> units = views(hidden, op, "hidden");
        const std::vector<TensorView> words = views(hidden_words, op, "hidden_words");
        if (units.size() != words.size()) {
          throw py::value_error(std::string(op) + ": hidden_words must be as many as hidden, " +
                                std::to_string(units.size()) + ", got " + std::to_string(words.size()));
        }
        const StructureStepsArgs args{
            .x = view(x, op, "x"),
            .targets = view(targets, op, "targets"),
            .sample_weight = view(sample_weight, op, "sample_weight"),
            .order = view(order, op, "order"),
            .parameters = view(parameters, op, "parameters"),
            .exp_avg = view(exp_avg, op, "exp_avg"),
            .exp_avg_sq = view(exp_avg_sq, op, "exp_avg_sq"),
            .step = integer(step, op, "step"),
            .adamw = {number(learning_rate, op, "learning_rate"), number(beta1, op, "beta1"),
                      number(beta2, op, "beta2"), number(eps, op, "eps"), 0.0},
            .batch_x = view(batch_x, op, "batch_x"),
            .hidden = units.data(),
            .hidden_words = words.data(),
            .n_hidden = static_cast<std::int64_t>(units.size()),
            .output = view(output, op, "output"),
            .gradient = view(gradient, op, "gradient"),
            .row_losses = view(row_losses, op, "row_losses"),
            .losses = view(losses, op, "losses"),
            .exec = execution(op, threads)};
        check_and_run(op, check_structure_steps, &OpTable::structure_steps, args.x.device, args);
      },
      py::kw_only(), "x"_a, "targets"_a, "sample_weight"_a, "order"_a, "parameters"_a, "exp_avg"_a,
      "exp_avg_sq"_a, "step"_a, "learning_rate"_a, "beta1"_a, "beta2"_a, "eps"_a, "batch_x"_a,
      "hidden"_a, "hidden_words"_a, "output"_a, "gradient"_a, "row_losses"_a, "losses"_a, "threads"_a);
}

}  // namespace glai::bindings
