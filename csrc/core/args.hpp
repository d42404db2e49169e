// One struct per op: all that a kernel is told. Shapes use N samples, P paths (or gates), D features,
// C outputs; words are the packed gates of core/gates.hpp.
#pragma once

#include <cstdint>
#include <optional>

#include "core/tensor.hpp"

namespace glai {

// Where an op runs: CPU kernels read threads, CUDA launchers read stream.
struct Execution {
  int threads = 1;
  void* stream = nullptr;
};

// The ways of computing a gated product: dense on CUDA only, subset_sums on the CPU only.
// automatic lets plan_gated_matmul choose; who allocates for CUDA asks choose_cuda_form before.
enum class Form : std::uint8_t { automatic, compaction, subset_sums, reference, dense };

// What the operands of a gated product of float32 are rounded to; sums are in float32 always. Automatic
// is fp32 on the CPU, and on CUDA what CudaProduct::tf32 says.
enum class Precision : std::uint8_t { automatic, fp32, tf32, bf16 };

struct PackGatesArgs {
  TensorView bits;   // bool, float32 or float64 [N, P]; a float is on when > 0
  TensorView words;  // int32 [N, W], written
  Execution exec;
};

struct UnpackGatesArgs {
  TensorView words;  // int32 [N, W]
  std::int64_t n_gates;
  TensorView bits;  // bool [N, P], written
  Execution exec;
};

struct GateCountsArgs {
  TensorView words;  // int32 [N, W]
  std::int64_t n_gates;
  TensorView counts;  // int64 [P], written
  Execution exec;
};

struct GateHammingArgs {
  TensorView words_a, words_b;  // int32 [N, W]
  std::int64_t n_gates;
  TensorView distance;  // int64 [N], written
  Execution exec;
};

// One step of the path product: the units of a layer (the always-on unit is appended here, last)
// times the path gates of the layers behind it.
struct PathGatesArgs {
  TensorView unit_words;  // int32 [N, words(n_units)]
  std::int64_t n_units;
  TensorView inner_words;  // int32 [N, words(n_inner)]
  std::int64_t n_inner;
  TensorView words;  // int32 [N, words((n_units + 1) * n_inner)], written
  Execution exec;
};

// What a product on CUDA is told besides; the CPU ignores it.
struct CudaProduct {
  bool tf32 = false;  // float32 operands may be rounded to tf32
  // Workspace for partial sums. y, dx: [slices, N, columns], of the reference and of each split of the
  // paths. dw: [splits, P, D+1, C], of each split of the samples; biases last.
  std::optional<TensorView> partial;
  std::optional<TensorView> gate_columns;  // dw, gram: int32 [P, ceil(N/32)], workspace: gates by path
  // y, dx in the reference form: int32, workspace as reference_memory says; without room for norms
  // nobody looks whether the reference is safe.
  std::optional<TensorView> reference = std::nullopt;
};

// Bit h of sample n: bias[h] + sum_d x[n,d] * weight[h,d] > 0; NaN is off
struct SelectorGatesArgs {
  TensorView x;                    // [N, D]
  TensorView weight;               // [H, D], stride 1 in H or D
  std::optional<TensorView> bias;  // [H]
  TensorView words;                // int32 [N, words(H)], written
  Execution exec;
  CudaProduct cuda = {};
};

// y[n,p] = g[n,p] * (bias[p] + sum_d x[n,d] * u[p,d]); 0 where the gate is off, whatever the sum
struct GatedLinearArgs {
  TensorView x;      // [N, D]
  TensorView words;  // int32 [N, W]
  std::int64_t n_gates;
  TensorView u;                    // [P, D], stride 1 in P or D
  std::optional<TensorView> bias;  // [P]
  TensorView y;                    // [N, P], written
  Execution exec;
  CudaProduct cuda = {};
};

// out[n,p] = g[n,p] * values[n,p]; 0 where the gate is off, whatever the value
struct ApplyGatesArgs {
  TensorView values;  // [N, P]
  TensorView words;   // int32 [N, W]
  std::int64_t n_gates;
  TensorView out;  // [N, P], written
  Execution exec;
};

// y[n,c] = sum_p g[n,p] * (b[p,c] + sum_d x[n,d] * w[p,d,c])
struct GatedMatmulArgs {
  TensorView x;      // [N, D]
  TensorView words;  // int32 [N, W]
  std::int64_t n_gates;
  TensorView weight;               // [P, D, C], stride 1 in D or C
  std::optional<TensorView> bias;  // [P, C]
  TensorView y;                    // [N, C], written
  Form form;
  Execution exec;
  CudaProduct cuda = {};
  Precision precision = Precision::automatic;
};

// dx[n,d] = sum_p g[n,p] * sum_c dy[n,c] * w[p,d,c]
struct GatedMatmulInputGradArgs {
  TensorView dy;     // [N, C]
  TensorView words;  // int32 [N, W]
  std::int64_t n_gates;
  TensorView weight;  // [P, D, C], stride 1 in D or C
  TensorView dx;      // [N, D], written
  Form form;
  Execution exec;
  CudaProduct cuda = {};
  Precision precision = Precision::automatic;
};

// dw[p,d,c] (+)= sum_n g[n,p] * x[n,d] * dy[n,c];  db[p,c] (+)= sum_n g[n,p] * dy[n,c]
struct GatedMatmulWeightGradArgs {
  TensorView x;      // [N, D]
  TensorView words;  // int32 [N, W]
  std::int64_t n_gates;
  TensorView dy;                 // [N, C]
  TensorView dw;                 // [P, D, C], written or added to
  std::optional<TensorView> db;  // [P, C], likewise
  bool accumulate;
  Form form;
  Execution exec;
  CudaProduct cuda = {};
  Precision precision = Precision::automatic;
};

// Decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), as torch.optim.AdamW computes it.
struct AdamW {
  double learning_rate, beta1, beta2, eps, weight_decay;
};

// Steps of AdamW on the mean loss of batches. Features are x and, last, the bias feature 1.
// Full paths: parameters [P, D+1, C]. Output directions V: u and beta [D+1, P], then path o's [D+1, C].
struct TrainStepsArgs {
  TensorView x;      // [N, D]
  TensorView words;  // int32 [N, W]
  std::int64_t n_gates;
  TensorView targets;                       // int64 [N]: softmax cross-entropy; [N, C]: squared error
  std::optional<TensorView> sample_weight;  // [N]
  TensorView order;                         // int64 [S], samples, batch after batch
  std::int64_t batch_size;
  std::optional<TensorView> directions;  // V [P, C], the last row zero

