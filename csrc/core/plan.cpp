#include "core/plan.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "core/checks/check.hpp"
#include "core/dispatch.hpp"

namespace glai {
namespace {

// The model counts rows multiplied by one vector of weights: about 0.6 cycles of a core with two FMA
// units. A group of k gates multiplies the rows that have any of them on, and pays for each of its 2^k -
// 1 subsets: building the sum of its weights, filling up its rows to whole tiles; the weight gradient:
// adding what is summed so far to a path's, and a mispredicted branch; of few features: adding a path's
// weights in registers, and the same branch. Sorting the rows of a group by subset is shared by all
// vectors of weights. Fitted by hand to timings with k forced to 1 to 5, on seven shapes at densities
// 0.5 and 0.1, one thread, AVX-512 on family 6, and looked at again on family 25 (Zen 4), where a subset
// costs 10 rows rather than 16: the order of the k mostly holds, and what 16 rows chose there took 1.02
// times what the best k would, in the geometric mean of 63 products.
struct GroupCosts {
  double subset;         // rows that a subset costs
  double block;          // rows of a block: subsets are paid for once per block
  double several = 0.0;  // rows that a path costs besides, where a group has several gates
};
constexpr GroupCosts kProduct{12.0, 1024.0};
constexpr GroupCosts kFewFeatures{4.0, 256.0};  // sums of weights in registers
constexpr GroupCosts kWeightGrad{4.0, 1024.0, 5.0};
constexpr double kSortRows = 16.0;  // per sample
constexpr double kVectorOutputs = 16.0;
// Reading all weights once more for the norm check, adding up the majority's and turning their sign.
constexpr double kReferenceRows = 30.0;

double sort_rows(const GatedShape& s) {
  const double vectors = static_cast<double>(s.d) * std::ceil(static_cast<double>(s.c) / kVectorOutputs);
  return kSortRows * static_cast<double>(s.n) / std::max(vectors, 1.0);
}

// How often any of k gates is on that are on with probability `on` each, independently.
double any_of(double on, int k) { return 1.0 - std::pow(1.0 - on, k); }

// Cost per path of groups of k gates.
double group_cost(const GatedShape& s, double on, int k, const GroupCosts& costs) {
  const double any = any_of(on, k), blocks = std::ceil(static_cast<double>(s.n) / costs.block);
  const double subsets = static_cast<double>((1 << k) - 1) * costs.subset * blocks;
  return (static_cast<double>(s.n) * any + subsets + sort_rows(s)) / k + (k > 1 ? costs.several : 0.0);
}

// The same where vectors are filled with features, in cycles: of a row and an output a vector of
// products, and taking up and leaving a sum once a panel; of a group and an output a vector of a
// subset's sum, with what it takes to multiply by another, and of a path's weights, which are
// transposed; of a row sorting it. Fitted like the above, on AVX-512 with few outputs C, from 1 to 16,
// and D from 20 to 784.
constexpr double kFeatureLanes = 16.0, kCyclesPerRow = 0.9;
constexpr double kFeatureProduct = 1.1, kFeatureSum = 4.3, kFeatureTable = 8.0, kFeaturePack = 6.0;
constexpr double kFeatureSort = 5.0;
constexpr double kDenseProduct = 0.75, kDenseSum = 7.0;  // of a product with one sum of weights
// As blocks and panels of features are cut, in float32 (gated_matmul_features.hpp).
constexpr double kPanelVectors = 384.0, kFeatureBlockBytes = 655360.0;

// How many subsets of two gates or more some of `rows` are expected to have on.
double occupied_sums(double on, int k, double rows) {
  double count = 0.0, of_size = 1.0;
  for (int size = 0; size <= k; ++size) {
    const double share = std::pow(on, size) * std::pow(1.0 - on, k - size);
    if (size >= 2) count += of_size * (1.0 - std::pow(1.0 - share, rows));
    of_size = of_size * (k - size) / (size + 1);
  }
  return count;
}

double feature_cost(const GatedShape& s, double on, int k) {
  const double n = static_cast<double>(s.n), d = std::max(static_cast<double>(s.d), 1.0);
  const double c = static_cast<double>(s.c), vectors = std::ceil(d / kFeatureLanes);
  const double panels = std::ceil(vectors * c / kPanelVectors);
  const double row_bytes = 64.0 * vectors / std::max(panels, 1.0) + 32.0 * c;
  const double blocks = std::ceil(n / std::min(kProduct.block, kFeatureBlockBytes / row_bytes));
  const double sums = occupied_sums(on, k, n / std::max(blocks, 1.0));
  const double product = n * any_of(on, k) * (vectors * kFeatureProduct + panels * kFeatureSum);
  const double weights = blocks * vectors * (sums * kFeatureTable + k * kFeaturePack);
  return (c * (product + weights) + n * kFeatureSort) / (k * d * kCyclesPerRow);
}

struct Choice {
  int gates = 1;
  bool by_features = false;
  double cost = 0.0;
};

// Which lanes there are to choose from.
enum class Lanes { outputs, any };

Choice choice_of(const GatedShape& s, double on, int k, const GroupCosts& costs, Lanes lanes) {
  const Choice outputs{k, false, group_cost(s, on, k, costs)};
  if (lanes == Lanes::outputs || static_cast<double>(s.c) > kVectorOutputs) return outputs;
  const Choice features{k, true, feature_cost(s, on, k)};
  return features.cost < outputs.cost ? features : outputs;
}

// The cheapest k in [first, kMaxGroupGates].
Choice best_group(const GatedShape& s, double on, int first, const GroupCosts& costs, Lanes lanes) {
  Choice best = choice_of(s, on, first, costs, lanes);
  for (int k = first + 1; k <= kMaxGroupGates; ++k) {
    const Choice choice = choice_of(s, on, k, costs, lanes);
    if (choice.cost < best.cost) best = choice;
  }
  return best;
}

GatedMatmulPlan plan_groups(const GatedShape& s, double density, Form form, const GroupCosts& costs,
                            Lanes lanes) {
  const Choice single = choice_of(s, density, 1, costs, lanes);
  const Choice sums = best_group(s, density, 2, costs, lanes);
  GatedMatmulPlan plan{Form::compaction, 1, single.by_features, density, single.cost, sums.cost, 0.0};
  const bool choose_sums = form == Form::automatic ? sums.cost < single.cost : form == Form::subset_sums;
  if (choose_sums) {
    plan.form = Form::subset_sums;
    plan.group_gates = sums.gates;
    plan.by_features = sums.by_features;
    plan.any_on = any_of(density, sums.gates);
  }
  return plan;
}

}  // namespace

// Weights are then added in whole vectors, whatever C is, and nothing is sorted; but each sample reads
// its weights anew. One thread, AVX-512: one sample took 0.15 to 0.55 of compaction's time, eight 0.6 to
// 0.9 with C = 10; with C = 77 and 100 two took 0.6 to 0.9, and four up to 1.25 (densities 0.5 and 0.1).
bool plan_takes_samples_alone(const GatedShape& s) {
  return s.n <= (static_cast<double>(s.c) <= kVectorOutputs ? 8 : 2);
}

// The weights stay where they are for the next samples, so that a product takes less than in a bucket.
bool plan_sums_by_features(const GatedShape& s) {
  if (static_cast<double>(s.c) > kVectorOutputs) return false;
  const double n = static_cast<double>(s.n), c = static_cast<double>(s.c), d = static_cast<double>(s.d);
  const double vectors = std::ceil(d / kFeatureLanes);
  return c * (n * (vectors * kDenseProduct + kDenseSum) + vectors * kFeaturePack) <
         n * d * kCyclesPerRow;
}

bool plan_wants_counts(const GatedShape& s, double density, Form form) {
  if (form == Form::reference) return true;
  // Counting takes about one operation per gate, a product D * C of them.
  return form == Form::automatic && density < 1.0 && s.n >= 64 && s.d * s.c >= 1024;
}

GatedMatmulPlan plan_gated_matmul(const GatedShape& s, double density, const std::int64_t* counts,
                                  Form form, const PathOrder& paths) {
  std::iota(paths.order, paths.order + s.p, 0);
  std::fill(paths.majority, paths.majority + s.p, std::uint8_t{0});
  const GroupCosts& costs = s.d <= kRegisterFeatures ? kFewFeatures : kProduct;
  GatedMatmulPlan plan = plan_groups(s, density, form, costs, Lanes::any);
  if (counts == nullptr) return plan;

  double deviation = 0.0;
  for (std::int64_t p = 0; p < s.p; ++p) {
    deviation += static_cast<double>(std::min(counts[p], s.n - counts[p]));
  }
  deviation /= std::max(static_cast<double>(s.n * s.p), 1.0);
  const Choice around = best_group(s, deviation, 1, kProduct, Lanes::any);
  plan.reference = around.cost + kReferenceRows + static_cast<double>(s.n) / std::max<double>(s.p, 1.0);
  const double other = plan.form == Form::compaction ? plan.compaction : plan.subset_sums;
  if (form != Form::reference && plan.reference > 0.9 * other) return plan;

  plan.form = Form::reference;
  plan.group_gates = around.gates;
  plan.by_features = around.by_features;
  plan.any_on = any_of(deviation, around.gates);
  for (std::int64_t p = 0; p < s.p; ++p) paths.majority[p] = 2 * counts[p] > s.n ? 1 : 0;
  // Paths that hardly deviate together: most samples then have none of a group's.
  const auto deviates = [&](std::int32_t p) { return std::min(counts[p], s.n - counts[p]); };
  std::stable_sort(paths.order, paths.order + s.p,
                   [&](std::int32_t a, std::int32_t b) { return deviates(a) < deviates(b); });
  return plan;
}

GatedMatmulPlan plan_gated_matmul_weight_grad(const GatedShape& s, double density, Form form) {
  return plan_groups(s, density, form, kWeightGrad, Lanes::outputs);
}

GatedMatmulExplanation explain_gated_matmul(const std::string& op, const TensorView& words,
                                            std::int64_t n_gates, std::int64_t d, std::int64_t c) {
  const bool forward = op == "gated_matmul", input_grad = op == "gated_matmul_input_grad";
  if (!forward && !input_grad && op != "gated_matmul_weight_grad") {
    throw std::invalid_argument(
        "explain_form: op must be 'gated_matmul', 'gated_matmul_input_grad' or "
        "'gated_matmul_weight_grad', got '" +
        op + "'");
  }
  check_explain_form(words, n_gates, d, c);
  std::vector<std::int64_t> counts(static_cast<std::size_t>(n_gates));
  TensorView view;
  view.data = counts.data();
  view.dtype = DType::int64;
  view.ndim = 1;
  view.shape[0] = n_gates;
  view.stride[0] = 1;
  const GateCountsArgs args{words, n_gates, view, {}};
  run("explain_form", &OpTable::gate_counts, words.device, args);

  const GatedShape shape{words.shape[0], n_gates, input_grad ? c : d, input_grad ? d : c};
  GatedMatmulExplanation why{};
  for (const std::int64_t count : counts) {
    why.density += static_cast<double>(count);
    why.deviation += static_cast<double>(std::min(count, shape.n - count));
  }
  const double gates = std::max(static_cast<double>(shape.n * shape.p), 1.0);
  why.density /= gates;
  why.deviation /= gates;
  why.sums_first =
      why.density >= 1.0 || (op != "gated_matmul_weight_grad" && plan_takes_samples_alone(shape));
  std::vector<std::int32_t> order(counts.size());
  std::vector<std::uint8_t> majority(counts.size());
  const bool counted = plan_wants_counts(shape, why.density, Form::automatic);
  why.plan = forward || input_grad
                 ? plan_gated_matmul(shape, why.density, counted ? counts.data() : nullptr,
                                     Form::automatic, {order.data(), majority.data()})
                 : plan_gated_matmul_weight_grad(shape, why.density, Form::automatic);
  return why;
}

}  // namespace glai
