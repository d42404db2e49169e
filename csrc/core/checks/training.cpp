#include "core/checks/check.hpp"

#include <string>
#include <utility>

#include "core/checks/checker.hpp"
#include "core/names.hpp"

namespace glai {

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
  if (a.n_layers == 0) fail("model_output: layers must hold one hidden layer at least, got none");
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