  TensorView parameters, exp_avg, exp_avg_sq;  // [K], updated
  TensorView mean;                             // [K], updated: the mean of the iterates so far
  std::int64_t step, averaged;                 // steps taken before; of those, how many are in the mean
  AdamW adamw;

  // Workspace of one batch of B samples.
  TensorView batch_x;                        // [B, D+1]; with directions the last columns of `hidden`
  TensorView batch_words;                    // int32 [B, W]
  TensorView output;                         // [B, C]
  TensorView gradient;                       // [K]
  TensorView row_losses;                     // float64 [B]
  std::optional<TensorView> hidden;          // [B, P+D+1]: g * (z.u + beta), and the features
  std::optional<TensorView> hidden_grad;     // [B, P]
  std::optional<TensorView> output_weights;  // [P+D+1, C]: V, and path o's weights

  TensorView losses;  // float64 [steps], written: the mean loss of each batch before its step
  Execution exec;
};

// Steps of Adam on the mean loss of batches of a ReLU network: hidden layers of H units, then C outputs.
// Flat vectors hold, layer by layer, its weight [units, units of the layer before or D], then its bias.
struct StructureStepsArgs {
  TensorView x;                             // [N, D]
  TensorView targets;                       // int64 [N]: softmax cross-entropy; [N, C]: squared error
  std::optional<TensorView> sample_weight;  // [N]
  TensorView order;                         // int64 [S], samples, batch after batch

  TensorView parameters, exp_avg, exp_avg_sq;  // [K], updated
  std::int64_t step;                           // steps taken before
  AdamW adamw;                                 // without decay

