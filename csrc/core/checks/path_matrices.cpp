#include "core/checks/check.hpp"

#include <string>

#include "core/checks/checker.hpp"
#include "core/names.hpp"
#include "core/sizes.hpp"

namespace glai {

void check_path_kernel(const PathKernelArgs& a) {
  const Checker check("path_kernel", "xa", a.xa.device);
  check.tensor("xa", a.xa, floats_of(a.xa.device), {{"Na"}, {"D"}});
  const DType dtype = a.xa.dtype;
  check.tensor("xb", a.xb, {dtype}, {{"Nb"}, {"D", a.xa.shape[1]}});
  if (a.xa.device.type == DeviceType::cuda && a.n_layers > kMaxCudaLayers) {
    fail("path_kernel: layers_a must be at most " + std::to_string(kMaxCudaLayers) + " on cuda, got " +
         std::to_string(a.n_layers));
  }
  check.sizes({{"D", a.xa.shape[1]}});
  const std::int64_t na = a.xa.shape[0], nb = a.xb.shape[0];
  for (std::int64_t l = 0; l < a.n_layers; ++l) {
    const std::string place = "[" + std::to_string(l) + "].words";
    const UnitLayerPair& layer = a.layers[l];
    check.words(("layers_a" + place).c_str(), layer.words_a, {"Na", na}, "h", layer.n_units);
    check.words(("layers_b" + place).c_str(), layer.words_b, {"Nb", nb}, "h", layer.n_units);
  }
  check.tensor("out", a.out, {dtype}, {{"Na", na}, {"Nb", nb}}, Layout::rows);
  check.apart({{"out", a.out}}, {{"xa", a.xa}, {"xb", a.xb}});
  for (std::int64_t l = 0; l < a.n_layers; ++l) {
    const std::string place = "[" + std::to_string(l) + "].words";
    const std::string name_a = "layers_a" + place, name_b = "layers_b" + place;
    check.apart({{"out", a.out}},
                {{name_a.c_str(), a.layers[l].words_a}, {name_b.c_str(), a.layers[l].words_b}});
  }
}

void check_path_gram(const PathGramArgs& a) {
  const Checker check("path_gram", "x", a.x.device);
  check.tensor("x", a.x, kFloats, {{"N"}, {"D"}});
  const DType dtype = a.x.dtype;
  check.sizes({{"D", a.x.shape[1]}});
  const std::int64_t n = a.x.shape[0], width = a.x.shape[1] + 1;
  check.words("gates.words", a.words, {"N", n}, "P", a.n_gates);
  const Dim size{"P*(D+1)", product_of(a.n_gates, width)};
  check.tensor("out", a.out, {dtype}, {size, size}, Layout::rows);
  check.tensor("features", a.features, {dtype}, {{"N", n}, {"D+1", width}}, Layout::rows);
  if (a.sample_weight.has_value() != a.weighted.has_value()) {
    fail("path_gram: sample_weight and weighted must come together");
  }
  if (a.sample_weight) {
    check.tensor("sample_weight", *a.sample_weight, {dtype}, {{"N", n}});
    check.tensor("weighted", *a.weighted, {dtype}, {{"N", n}, {"D+1", width}}, Layout::rows);
    if (a.weighted->stride[0] != a.features.stride[0] && n > 1) {
      fail("path_gram: weighted must have the strides of features, pass torch.empty_like(features)");
    }
  }
  check_gate_columns("path_gram", check, a.words, a.n_gates, a.cuda);
  check.apart({{"out", a.out},
               {"features", a.features},
               {"weighted", a.weighted},
               {"gate_columns", a.cuda.gate_columns}},
              {{"x", a.x}, {"gates.words", a.words}, {"sample_weight", a.sample_weight}});
}

}  // namespace glai
