#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>

#include "bindings/arguments.hpp"
#include "bindings/tensor_arg.hpp"
#include "core/checks/check.hpp"
#include "core/dispatch.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace glai::bindings {

void bind_gates(py::module_& m) {
  m.def(
      "check_words",
      [](const TensorArg& words, const IntArg& n_gates) {
        const char* op = "PackedGates";
        check_words(op, view(words, op, "words"), integer(n_gates, op, "n_gates"));
      },
      "words"_a, "n_gates"_a);
  m.def(
      "pack_gates",
      [](const TensorArg& bits, const TensorArg& words, const IntArg& threads, const IntArg& stream) {
        const char* op = "pack_gates";
        const PackGatesArgs args{view(bits, op, "bits"), view(words, op, "words"),
                                 execution(op, threads, stream)};
        check_and_run(op, check_pack_gates, &OpTable::pack_gates, args.bits.device, args);
      },
      "bits"_a, "words"_a, "threads"_a, "stream"_a);
  m.def(
      "unpack_gates",
      [](const TensorArg& words, const IntArg& n_gates, const TensorArg& bits, const IntArg& threads,
         const IntArg& stream) {
        const char* op = "unpack_gates";
        const UnpackGatesArgs args{view(words, op, "words"), integer(n_gates, op, "n_gates"),
                                   view(bits, op, "bits"), execution(op, threads, stream)};
        check_and_run(op, check_unpack_gates, &OpTable::unpack_gates, args.words.device, args);
      },
      "words"_a, "n_gates"_a, "bits"_a, "threads"_a, "stream"_a);
  m.def(
      "gate_counts",
      [](const TensorArg& words, const IntArg& n_gates, const TensorArg& counts, const IntArg& threads,
         const IntArg& stream) {
        const char* op = "gate_counts";
        const GateCountsArgs args{view(words, op, "words"), integer(n_gates, op, "n_gates"),
                                  view(counts, op, "counts"), execution(op, threads, stream)};
        check_and_run(op, check_gate_counts, &OpTable::gate_counts, args.words.device, args);
      },
      "words"_a, "n_gates"_a, "counts"_a, "threads"_a, "stream"_a);
  m.def(
      "gate_hamming",
      [](const TensorArg& words_a, const TensorArg& words_b, const IntArg& n_gates,
         const TensorArg& distance, const IntArg& threads, const IntArg& stream) {
        const char* op = "gate_hamming";
        const GateHammingArgs args{view(words_a, op, "words_a"), view(words_b, op, "words_b"),
                                   integer(n_gates, op, "n_gates"), view(distance, op, "distance"),
                                   execution(op, threads, stream)};
        check_and_run(op, check_gate_hamming, &OpTable::gate_hamming, args.words_a.device, args);
      },
      "words_a"_a, "words_b"_a, "n_gates"_a, "distance"_a, "threads"_a, "stream"_a);
  m.def(
      "path_gates",
      [](const TensorArg& unit_words, const IntArg& n_units, const TensorArg& inner_words,
         const IntArg& n_inner, const TensorArg& words, const IntArg& threads, const IntArg& stream) {
        const char* op = "path_gates";
        const PathGatesArgs args{view(unit_words, op, "unit_words"),
                                 integer(n_units, op, "n_units"),
                                 view(inner_words, op, "inner_words"),
                                 integer(n_inner, op, "n_inner"),
                                 view(words, op, "words"),
                                 execution(op, threads, stream)};
        check_and_run(op, check_path_gates, &OpTable::path_gates, args.unit_words.device, args);
      },
      "unit_words"_a, "n_units"_a, "inner_words"_a, "n_inner"_a, "words"_a, "threads"_a, "stream"_a);
  m.def(
      "selector_gates",
      [](const TensorArg& x, const TensorArg& weight, const std::optional<TensorArg>& bias,
         const TensorArg& words, const BoolArg& tf32, const IntArg& threads, const IntArg& stream) {
        const char* op = "selector_gates";
        const SelectorGatesArgs args{view(x, op, "x"),
                                     view(weight, op, "weight"),
                                     view(bias, op, "bias"),
                                     view(words, op, "words"),
                                     execution(op, threads, stream),
                                     {flag(tf32, op, "tf32"), std::nullopt, std::nullopt}};
        check_and_run(op, check_selector_gates, &OpTable::selector_gates, args.x.device, args);
      },
      "x"_a, "weight"_a, "bias"_a, "words"_a, "tf32"_a, "threads"_a, "stream"_a);
}

}  // namespace glai::bindings
