#include "core/checks/check.hpp"

#include <string>

#include "core/checks/checker.hpp"
#include "core/names.hpp"
#include "core/sizes.hpp"

namespace glai {

namespace {

// With directions, features are gathered where the products read them.
void check_batch_lies_in_hidden(const TrainStepsArgs& a) {
  const std::int64_t item = a.x.dtype == DType::float64 ? 8 : 4;
  const char* features = a.hidden->as<const char>() + a.n_gates * item;
  if (a.batch_x.data != features ||
      (a.batch_x.shape[0] > 1 && a.batch_x.stride[0] != a.hidden->stride[0])) {
    fail("train_steps: batch_x must be the last D+1 columns of hidden, pass hidden[:, P:]");
  }
}

}  // namespace

void check_train_steps(const TrainStepsArgs& a) {
  const Checker check("train_steps", "x", a.x.device);
  // Values of order and targets are read here, so that they must lie where the checks run.
  if (a.x.device.type != DeviceType::cpu) {
    fail("train_steps: x must be on cpu, got " + device_name(a.x.device));
  }
  check.tensor("x", a.x, kFloats, {{"N"}, {"D"}});
  const DType dtype = a.x.dtype;
  const std::int64_t n = a.x.shape[0], d = a.x.shape[1], p = a.n_gates;
  check.words("gates.words", a.words, {"N", n}, "P", p);
  check.tensor("output", a.output, {dtype}, {{"B"}, {"C"}}, Layout::contiguous);
  const std::int64_t b = a.output.shape[0], c = a.output.shape[1];
  if (b < 1 || c < 1) fail("train_steps: output must be [B >= 1, C >= 1], got " + describe(a.output));
  check.sizes({{"D", d}, {"C", c}});
  const bool classes = a.targets.dtype == DType::int64;
  if (classes) {
    check.tensor("targets", a.targets, {DType::int64}, {{"N", n}});
  } else {
    check.tensor("targets", a.targets, {dtype}, {{"N", n}, {"C", c}});
  }
  if (a.sample_weight) check.tensor("sample_weight", *a.sample_weight, {dtype}, {{"N", n}});
  check.tensor("order", a.order, {DType::int64}, {{"S"}}, Layout::contiguous);
  check.tensor("losses", a.losses, {DType::float64}, {{"steps", ceil_div(a.order.shape[0], b)}},
               Layout::contiguous);
  check.sizes({{"step", a.step}, {"averaged", a.averaged}});
  const std::int64_t k = a.directions ? product_of(d + 1, p + c) : product_of(p, d + 1, c);
  const Named flat[] = {{"parameters", a.parameters},
                        {"exp_avg", a.exp_avg},
                        {"exp_avg_sq", a.exp_avg_sq},
                        {"mean", a.mean},
                        {"gradient", a.gradient}};
  for (const Named& one : flat) {
    check.tensor(one.name, *one.view, {dtype}, {{"K", k}}, Layout::contiguous);
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
    check_batch_lies_in_hidden(a);
  }
  check.apart({{"parameters", a.parameters},
               {"exp_avg", a.exp_avg},
               {"exp_avg_sq", a.exp_avg_sq},
               {"mean", a.mean},
               {"gradient", a.gradient},
               a.directions ? Named{"hidden", a.hidden} : Named{"batch_x", a.batch_x},
               {"batch_words", a.batch_words},
               {"output", a.output},
               {"row_losses", a.row_losses},
               {"hidden_grad", a.hidden_grad},
               {"output_weights", a.output_weights},
               {"losses", a.losses}},
              {{"x", a.x},
               {"gates.words", a.words},
               {"targets", a.targets},
               {"sample_weight", a.sample_weight},
               {"order", a.order},
               {"directions", a.directions}});
  check_order("train_steps", a.order, a.targets, n, c);
}

void check_model_output(const ModelOutputArgs& a) {
  const Checker check("model_output", "x", a.x.device);
  if (a.x.device.type != DeviceType::cpu) {
    fail("model_output: x must be on cpu, got " + device_name(a.x.device));
  }
  check.tensor("x", a.x, kFloats, {{"N"}, {"I"}});
  const DType dtype = a.x.dtype;
  const std::int64_t n = a.x.shape[0];
  std::int64_t width = a.x.shape[1];  // of what comes next
  check.sizes({{"I", width}});
  if (a.projection) {
    const ProjectionArgs& p = *a.projection;
    const Dim features{"I", width};
    check.tensor("mean", p.mean, {dtype}, {features});
    check.tensor("scale", p.scale, kFloats, {});
    if (p.rotation) {
      check.tensor("rotation", *p.rotation, {dtype}, {features, {"D"}}, Layout::either_unit_stride);
      width = p.rotation->shape[1];
      check.sizes({{"D", width}});
    }
    check.apart({{"y", a.y}}, {{"mean", p.mean}, {"scale", p.scale}, {"rotation", p.rotation}});
  }
  const std::int64_t d = width;
  if (a.n_layers == 0) fail("model_output: layers must hold one hidden layer at least, got none");
  std::int64_t paths = 1;
  for (std::int64_t l = 0; l < a.n_layers; ++l) {
    const SelectorLayer& layer = a.layers[l];
    const std::string weight = "hidden_weights[" + std::to_string(l) + "]";
    const std::string bias = "hidden_biases[" + std::to_string(l) + "]";
    check.tensor(weight.c_str(), layer.weight, {dtype}, {{"H"}, {l == 0 ? "D" : "units before", width}},
                 Layout::either_unit_stride);
    width = layer.weight.shape[0];
    check.sizes({{"H", width}});
    check.tensor(bias.c_str(), layer.bias, {dtype}, {{"H", width}});
    paths = product_of(paths, width + 1);
    check.apart({{"y", a.y}}, {{weight.c_str(), layer.weight}, {bias.c_str(), layer.bias}});
  }
  check.sizes({{"P", paths}});
  std::int64_t c = 0;
  if (a.directions) {
    const DirectionsArgs& v = *a.directions;
    check.tensor("weight", a.weight, {dtype}, {{"P", paths}, {"D", d}}, Layout::either_unit_stride);
    check.tensor("bias", a.bias, {dtype}, {{"P", paths}});
    check.tensor("directions", v.directions, {dtype}, {{"P", paths}, {"C"}}, Layout::either_unit_stride);
    c = v.directions.shape[1];
    check.tensor("constant_weight", v.constant_weight, {dtype}, {{"D", d}, {"C", c}},
                 Layout::either_unit_stride);
    check.tensor("constant_bias", v.constant_bias, {dtype}, {{"C", c}});
    check.apart({{"y", a.y}}, {{"directions", v.directions},
                               {"constant_weight", v.constant_weight},
                               {"constant_bias", v.constant_bias}});
  } else {
    check.tensor("weight", a.weight, {dtype}, {{"P", paths}, {"D", d}, {"C"}},
                 Layout::either_unit_stride);
    c = a.weight.shape[2];
    check.tensor("bias", a.bias, {dtype}, {{"P", paths}, {"C", c}});
  }
  check.sizes({{"C", c}});
  check.tensor("y", a.y, {dtype}, {{"N", n}, {"C", c}}, Layout::rows);
  check.apart({{"y", a.y}}, {{"x", a.x}, {"weight", a.weight}, {"bias", a.bias}});
}

}  // namespace glai
