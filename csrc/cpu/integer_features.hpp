// integer_features: from x to bytes. Every machine gives the same: a subtraction, a product and a
// rounding in float32, then integers.
#pragma once

#include <cstdint>

#include "core/args.hpp"
#include "core/scratch.hpp"
#include "cpu/parallel.hpp"

namespace glai::GLAI_ISA {

constexpr std::int64_t kFeatureSamples = 64;  // a task's

// to = clamp(rint((x - mean) * scale), -63, 63) + 64; NaN counts as -63.
GLAI_ALWAYS_INLINE void quantise(const float* x, const TensorView& mean, const TensorView& scale,
                                 std::int64_t d, std::uint8_t* to) {
  // Of floats as large as this the last bit counts ones: adding rounds to the nearest integer, even ones
  // where two are as near.
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
  for (std::int64_t k = 0; k < d; ++k) {
    const float value = (x[k] - mean.as<const float>()[k * mean.stride[0]]) *
                        scale.as<const float>()[k * scale.stride[0]];
    const float above = value > -63.0f ? value : -63.0f;
    const float within = above < 63.0f ? above : 63.0f;
    to[k] = static_cast<std::uint8_t>(static_cast<std::int32_t>(within + kRound - kRound) + 64);
  }
}

GLAI_ALWAYS_INLINE std::uint8_t rescaled(std::int64_t sum, std::int64_t multiplier, std::int64_t shift) {
  const std::int64_t positive = sum > 0 ? sum : 0;
  const std::int64_t value = (positive * multiplier + (std::int64_t{1} << (shift - 1))) >> shift;
  return static_cast<std::uint8_t>(value < 127 ? value : 127);
}

// Below are the K values of the layer before, less offset.
GLAI_ALWAYS_INLINE void apply_layer(const IntegerLayer& layer, const std::uint8_t* below, int offset,
                                    std::uint8_t* h) {
  const std::int64_t units = layer.weight.shape[0], k = layer.weight.shape[1];
  for (std::int64_t j = 0; j < units; ++j) {
    const std::int8_t* weight = layer.weight.as<const std::int8_t>() + j * layer.weight.stride[0];
    std::int32_t sum = layer.bias.as<const std::int32_t>()[j * layer.bias.stride[0]];
    for (std::int64_t i = 0; i < k; ++i) sum += (below[i] - offset) * weight[i];
    h[j] = rescaled(sum, layer.multiplier.as<const std::int32_t>()[j * layer.multiplier.stride[0]],
                    layer.shift);
  }
}

inline void integer_features(const IntegerFeaturesArgs& a) {
  const std::int64_t n = a.x.shape[0], d = a.x.shape[1], width = a.out.shape[1];
  std::int64_t widest = 0;
  double work = 0;
  for (std::int64_t l = 0; l < a.n_layers; ++l) {
    const TensorView& weight = a.layers[l].weight;
    widest = weight.shape[0] > widest ? weight.shape[0] : widest;
    work += static_cast<double>(n) * static_cast<double>(weight.shape[0] * weight.shape[1]);
  }
  parallel_for((n + kFeatureSamples - 1) / kFeatureSamples, work, a.exec.threads,
               [&](std::int64_t task) {
                 ScratchSizes sizes;
                 const auto one_at = sizes.add<std::uint8_t>(widest);
                 const auto other_at = sizes.add<std::uint8_t>(widest);
                 std::byte* memory = scratch(Scratch::task, sizes.bytes());
                 auto* one = reinterpret_cast<std::uint8_t*>(memory + one_at);
                 auto* other = reinterpret_cast<std::uint8_t*>(memory + other_at);
                 const std::int64_t begin = task * kFeatureSamples;
                 const std::int64_t end = n - begin < kFeatureSamples ? n : begin + kFeatureSamples;
                 for (std::int64_t i = begin; i < end; ++i) {
                   std::uint8_t* out = a.out.as<std::uint8_t>() + i * a.out.stride[0];
                   std::uint8_t* q = out + width - d - 1;
                   quantise(a.x.as<const float>() + i * a.x.stride[0], a.mean, a.scale, d, q);
                   out[width - 1] = 127;
                   const std::uint8_t* below = q;
                   for (std::int64_t l = 0; l < a.n_layers; ++l) {
                     std::uint8_t* h = l + 1 == a.n_layers ? out : below == one ? other : one;
                     apply_layer(a.layers[l], below, l == 0 ? 64 : 0, h);
                     below = h;
                   }
                 }
               });
}

}  // namespace glai::GLAI_ISA
