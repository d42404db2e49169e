#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
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
      [](const TensorArg& x, const std::vector<TensorArg>& projection,
         const std::vector<TensorArg>& layers, const TensorArg& weight, const TensorArg& bias,
         const std::vector<TensorArg>& directions, const TensorArg& y, int threads) {
        const char* op = "model_output";
        std::vector<SelectorLayer> hidden;
        for (std::size_t i = 0; i < layers.size(); i += 2) {
          hidden.push_back(
              {view(layers[i], op, "hidden_weight"), view(layers.at(i + 1), op, "hidden_bias")});
        }
        ModelOutputArgs args{view(x, op, "x"),
                             std::nullopt,
                             hidden.data(),
                             static_cast<std::int64_t>(hidden.size()),
                             view(weight, op, "weight"),
                             view(bias, op, "bias"),
                             std::nullopt,
                             view(y, op, "y"),
                             execution(threads, 0)};
        if (!projection.empty()) {
          args.projection = {view(projection.at(0), op, "mean"), view(projection.at(1), op, "scale"),
                             std::nullopt};
          if (projection.size() > 2) args.projection->rotation = view(projection[2], op, "rotation");
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

}  // namespace

void bind_training(py::module_& m) {
  m.def(
      "train_steps",
      [](const TensorArg& x, const TensorArg& words, std::int64_t n_gates, const TensorArg& targets,
         const std::optional<TensorArg>& sample_weight, const TensorArg& order,
         const std::optional<TensorArg>& directions, const TensorArg& parameters,
         const TensorArg& exp_avg, const TensorArg& exp_avg_sq, const TensorArg& mean, std::int64_t step,
         std::int64_t averaged, double learning_rate, double beta1, double beta2, double eps,
         double weight_decay, const TensorArg& batch_x, const TensorArg& batch_words,
         const TensorArg& output, const TensorArg& gradient, const TensorArg& row_losses,
         const std::optional<TensorArg>& hidden, const std::optional<TensorArg>& hidden_grad,
         const std::optional<TensorArg>& output_weights, const TensorArg& losses, int threads) {
        const char* op = "train_steps";
        const TensorView batch_output = view(output, op, "output");
        const TrainStepsArgs args{.x = view(x, op, "x"),
                                  .words = view(words, op, "gates.words"),
                                  .n_gates = n_gates,
                                  .targets = view(targets, op, "targets"),
                                  .sample_weight = view(sample_weight, op, "sample_weight"),
                                  .order = view(order, op, "order"),
                                  .batch_size = batch_output.shape[0],
                                  .directions = view(directions, op, "directions"),
                                  .parameters = view(parameters, op, "parameters"),
                                  .exp_avg = view(exp_avg, op, "exp_avg"),
                                  .exp_avg_sq = view(exp_avg_sq, op, "exp_avg_sq"),
                                  .mean = view(mean, op, "mean"),
                                  .step = step,
                                  .averaged = averaged,
                                  .adamw = {learning_rate, beta1, beta2, eps, weight_decay},
                                  .batch_x = view(batch_x, op, "batch_x"),
                                  .batch_words = view(batch_words, op, "batch_words"),
                                  .output = batch_output,
                                  .gradient = view(gradient, op, "gradient"),
                                  .row_losses = view(row_losses, op, "row_losses"),
                                  .hidden = view(hidden, op, "hidden"),
                                  .hidden_grad = view(hidden_grad, op, "hidden_grad"),
                                  .output_weights = view(output_weights, op, "output_weights"),
                                  .losses = view(losses, op, "losses"),
                                  .exec = execution(threads, 0)};
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
