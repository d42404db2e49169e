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
#include "core/model_output.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace glai::bindings {
namespace {

void bind_model_output(py::module_& m) {
  m.def(
      "model_output",
      [](const TensorArg& x, const std::optional<TensorArg>& mean, const std::optional<TensorArg>& scale,
         const std::optional<TensorArg>& rotation, const TensorsArg& hidden_weights,
         const TensorsArg& hidden_biases, const TensorArg& weight, const TensorArg& bias,
         const std::optional<TensorArg>& directions, const std::optional<TensorArg>& constant_weight,
         const std::optional<TensorArg>& constant_bias, const TensorArg& y, const IntArg& threads) {
        const char* op = "model_output";
        if (mean.has_value() != scale.has_value() || (rotation && !mean)) {
          throw py::value_error(std::string(op) +
                                ": mean and scale must come together, rotation with them");
        }
        if (directions.has_value() != constant_weight.has_value() ||
            directions.has_value() != constant_bias.has_value()) {
          throw py::value_error(std::string(op) +
                                ": directions, constant_weight and constant_bias must come together");
        }
        const std::vector<TensorView> weights = views(hidden_weights, op, "hidden_weights");
        const std::vector<TensorView> biases = views(hidden_biases, op, "hidden_biases");
        if (weights.size() != biases.size()) {
          throw py::value_error(std::string(op) + ": hidden_biases must be as many as hidden_weights, " +
                                std::to_string(weights.size()) + ", got " +
                                std::to_string(biases.size()));
        }
        std::vector<SelectorLayer> hidden;
        for (std::size_t l = 0; l < weights.size(); ++l) hidden.push_back({weights[l], biases[l]});
        ModelOutputArgs args{.x = view(x, op, "x"),
                             .projection = std::nullopt,
                             .layers = hidden.data(),
                             .n_layers = static_cast<std::int64_t>(hidden.size()),
                             .weight = view(weight, op, "weight"),
                             .bias = view(bias, op, "bias"),
                             .directions = std::nullopt,
                             .y = view(y, op, "y"),
                             .exec = execution(op, threads)};
        if (mean) {
          args.projection = ProjectionArgs{view(*mean, op, "mean"), view(*scale, op, "scale"),
                                           view(rotation, op, "rotation")};
        }
        if (directions) {
          args.directions = DirectionsArgs{view(*directions, op, "directions"),
                                           view(*constant_weight, op, "constant_weight"),
                                           view(*constant_bias, op, "constant_bias")};
        }
        check_model_output(args);
        const py::gil_scoped_release release;
        model_output(args);
      },
      py::kw_only(), "x"_a, "mean"_a = py::none(), "scale"_a = py::none(), "rotation"_a = py::none(),
      "hidden_weights"_a, "hidden_biases"_a, "weight"_a, "bias"_a, "directions"_a = py::none(),
      "constant_weight"_a = py::none(), "constant_bias"_a = py::none(), "y"_a, "threads"_a);
}

}  // namespace

void bind_training(py::module_& m) {
  m.def(
      "train_steps",
      [](const TensorArg& x, const TensorArg& words, const IntArg& n_gates, const TensorArg& targets,
         const std::optional<TensorArg>& sample_weight, const TensorArg& order,
         const std::optional<TensorArg>& directions, const TensorArg& parameters,
         const TensorArg& exp_avg, const TensorArg& exp_avg_sq, const TensorArg& mean,
         const IntArg& step, const IntArg& averaged, const FloatArg& learning_rate,
         const FloatArg& beta1, const FloatArg& beta2, const FloatArg& eps, const FloatArg& weight_decay,
         const TensorArg& batch_x, const TensorArg& batch_words, const TensorArg& output,
         const TensorArg& gradient, const TensorArg& row_losses, const std::optional<TensorArg>& hidden,
         const std::optional<TensorArg>& hidden_grad, const std::optional<TensorArg>& output_weights,
         const TensorArg& losses, const IntArg& threads) {
        const char* op = "train_steps";
        const TensorView batch_output = view(output, op, "output");
        const TrainStepsArgs args{
            .x = view(x, op, "x"),
            .words = view(words, op, "gates.words"),
            .n_gates = integer(n_gates, op, "n_gates"),
            .targets = view(targets, op, "targets"),
            .sample_weight = view(sample_weight, op, "sample_weight"),
            .order = view(order, op, "order"),
            .batch_size = batch_output.shape[0],
            .directions = view(directions, op, "directions"),
            .parameters = view(parameters, op, "parameters"),
            .exp_avg = view(exp_avg, op, "exp_avg"),
            .exp_avg_sq = view(exp_avg_sq, op, "exp_avg_sq"),
            .mean = view(mean, op, "mean"),
            .step = integer(step, op, "step"),
            .averaged = integer(averaged, op, "averaged"),
            .adamw = {number(learning_rate, op, "learning_rate"), number(beta1, op, "beta1"),
                      number(beta2, op, "beta2"), number(eps, op, "eps"),
                      number(weight_decay, op, "weight_decay")},
            .batch_x = view(batch_x, op, "batch_x"),
            .batch_words = view(batch_words, op, "batch_words"),
            .output = batch_output,
            .gradient = view(gradient, op, "gradient"),
            .row_losses = view(row_losses, op, "row_losses"),
            .hidden = view(hidden, op, "hidden"),
            .hidden_grad = view(hidden_grad, op, "hidden_grad"),
            .output_weights = view(output_weights, op, "output_weights"),
            .losses = view(losses, op, "losses"),
            .exec = execution(op, threads)};
        check_and_run(op, check_train_steps, &OpTable::train_steps, args.x.device, args);
      },
      py::kw_only(), "x"_a, "words"_a, "n_gates"_a, "targets"_a, "sample_weight"_a, "order"_a,
      "directions"_a, "parameters"_a, "exp_avg"_a, "exp_avg_sq"_a, "mean"_a, "step"_a, "averaged"_a,
      "learning_rate"_a, "beta1"_a, "beta2"_a, "eps"_a, "weight_decay"_a, "batch_x"_a, "batch_words"_a,
      "output"_a, "gradient"_a, "row_losses"_a, "hidden"_a = py::none(), "hidden_grad"_a = py::none(),
      "output_weights"_a = py::none(), "losses"_a, "threads"_a);
  bind_model_output(m);
}

}  // namespace glai::bindings
