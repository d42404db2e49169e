// integer_features: from x to bytes. Every machine gives the same: a difference, a product and a
// rounding in float32, then integers.
//
// A block of samples goes through all layers while its values stay in the cache. Weights are packed once
// per call, four values of a unit beside each other, units for lanes; few samples read them as they lie.
#pragma once

#include <cstdint>

#include "core/args.hpp"
#include "core/scratch.hpp"
#include "cpu/parallel.hpp"
#include "cpu/products/dot_tile.hpp"

namespace glai::GLAI_ISA {

constexpr std::int64_t kUnitPanel = kDotColumns<WeightDot>;  // units that a tile is wide
constexpr std::int64_t kFeatureSamples = 48;                 // of a task
static_assert(kFeatureSamples % WeightDot::kRows == 0 && kDotDepth<WeightDot> == 4);
// Up to so many samples, packing the weights would take longer than multiplying them.
constexpr std::int64_t kFewSamples = 8;
constexpr std::int64_t kFewUnits = 32;  // of a task then
constexpr int kMiddle = 64;             // added to q, which becomes a byte

// to = clamp(rint((x - mean) * scale), -63, 63) + kMiddle; NaN counts as -63.
GLAI_ALWAYS_INLINE void quantise(const IntegerFeaturesArgs& a, std::int64_t sample, std::uint8_t* to) {
  // Of floats as large as this the last bit counts ones: adding rounds to the nearest integer, to the
  // even one of two as near.
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
  const float* x = a.x.as<const float>() + sample * a.x.stride[0];
  const float *mean = a.mean.as<const float>(), *scale = a.scale.as<const float>();
  for (std::int64_t k = 0; k < a.x.shape[1]; ++k) {
    const float value = (x[k] - mean[k]) * scale[k];
    const float above = value > -63.0f ? value : -63.0f;
    const float within = above < 63.0f ? above : 63.0f;
    to[k] = static_cast<std::uint8_t>(static_cast<std::int32_t>(within + kRound - kRound) + kMiddle);
  }
}

// Of a sum that fits 32 bits, though what it was added up from may have passed them.
GLAI_ALWAYS_INLINE std::uint8_t rescaled(std::uint32_t sum, std::int32_t multiplier,
                                         std::int64_t shift) {
  const auto of_sign = static_cast<std::int32_t>(sum);
  const auto positive = static_cast<std::uint32_t>(of_sign > 0 ? of_sign : 0);
  const std::uint64_t product = std::uint64_t{positive} * static_cast<std::uint32_t>(multiplier);
  const std::uint64_t value = (product + (std::uint64_t{1} << (shift - 1))) >> shift;
  return static_cast<std::uint8_t>(value < 127 ? value : 127);
}

// A layer whose weights are packed: [panels, kVecs, quads, ByteSums::width, 4], less WeightDot::kOffset;
// units and values that are not there 0.
struct PackedLayer {
  std::int64_t units, panels, values, quads;
  std::int64_t shift;
  std::uint8_t* weights;
  std::uint32_t* bias;  // [panels * kUnitPanel], of the first layer less kMiddle times the weights' sums
  std::int32_t* multiplier;  // [panels * kUnitPanel]
};

GLAI_ALWAYS_INLINE void pack_units(const IntegerLayer& layer, bool first, std::int64_t panel,
                                   const PackedLayer& to) {
  static_assert(WeightDot::kOffset == 0 || WeightDot::kOffset == -128);
  constexpr std::uint8_t flip = WeightDot::kOffset == 0 ? 0 : 128;
  constexpr std::int64_t width = ByteSums::width;
  const std::int64_t begin = panel * kUnitPanel, whole = to.values / 4;
  for (std::int64_t c = 0; c < kUnitPanel; ++c) {
    std::uint8_t* quads = to.weights + 4 * ((begin + c / width * width) * to.quads + c % width);
    to.bias[begin + c] = 0;
    to.multiplier[begin + c] = 0;
    if (begin + c >= to.units) {
      for (std::int64_t q = 0; q < to.quads; ++q) __builtin_memset(quads + 4 * q * width, 0, 4);
      continue;
    }
    const auto* weight = layer.weight.as<const std::int8_t>() + (begin + c) * layer.weight.stride[0];
    for (std::int64_t q = 0; q < whole; ++q) {
      std::uint32_t quad;
      __builtin_memcpy(&quad, weight + 4 * q, 4);
      quad ^= flip * 0x01010101u;
      __builtin_memcpy(quads + 4 * q * width, &quad, 4);
    }
    for (std::int64_t k = 4 * whole; k < 4 * to.quads; ++k) {
      const auto byte = static_cast<std::uint8_t>(k < to.values ? weight[k] ^ flip : 0);
      quads[4 * whole * width + k % 4] = byte;
    }
    std::int32_t sum = 0;
    for (std::int64_t k = 0; first && k < to.values; ++k) sum += weight[k];
    to.bias[begin + c] = static_cast<std::uint32_t>(layer.bias.as<const std::int32_t>()[begin + c]) -
                         static_cast<std::uint32_t>(kMiddle * sum);
    to.multiplier[begin + c] = layer.multiplier.as<const std::int32_t>()[begin + c];
  }
}

// n rows of values below, `step` bytes apart, those behind the last value 0, to bytes of the units.
GLAI_ALWAYS_INLINE void apply_layer(const PackedLayer& layer, const std::uint8_t* below,
                                    std::int64_t step, std::int64_t n, std::uint8_t* to,
                                    std::int64_t to_step) {
  constexpr int rows = WeightDot::kRows;
  std::uint32_t owed[kFeatureSamples] = {};
  if constexpr (WeightDot::kOffset != 0) {
    for (std::int64_t i = 0; i < n; ++i) {
      std::uint32_t sum = 0;
      for (std::int64_t k = 0; k < layer.values; ++k) sum += below[i * step + k];
      owed[i] = static_cast<std::uint32_t>(WeightDot::kOffset) * sum;
    }
  }
  for (std::int64_t p = 0; p < layer.panels; ++p) {
    const std::int64_t first = p * kUnitPanel;
    const std::int64_t units = layer.units - first < kUnitPanel ? layer.units - first : kUnitPanel;
    for (std::int64_t i = 0; i < n; i += rows) {
      std::int32_t sums[rows * kUnitPanel];
      dot_tile<WeightDot, rows>({below + i * step, step, 4, layer.weights + first * layer.quads * 4,
                                 4 * ByteSums::width * layer.quads, layer.quads},
                                false, sums);
      for (std::int64_t r = 0; r < rows && i + r < n; ++r) {
        std::uint8_t bytes[kUnitPanel];
        for (std::int64_t c = 0; c < kUnitPanel; ++c) {
          const auto sum = static_cast<std::uint32_t>(sums[r * kUnitPanel + c]);
          bytes[c] = rescaled(sum + layer.bias[first + c] + owed[i + r], layer.multiplier[first + c],
                              layer.shift);
        }
        std::uint8_t* row = to + (i + r) * to_step + first;
        for (std::int64_t c = 0; c < units; ++c) row[c] = bytes[c];
      }
    }
  }
}

// sum_k values[k] * weight[k]
GLAI_ALWAYS_INLINE std::int32_t dot(const std::uint8_t* values, const std::int8_t* weight,
                                    std::int64_t count) {
  std::int32_t sum = 0;
  std::int64_t k = 0;
  if constexpr (WeightDot::kOffset == 0) {
    constexpr std::int64_t width = 4 * ByteSums::width;
    ByteSums lanes = ByteSums::zero();
    for (; k + width <= count; k += width) {
      lanes = WeightDot::plus(lanes, WeightDot::columns(values + k, 0),
                              WeightDot::columns(reinterpret_cast<const std::uint8_t*>(weight) + k, 0));
    }
    std::int32_t parts[ByteSums::width];
    lanes.store(parts);
    for (const std::int32_t part : parts) sum += part;
  }
  for (; k < count; ++k) sum += values[k] * weight[k];
  return sum;
}

// All of a call of few samples, layer by layer, units over threads.
inline void few_integer_features(const IntegerFeaturesArgs& a) {
  const std::int64_t n = a.x.shape[0], d = a.x.shape[1];
  std::int64_t widest = d;
  for (std::int64_t l = 0; l < a.n_layers; ++l) {
    widest = a.layers[l].weight.shape[0] > widest ? a.layers[l].weight.shape[0] : widest;
  }
  ScratchSizes sizes;
  const auto below_at = sizes.add<std::uint8_t>(n * widest);
  const auto above_at = sizes.add<std::uint8_t>(n * widest);
  const auto middle_at = sizes.add<std::uint8_t>(d);
  std::byte* memory = scratch(Scratch::call, sizes.bytes());
  auto* below = reinterpret_cast<std::uint8_t*>(memory + below_at);
  auto* above = reinterpret_cast<std::uint8_t*>(memory + above_at);
  auto* middle = reinterpret_cast<std::uint8_t*>(memory + middle_at);
  for (std::int64_t k = 0; k < d; ++k) middle[k] = kMiddle;
  std::uint8_t* out = a.out.as<std::uint8_t>();
  const std::int64_t stride = a.out.stride[0], q_at = a.out.shape[1] - d - 1;
  for (std::int64_t i = 0; i < n; ++i) {
    quantise(a, i, below + i * widest);
    for (std::int64_t k = 0; k < d; ++k) out[i * stride + q_at + k] = below[i * widest + k];
    out[i * stride + q_at + d] = 127;
  }
  for (std::int64_t l = 0; l < a.n_layers; ++l) {
    const IntegerLayer& layer = a.layers[l];
    const std::int64_t units = layer.weight.shape[0], values = layer.weight.shape[1];
    const bool last = l + 1 == a.n_layers;
    std::uint8_t* to = last ? out : above;
    const std::int64_t to_stride = last ? stride : widest;
    parallel_for(
        (units + kFewUnits - 1) / kFewUnits,
        static_cast<double>(n * units) * static_cast<double>(values) / 8, a.exec.threads,
        [&](std::int64_t task) {
          const std::int64_t begin = task * kFewUnits;
          for (std::int64_t j = begin; j < begin + kFewUnits && j < units; ++j) {
            const auto* weight = layer.weight.as<const std::int8_t>() + j * layer.weight.stride[0];
            const auto bias = static_cast<std::uint32_t>(layer.bias.as<const std::int32_t>()[j]) -
                              static_cast<std::uint32_t>(l == 0 ? dot(middle, weight, values) : 0);
            for (std::int64_t i = 0; i < n; ++i) {
              const auto sum = static_cast<std::uint32_t>(dot(below + i * widest, weight, values));
              to[i * to_stride + j] =
                  rescaled(sum + bias, layer.multiplier.as<const std::int32_t>()[j], layer.shift);
            }
          }
        });
    std::uint8_t* read = below;
    below = above;
    above = read;
  }
}

// A task: samples [begin, begin + n), n <= kFeatureSamples, through all layers. `step`: bytes from one
// sample's values to the next's.
GLAI_ALWAYS_INLINE void block_of_features(const IntegerFeaturesArgs& a, const PackedLayer* layers,
                                          std::int64_t step, std::int64_t begin, std::int64_t n) {
  ScratchSizes sizes;
  const auto below_at = sizes.add<std::uint8_t>(kFeatureSamples * step);
  const auto above_at = sizes.add<std::uint8_t>(kFeatureSamples * step);
  std::byte* memory = scratch(Scratch::task, sizes.bytes());
  auto* below = reinterpret_cast<std::uint8_t*>(memory + below_at);
  auto* above = reinterpret_cast<std::uint8_t*>(memory + above_at);
  const std::int64_t d = a.x.shape[1], stride = a.out.stride[0], q_at = a.out.shape[1] - d - 1;
  std::uint8_t* out = a.out.as<std::uint8_t>() + begin * stride;
  for (std::int64_t i = 0; i < n; ++i) {
    quantise(a, begin + i, below + i * step);
    for (std::int64_t k = 0; k < d; ++k) out[i * stride + q_at + k] = below[i * step + k];
    out[i * stride + q_at + d] = 127;
  }
  for (std::int64_t l = 0; l < a.n_layers; ++l) {
    const PackedLayer& layer = layers[l];
    for (std::int64_t i = 0; i < kFeatureSamples; ++i) {
      for (std::int64_t k = i < n ? layer.values : 0; k < 4 * layer.quads; ++k) below[i * step + k] = 0;
    }
    const bool last = l + 1 == a.n_layers;
    apply_layer(layer, below, step, n, last ? out : above, last ? stride : step);
    std::uint8_t* read = below;
    below = above;
    above = read;
  }
}

inline void integer_features(const IntegerFeaturesArgs& a) {
  const std::int64_t n = a.x.shape[0];
  if (n <= kFewSamples) return few_integer_features(a);
  ScratchSizes sizes;
  const auto layers_at = sizes.add<PackedLayer>(a.n_layers);
  const auto first_panels_at = sizes.add<std::int64_t>(a.n_layers + 1);
  std::int64_t panels = 0, weight_bytes = 0, widest = 0;
  const auto padded = [](std::int64_t size, std::int64_t to) { return (size + to - 1) / to * to; };
  double work = 0;
  for (std::int64_t l = 0; l < a.n_layers; ++l) {
    const TensorView& weight = a.layers[l].weight;
    const std::int64_t units = padded(weight.shape[0], kUnitPanel), values = padded(weight.shape[1], 4);
    panels += units / kUnitPanel;
    weight_bytes += units * values;
    widest = values > widest ? values : widest;
    work += static_cast<double>(units) * static_cast<double>(values);
  }
  const auto weights_at = sizes.add<std::uint8_t>(weight_bytes);
  const auto bias_at = sizes.add<std::uint32_t>(panels * kUnitPanel);
  const auto multiplier_at = sizes.add<std::int32_t>(panels * kUnitPanel);
  std::byte* memory = scratch(Scratch::call, sizes.bytes());
  auto* layers = reinterpret_cast<PackedLayer*>(memory + layers_at);
  auto* first_panels = reinterpret_cast<std::int64_t*>(memory + first_panels_at);
  auto* weights = reinterpret_cast<std::uint8_t*>(memory + weights_at);
  auto* bias = reinterpret_cast<std::uint32_t*>(memory + bias_at);
  auto* multiplier = reinterpret_cast<std::int32_t*>(memory + multiplier_at);
  first_panels[0] = 0;
  for (std::int64_t l = 0; l < a.n_layers; ++l) {
    const TensorView& weight = a.layers[l].weight;
    const std::int64_t units = padded(weight.shape[0], kUnitPanel), values = padded(weight.shape[1], 4);
    layers[l] = {weight.shape[0],
                 units / kUnitPanel,
                 weight.shape[1],
                 values / 4,
                 a.layers[l].shift,
                 weights,
                 bias,
                 multiplier};
    first_panels[l + 1] = first_panels[l] + units / kUnitPanel;
    weights += units * values;
    bias += units;
    multiplier += units;
  }
  parallel_for(panels, work, a.exec.threads, [&](std::int64_t task) {
    std::int64_t l = 0;
    while (task >= first_panels[l + 1]) ++l;
    pack_units(a.layers[l], l == 0, task - first_panels[l], layers[l]);
  });
  parallel_for((n + kFeatureSamples - 1) / kFeatureSamples, work * static_cast<double>(n),
               a.exec.threads, [&](std::int64_t task) {
                 const std::int64_t begin = task * kFeatureSamples;
                 block_of_features(a, layers, padded(widest, 4), begin,
                                   n - begin < kFeatureSamples ? n - begin : kFeatureSamples);
               });
}

}  // namespace glai::GLAI_ISA
