#include <string>

#include "core/checks/check.hpp"
#include "core/checks/checker.hpp"
#include "core/names.hpp"
#include "core/sizes.hpp"

namespace glai {

void check_structure_steps(const StructureStepsArgs& a) {
  const Checker check("structure_steps", "x", a.x.device);
  // Values of order and targets are read here, so that they must lie where the checks run.
  if (a.x.device.type != DeviceType::cpu) {
    fail("structure_steps: x must be on cpu, got " + device_name(a.x.device));
  }
  check.tensor("x", a.x, kFloats, {{"N"}, {"D"}});
  const DType dtype = a.x.dtype;
  const std::int64_t n = a.x.shape[0], d = a.x.shape[1];
  check.tensor("output", a.output, {dtype}, {{"B"}, {"C"}}, Layout::contiguous);
  const std::int64_t b = a.output.shape[0], c = a.output.shape[1];
  if (b < 1 || c < 1) {
    fail("structure_steps: output must be [B >= 1, C >= 1], got " + describe(a.output));
  }
  check.sizes({{"D", d}, {"C", c}, {"step", a.step}});
  if (a.targets.dtype == DType::int64) {
    check.tensor("targets", a.targets, {DType::int64}, {{"N", n}});
  } else {
    check.tensor("targets", a.targets, {dtype}, {{"N", n}, {"C", c}});
  }
  if (a.sample_weight) check.tensor("sample_weight", *a.sample_weight, {dtype}, {{"N", n}});
  check.tensor("order", a.order, {DType::int64}, {{"S"}}, Layout::contiguous);
  check.tensor("losses", a.losses, {DType::float64}, {{"steps", ceil_div(a.order.shape[0], b)}},
               Layout::contiguous);
  check.tensor("batch_x", a.batch_x, {dtype}, {{"B", b}, {"D", d}}, Layout::rows);
  check.tensor("row_losses", a.row_losses, {DType::float64}, {{"B", b}}, Layout::contiguous);
  if (a.n_hidden == 0) fail("structure_steps: hidden must hold one layer at least, got none");

  const auto of_layer = [](const char* name, std::int64_t l) {
    return name + ("[" + std::to_string(l) + "]");
  };
  std::int64_t width = d, k = 0;
  for (std::int64_t l = 0; l < a.n_hidden; ++l) {
    check.tensor(of_layer("hidden", l).c_str(), a.hidden[l], {dtype}, {{"B", b}, {"H"}}, Layout::rows);
    const std::int64_t h = a.hidden[l].shape[1];
    check.sizes({{"H", h}});
    check.words(of_layer("hidden_words", l).c_str(), a.hidden_words[l], {"B", b}, "H", h);
    k = sum_of(k, product_of(h, width + 1));
    width = h;
  }
  k = sum_of(k, product_of(c, width + 1));
  const Named flat[] = {{"parameters", a.parameters},
                        {"exp_avg", a.exp_avg},
                        {"exp_avg_sq", a.exp_avg_sq},
                        {"gradient", a.gradient}};
  for (const Named& one : flat) {
    check.tensor(one.name, *one.view, {dtype}, {{"K", k}}, Layout::contiguous);
  }

  check.apart(
      {{"parameters", a.parameters},
       {"exp_avg", a.exp_avg},
       {"exp_avg_sq", a.exp_avg_sq},
       {"gradient", a.gradient},
       {"batch_x", a.batch_x},
       {"output", a.output},
       {"row_losses", a.row_losses},
       {"losses", a.losses}},
      {{"x", a.x}, {"targets", a.targets}, {"sample_weight", a.sample_weight}, {"order", a.order}});
  // Each of the layers' arrays, and those before it.
  for (std::int64_t i = 0; i < 2 * a.n_hidden; ++i) {
    const auto name = [&](std::int64_t j) {
      return of_layer(j < a.n_hidden ? "hidden" : "hidden_words", j % a.n_hidden);
    };
    const auto array = [&](std::int64_t j) -> const TensorView& {
      return j < a.n_hidden ? a.hidden[j] : a.hidden_words[j - a.n_hidden];
    };
    const std::string own = name(i);
    check.apart({{own.c_str(), array(i)}}, {{"x", a.x},
                                            {"targets", a.targets},
                                            {"sample_weight", a.sample_weight},
                                            {"order", a.order},
                                            {"parameters", a.parameters},
                                            {"exp_avg", a.exp_avg},
                                            {"exp_avg_sq", a.exp_avg_sq},
                                            {"gradient", a.gradient},
                                            {"batch_x", a.batch_x},
                                            {"output", a.output},
                                            {"row_losses", a.row_losses},
                                            {"losses", a.losses}});
    for (std::int64_t j = 0; j < i; ++j) {
      const std::string other = name(j);
      check.apart({{own.c_str(), array(i)}}, {{other.c_str(), array(j)}});
    }
  }
  check_order("structure_steps", a.order, a.targets, n, c);
}

}  // namespace glai