  // Workspace of one batch of B samples.
  TensorView batch_x;              // [B, D]
  const TensorView* hidden;        // n_hidden of [B, H]: activations, then the gradients by them
  const TensorView* hidden_words;  // n_hidden of int32 [B, words(H)]: which of them are > 0
  std::int64_t n_hidden;
  TensorView output;      // [B, C]
  TensorView gradient;    // [K]
  TensorView row_losses;  // float64 [B]

  TensorView losses;  // float64 [steps], written: the mean loss of each batch before its step
  Execution exec;
};

// Unit bits of one hidden layer, of the samples a and b; the always-on unit is not among them.
struct UnitLayerPair {
  TensorView words_a, words_b;  // int32 [Na, W], [Nb, W]
  std::int64_t n_units;
};

constexpr int kMaxCudaLayers = 16;  // that a kernel is passed

// out[n,m] = (xa[n] . xb[m] + 1) * prod over layers of (units on in both n and m + 1)
struct PathKernelArgs {
  TensorView xa, xb;            // [Na, D], [Nb, D]
  const UnitLayerPair* layers;  // n_layers of them
  std::int64_t n_layers;
  bool symmetric;  // b is a
  TensorView out;  // [Na, Nb], written
  Execution exec;
  CudaProduct cuda = {};
};

// out[(p,d),(q,e)] += sum_n s[n] * g[n,p] * g[n,q] * x~[n,d] * x~[n,e] where (p,d) <= (q,e); x~ is x
// and, last, the bias feature 1
struct PathGramArgs {
  TensorView x;      // [N, D]
  TensorView words;  // int32 [N, W]
  std::int64_t n_gates;
  std::optional<TensorView> sample_weight;  // s, [N]
  TensorView features;                      // [N, D+1], workspace: x~
  std::optional<TensorView> weighted;       // [N, D+1], workspace: s * x~, there when sample_weight is
  TensorView out;                           // [P*(D+1), P*(D+1)], added to
  Execution exec;
  CudaProduct cuda = {};
};

// out[i,j] += sign * sum_n features[n,i] * features[n,j] where i <= j
struct IntegerGramArgs {
  TensorView features;  // uint8 [N, M], values 0 to 127
  std::int64_t sign;    // 1, or -1: takes samples out again
  TensorView out;       // int64 [M, M], added to
  Execution exec;
};

// out[i,c] += sign * sum over the samples n of class c of features[n,i]
struct ClassSumsArgs {
  TensorView features;  // uint8 [N, M]
  TensorView classes;   // int64 [N], in [0, C)
  std::int64_t sign;    // 1 or -1
  TensorView out;       // int64 [M, C], added to
  Execution exec;
};

// h[j] = min(127, (max(sum_k below[k] * weight[j,k] + bias[j], 0) * multiplier[j] + 2^(shift-1)) >>
// shift)
struct IntegerLayer {
  TensorView weight;      // int8 [H, K]
  TensorView bias;        // int32 [H]
  TensorView multiplier;  // int32 [H], in [0, 2^16)
  std::int64_t shift;     // 1 to 62
};

// q = clamp(rint((x - mean) * scale), -63, 63) in float32, then the layers, then out = (h, q + 64, 127)
struct IntegerFeaturesArgs {
  TensorView x;                // float32 [N, D]
  TensorView mean, scale;      // float32 [D]
  const IntegerLayer* layers;  // n_layers of them, one at least, the first first
  std::int64_t n_layers;
  TensorView out;  // uint8 [N, H + D + 1], H units of the last layer, written
  Execution exec;
};

// Of a path selector.
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

// What a whole model makes of raw x (core/model_output.hpp).
struct ModelOutputArgs {
  TensorView x;                              // [N, I]
  std::optional<ProjectionArgs> projection;  // none: z = x
  const SelectorLayer* layers;               // n_layers hidden ones, the first first
  std::int64_t n_layers;
  TensorView weight;  // [P, D, C]; with directions u
  TensorView bias;    // [P, C]; with directions beta
  std::optional<DirectionsArgs> directions;
  TensorView y;  // [N, C], written
  Execution exec;
};

}  // namespace glai
