#include "core/checks/check.hpp"
#include "core/checks/checker.hpp"

namespace glai {

void check_gated_linear(const GatedLinearArgs& a) {
  const Checker check("gated_linear", "x", a.x.device);
  check.tensor("x", a.x, floats_of(a.x.device), {{"N"}, {"D"}});
  const DType dtype = a.x.dtype;
  const std::int64_t n = a.x.shape[0];
  check.sizes({{"D", a.x.shape[1]}});
  check.words("gates.words", a.words, {"N", n}, "P", a.n_gates);
  check.tensor("u", a.u, {dtype}, {{"P", a.n_gates}, {"D", a.x.shape[1]}}, Layout::either_unit_stride);
  if (a.bias) check.tensor("bias", *a.bias, {dtype}, {{"P", a.n_gates}});
  check.tensor("y", a.y, {dtype}, {{"N", n}, {"P", a.n_gates}}, Layout::rows);
  check.apart({{"y", a.y}}, {{"x", a.x}, {"gates.words", a.words}, {"u", a.u}, {"bias", a.bias}});
}

void check_apply_gates(const ApplyGatesArgs& a) {
  const Checker check("apply_gates", "values", a.values.device);
  check.tensor("values", a.values, floats_of(a.values.device), {{"N"}, {"P", a.n_gates}});
  const Dim n{"N", a.values.shape[0]};
  check.words("gates.words", a.words, n, "P", a.n_gates);
  check.tensor("out", a.out, {a.values.dtype}, {n, {"P", a.n_gates}}, Layout::rows);
  check.apart({{"out", a.out}}, {{"values", a.values}, {"gates.words", a.words}});
}

}  // namespace glai
