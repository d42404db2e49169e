#include "core/checks/check.hpp"

#include <string>

#include "core/checks/checker.hpp"
#include "core/gates.hpp"
#include "core/names.hpp"
#include "core/sizes.hpp"

namespace glai {

void check_words(const char* op, const TensorView& words, std::int64_t n_gates) {
  const Checker check(op, "words", words.device);
  check.words("words", words, {"N"}, "P", n_gates);
  if (words.device.type != DeviceType::cpu || n_gates == 0) return;
  const std::int64_t w = words_per_row(n_gates);
  const std::uint32_t padding = ~last_word_mask(n_gates);
  const auto* last = words.as<std::uint32_t>() + (w - 1);
  for (std::int64_t n = 0; n < words.shape[0]; ++n) {
    if ((last[n * w] & padding) != 0) {
      fail(std::string(op) + ": the padding bits of words (past gate P=" + std::to_string(n_gates) +
           ") must be zero, got a set bit in row " + std::to_string(n));
    }
  }
}

void check_pack_gates(const PackGatesArgs& a) {
  const Checker check("pack_gates", "bits", a.bits.device);
  check.tensor("bits", a.bits, {DType::boolean, DType::float32, DType::float64}, {{"N"}, {"P"}});
  check.words("words", a.words, {"N", a.bits.shape[0]}, "P", a.bits.shape[1]);
  check.apart({{"words", a.words}}, {{"bits", a.bits}});
}

void check_unpack_gates(const UnpackGatesArgs& a) {
  const Checker check("unpack_gates", "words", a.words.device);
  check.words("words", a.words, {"N"}, "P", a.n_gates);
  check.tensor("bits", a.bits, {DType::boolean}, {{"N", a.words.shape[0]}, {"P", a.n_gates}},
               Layout::contiguous);
  check.apart({{"bits", a.bits}}, {{"words", a.words}});
}

void check_gate_counts(const GateCountsArgs& a) {
  const Checker check("gate_counts", "words", a.words.device);
  check.words("words", a.words, {"N"}, "P", a.n_gates);
  check.tensor("counts", a.counts, {DType::int64}, {{"P", a.n_gates}}, Layout::contiguous);
  check.apart({{"counts", a.counts}}, {{"words", a.words}});
}

void check_gate_hamming(const GateHammingArgs& a) {
  const Checker check("gate_hamming", "words_a", a.words_a.device);
  check.words("words_a", a.words_a, {"N"}, "P", a.n_gates);
  check.words("words_b", a.words_b, {"N", a.words_a.shape[0]}, "P", a.n_gates);
  check.tensor("distance", a.distance, {DType::int64}, {{"N", a.words_a.shape[0]}}, Layout::contiguous);
  check.apart({{"distance", a.distance}}, {{"words_a", a.words_a}, {"words_b", a.words_b}});
}

void check_path_gates(const PathGatesArgs& a) {
  const Checker check("path_gates", "unit_words", a.unit_words.device);
  check.words("unit_words", a.unit_words, {"N"}, "h", a.n_units);
  const std::int64_t n = a.unit_words.shape[0];
  check.words("inner_words", a.inner_words, {"N", n}, "inner", a.n_inner);
  check.words("words", a.words, {"N", n}, "P", product_of(a.n_units + 1, a.n_inner));
  check.apart({{"words", a.words}}, {{"unit_words", a.unit_words}, {"inner_words", a.inner_words}});
}

void check_selector_gates(const SelectorGatesArgs& a) {
  const Checker check("selector_gates", "x", a.x.device);
  check.tensor("x", a.x, floats_of(a.x.device), {{"N"}, {"D"}});
  const DType dtype = a.x.dtype;
  check.tensor("weight", a.weight, {dtype}, {{"H"}, {"D", a.x.shape[1]}}, Layout::either_unit_stride);
  const std::int64_t h = a.weight.shape[0];
  check.sizes({{"H", h}, {"D", a.x.shape[1]}});
  if (a.bias) check.tensor("bias", *a.bias, {dtype}, {{"H", h}});
  check.words("words", a.words, {"N", a.x.shape[0]}, "H", h);
  check.apart({{"words", a.words}}, {{"x", a.x}, {"weight", a.weight}, {"bias", a.bias}});
}

}  // namespace glai
