// How a gated product is computed: which form, and how many gates a group takes. A function of shapes
// and popcounts alone, so that the result does not depend on the threads.
#pragma once

#include <cstdint>
#include <string>

#include "core/args.hpp"

namespace glai {

constexpr int kMaxGroupGates = 5;

// Of at most so many features the sums of weights are kept in registers (cpu/few_features.hpp).
constexpr std::int64_t kRegisterFeatures = 12;

// N samples, P paths, D features, C outputs (of the product: the input gradient swaps D and C).
struct GatedShape {
  std::int64_t n, p, d, c;
};

struct GatedMatmulPlan {
  Form form;
  int group_gates;   // gates taken together
  bool by_features;  // on the CPU: vectors are filled with features, where outputs are few
  double any_on;     // how often a group is expected to have any gate on
  // What the model expects each form to cost, per path, in rows multiplied by a vector of weights; not
  // taken into account: 0.
  double compaction, subset_sums, reference;
};

// Memory for what a plan says of each path.
struct PathOrder {
  std::int32_t* order;     // [P]: paths as groups take them
  std::uint8_t* majority;  // [P]: reference form: 1 where most samples have the path on
};

// Whether each sample is multiplied alone, by the sum of the weights that it has on.
bool plan_takes_samples_alone(const GatedShape& shape);

// Whether the product of N samples with one sum of weights fills vectors with features; P does not
// count.
bool plan_sums_by_features(const GatedShape& shape);

// density: mean of the gates (where all are on, callers take one product with the sum of all weights,
// and ask only for a form that is forced). counts: in how many samples each path is on [P]; null: the
// reference form is not considered. `paths` is written.
GatedMatmulPlan plan_gated_matmul(const GatedShape& shape, double density, const std::int64_t* counts,
                                  Form form, const PathOrder& paths);
GatedMatmulPlan plan_gated_matmul_weight_grad(const GatedShape& shape, double density, Form form);

// What a plan was made from, and the plan: for people who ask why a form was chosen.
struct GatedMatmulExplanation {
  double density, deviation;
  bool sums_first;  // weights are summed before one product: all gates are on, or samples few
  GatedMatmulPlan plan;
};

// words on the CPU; op: "gated_matmul", "gated_matmul_input_grad" or "gated_matmul_weight_grad", D and C
// those of the weight.
GatedMatmulExplanation explain_gated_matmul(const std::string& op, const TensorView& words,
                                            std::int64_t n_gates, std::int64_t d, std::int64_t c);

// Whether counts may change the plan enough to be worth taking.
bool plan_wants_counts(const GatedShape& shape, double density, Form form);

}  // namespace glai
