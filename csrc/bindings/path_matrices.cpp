#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "bindings/arguments.hpp"
#include "bindings/tensor_arg.hpp"
#include "core/checks/check.hpp"
#include "core/dispatch.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace glai::bindings {

void bind_path_matrices(py::module_& m) {
  m.def(
      "path_kernel",
      [](const TensorArg& xa, const std::vector<TensorArg>& words_a, const std::optional<TensorArg>& xb,
         const std::vector<TensorArg>& words_b, const std::vector<std::int64_t>& n_units,
         const TensorArg& out, bool tf32, int threads, std::uintptr_t stream) {
        const char* op = "path_kernel";
        const std::vector<TensorArg>& other = xb ? words_b : words_a;
        std::vector<UnitLayerPair> layers;
        for (std::size_t l = 0; l < n_units.size(); ++l) {
          layers.push_back({view(words_a.at(l), op, "layers_a.words"),
                            view(other.at(l), op, "layers_b.words"), n_units[l]});
        }
        const PathKernelArgs args{view(xa, op, "xa"),
                                  view(xb ? *xb : xa, op, "xb"),
                                  layers.data(),
                                  static_cast<std::int64_t>(layers.size()),
                                  !xb,
                                  view(out, op, "out"),
                                  execution(threads, stream),
                                  {tf32, std::nullopt, std::nullopt}};
        check_and_run(op, check_path_kernel, &OpTable::path_kernel, args.xa.device, args);
      },
      "xa"_a, "words_a"_a, "xb"_a, "words_b"_a, "n_units"_a, "out"_a, "tf32"_a, "threads"_a, "stream"_a);
  m.def(
      "path_gram",
      [](const TensorArg& x, const TensorArg& words, std::int64_t n_gates,
         const std::optional<TensorArg>& sample_weight, const TensorArg& features,
         const std::optional<TensorArg>& weighted, const TensorArg& out,
         const std::optional<CudaProductArg>& cuda, int threads, std::uintptr_t stream) {
        const char* op = "path_gram";
        const PathGramArgs args{view(x, op, "x"),
                                view(words, op, "gates.words"),
                                n_gates,
                                view(sample_weight, op, "sample_weight"),
                                view(features, op, "features"),
                                view(weighted, op, "weighted"),
                                view(out, op, "out"),
                                execution(threads, stream),
                                view(cuda, op)};
        check_and_run(op, check_path_gram, &OpTable::path_gram, args.x.device, args);
      },
      "x"_a, "words"_a, "n_gates"_a, "sample_weight"_a, "features"_a, "weighted"_a, "out"_a, "cuda"_a,
      "threads"_a, "stream"_a);
}

}  // namespace glai::bindings
