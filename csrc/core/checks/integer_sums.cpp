#include <string>

#include "core/checks/check.hpp"
#include "core/checks/checker.hpp"
#include "core/names.hpp"
#include "core/sizes.hpp"

namespace glai {
namespace {

constexpr std::int64_t kMaxValue = 127;  // of features: two products of such fit 16 bits
constexpr std::int64_t kMaxWeight = 128, kMaxSum = (std::int64_t{1} << 31) - 1;
constexpr std::int64_t kMaxMultiplier = (1 << 16) - 1, kMaxShift = 62;

void check_sign(const char* op, std::int64_t sign) {
  if (sign == 1 || sign == -1) return;
  fail(std::string(op) + ": sign must be 1 or -1, got " + std::to_string(sign));
}

// Values are read where they lie on the CPU; on CUDA who calls has done it.
void check_values(const char* op, const TensorView& features) {
  if (features.device.type != DeviceType::cpu || is_empty(features)) return;
  for (std::int64_t n = 0; n < features.shape[0]; ++n) {
    const std::uint8_t* row = features.as<const std::uint8_t>() + n * features.stride[0];
    std::uint8_t all = 0;
    for (std::int64_t i = 0; i < features.shape[1]; ++i) all |= row[i];
    if (all <= kMaxValue) continue;
    for (std::int64_t i = 0; i < features.shape[1]; ++i) {
      if (row[i] > kMaxValue) {
        fail(std::string(op) + ": features must be values 0 to " + std::to_string(kMaxValue) + ", got " +
             std::to_string(row[i]) + " in row " + std::to_string(n));
      }
    }
  }
}

// The values of one row of a layer, which may be anywhere on CUDA.
void check_in(const char* op, const std::string& name, const TensorView& v, std::int64_t most) {
  if (v.device.type != DeviceType::cpu) return;
  for (std::int64_t j = 0; j < v.shape[0]; ++j) {
    const std::int64_t value = v.as<const std::int32_t>()[j * v.stride[0]];
    if (value < 0 || value > most) {
      fail(std::string(op) + ": " + name + " must be in [0, " + std::to_string(most) + "], got " +
           std::to_string(value));
    }
  }
}

// That no sum passes 32 bits, whatever the weights and the values below are.
void check_sums(const char* op, const std::string& layer, const IntegerLayer& of) {
  const std::int64_t k = of.weight.shape[1], terms = product_of(k, kMaxValue * kMaxWeight);
  if (terms > kMaxSum) {
    fail(std::string(op) + ": " + layer + ".weight must be of at most " +
         std::to_string(kMaxSum / (kMaxValue * kMaxWeight)) + " columns, got " + std::to_string(k));
  }
  if (of.bias.device.type != DeviceType::cpu) return;
  for (std::int64_t j = 0; j < of.bias.shape[0]; ++j) {
    const std::int64_t bias = of.bias.as<const std::int32_t>()[j * of.bias.stride[0]];
    if ((bias < 0 ? -bias : bias) > kMaxSum - terms) {
      fail(std::string(op) + ": " + layer + ".bias must be at most " + std::to_string(kMaxSum - terms) +
           " in size beside " + std::to_string(k) + " columns of weights, got " + std::to_string(bias));
    }
  }
}

}  // namespace

void check_integer_gram(const IntegerGramArgs& a) {
  const char* op = "integer_gram";
  const Checker check(op, "features", a.features.device);
  check.tensor("features", a.features, {DType::uint8}, {{"N"}, {"M"}});
  const Dim size{"M", a.features.shape[1]};
  check.sizes({{"N", a.features.shape[0]}, size});  // so that no sum passes 64 bits
  check_sign(op, a.sign);
  check.tensor("out", a.out, {DType::int64}, {size, size}, Layout::rows);
  check.apart({{"out", a.out}}, {{"features", a.features}});
  check_values(op, a.features);
}

void check_class_sums(const ClassSumsArgs& a) {
  const char* op = "class_sums";
  const Checker check(op, "features", a.features.device);
  check.tensor("features", a.features, {DType::uint8}, {{"N"}, {"M"}});
  const std::int64_t n = a.features.shape[0], m = a.features.shape[1];
  check.tensor("classes", a.classes, {DType::int64}, {{"N", n}});
  check_sign(op, a.sign);
  check.tensor("out", a.out, {DType::int64}, {{"M", m}, {"C"}}, Layout::rows);
  const std::int64_t c = a.out.shape[1];
  check.sizes({{"M", m}, {"C", c}});
  check.apart({{"out", a.out}}, {{"features", a.features}, {"classes", a.classes}});
  if (a.features.device.type != DeviceType::cpu || is_empty(a.features)) return;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t one = a.classes.as<const std::int64_t>()[i * a.classes.stride[0]];
    if (one < 0 || one >= c) {
      fail(std::string(op) + ": classes must be in [0, C=" + std::to_string(c) + "), got " +
           std::to_string(one) + " in row " + std::to_string(i));
    }
  }
}

void check_integer_features(const IntegerFeaturesArgs& a) {
  const char* op = "integer_features";
  const Checker check(op, "x", a.x.device);
  check.tensor("x", a.x, {DType::float32}, {{"N"}, {"D"}});
  const std::int64_t n = a.x.shape[0];
  const Dim features{"D", a.x.shape[1]};
  check.sizes({features});
  check.tensor("mean", a.mean, {DType::float32}, {features});
  check.tensor("scale", a.scale, {DType::float32}, {features});
  if (a.n_layers == 0) fail(std::string(op) + ": layers must hold one layer at least, got none");
  Dim below = features;
  for (std::int64_t l = 0; l < a.n_layers; ++l) {
    const IntegerLayer& layer = a.layers[l];
    const std::string place = "layers[" + std::to_string(l) + "]";
    const auto named = [&](const char* name) { return place + name; };
    check.tensor(named(".weight").c_str(), layer.weight, {DType::int8}, {{"H"}, below});
    const Dim units{"H", layer.weight.shape[0]};
    check.sizes({units});
    check.tensor(named(".bias").c_str(), layer.bias, {DType::int32}, {units});
    check.tensor(named(".multiplier").c_str(), layer.multiplier, {DType::int32}, {units});
    check_in(op, named(".multiplier"), layer.multiplier, kMaxMultiplier);
    if (layer.shift < 1 || layer.shift > kMaxShift) {
      fail(std::string(op) + ": " + named(".shift") + " must be in [1, " + std::to_string(kMaxShift) +
           "], got " + std::to_string(layer.shift));
    }
    check_sums(op, place, layer);
    below = {"units of the layer before", layer.weight.shape[0]};
  }
  check.tensor("out", a.out, {DType::uint8},
               {{"N", n}, {"H+D+1", sum_of(sum_of(below.size, features.size), 1)}}, Layout::rows);
  check.apart({{"out", a.out}}, {{"x", a.x}, {"mean", a.mean}, {"scale", a.scale}});
  for (std::int64_t l = 0; l < a.n_layers; ++l) {
    check.apart({{"out", a.out}}, {{"layers.weight", a.layers[l].weight},
                                   {"layers.bias", a.layers[l].bias},
                                   {"layers.multiplier", a.layers[l].multiplier}});
  }
}

}  // namespace glai
