#include <string>

#include "core/checks/check.hpp"
#include "core/checks/checker.hpp"
#include "core/names.hpp"

namespace glai {
namespace {

// Plans are of products on CUDA, wherever the tensor lies that has their sizes.
const DTypes& planned() { return floats_of({DeviceType::cuda, 0}); }

}  // namespace

void check_plan_cuda_product(const char* op, const TensorView& y, std::int64_t n_gates,
                             std::int64_t depth) {
  const Checker check(op, "y", y.device);
  check.tensor("y", y, planned(), {{"N"}, {"C"}}, Layout::rows);
  check.sizes({{"C", y.shape[1]}, {"n_gates", n_gates}, {"depth", depth}});
}

void check_plan_cuda_weight_grad(const TensorView& x, std::int64_t n_gates, std::int64_t columns) {
  const Checker check("gated_matmul_weight_grad", "x", x.device);
  check.tensor("x", x, planned(), {{"N"}, {"D"}});
  check.sizes({{"D", x.shape[1]}, {"n_gates", n_gates}, {"columns", columns}});
}

void check_explain_cuda_form(const GatedShape& shape) {
  const Checker check("explain_cuda_form", "n", {});
  if (shape.n < 0) fail("explain_cuda_form: n must be >= 0, got " + std::to_string(shape.n));
  check.sizes({{"p", shape.p}, {"depth", shape.d}, {"columns", shape.c}});
}

void check_explain_form(const TensorView& words, std::int64_t n_gates, std::int64_t d, std::int64_t c) {
  const Checker check("explain_form", "words", words.device);
  if (words.device.type != DeviceType::cpu) {
    fail("explain_form: words must be on cpu, got " + device_name(words.device));
  }
  check.words("words", words, {"N"}, "P", n_gates);
  check.sizes({{"d", d}, {"c", c}});
}

}  // namespace glai
