// Which form a gated product takes on CUDA. A function of shapes and of what the host knows of the
// gates: it affects speed alone, so an estimate will do, and no one looks at the gates themselves.
#pragma once

#include <cstdint>
#include <optional>

#include "core/args.hpp"
#include "core/plan.hpp"

namespace glai {

// density: mean of the gates. deviation: mean over paths of min(pi, 1 - pi), pi = how often one is on.
struct GateEstimate {
  double density, deviation;
};

struct CudaFormChoice {
  Form form;  // dense, compaction or reference
  // What the model expects each form to cost, in cycles of a multiprocessor per path and step of depth;
  // 0: not considered.
  double dense, compaction, reference;
};

// estimate: absent where nothing is known. tensor_cores: products of float16, bfloat16 and tf32.
CudaFormChoice choose_cuda_form(const GatedShape& shape, bool tensor_cores,
                                const std::optional<GateEstimate>& estimate);

// What a product on CUDA is given besides its tensors.
struct CudaProductPlan {
  Form form;
  std::int64_t slices;           // of partial sums, each as large as y; 1: no memory is needed
  std::int64_t reference_words;  // int32, of the reference form's workspace
};

// y [N, C]: of a product that sums over P = n_gates paths and `depth` columns. form: the one that is
// forced, and then nobody looks whether the reference is safe, or automatic.
CudaProductPlan plan_cuda_product(const TensorView& y, std::int64_t n_gates, std::int64_t depth,
                                  bool tf32, const std::optional<GateEstimate>& estimate, Form form);

}  // namespace glai
