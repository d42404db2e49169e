// model_output: what a whole model makes of raw x, in one call. It has no kernel of its own: the ops'
// checks and kernels run one after another. For few samples on the CPU, where calls cost more than they
// compute.
#pragma once

#include <optional>
#include <vector>

#include "core/args.hpp"

namespace glai {

struct SelectorLayer {
  TensorView weight;  // [H, units of the layer before, or D], stride 1 in either
  TensorView bias;    // [H]
};

// Of an input projection, z = (x - mean) * rotation * scale.
struct ProjectionArgs {
  TensorView mean;                     // [I]
  TensorView scale;                    // float32 or float64 []
  std::optional<TensorView> rotation;  // [I, D]; without it D = I
};

// Of an estimator along output directions, besides u [P, D] and beta [P].
struct DirectionsArgs {
  TensorView directions;                      // V [P, C]
  TensorView constant_weight, constant_bias;  // of the constant path, [D, C] and [C]
};

struct ModelOutputArgs {
  TensorView x;                              // [N, I]
  std::optional<ProjectionArgs> projection;  // none: z = x
  std::vector<SelectorLayer> layers;         // hidden layers, the first first
  TensorView weight;                         // [P, D, C]; with directions u
  TensorView bias;                           // [P, C]; with directions beta
  std::optional<DirectionsArgs> directions;
  TensorView y;  // [N, C], written
  Execution exec;
};

void model_output(const ModelOutputArgs& args);

}  // namespace glai
