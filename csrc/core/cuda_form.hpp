// Which form a gated product takes on CUDA. A function of shapes and of what the host knows of the
// gates: it affects speed alone, so an estimate will do, and no one looks at the gates themselves.
#pragma once

#include <optional>

#include "core/args.hpp"
#include "core/plan.hpp"

namespace glai {

struct CudaFormChoice {
  Form form;  // dense or compaction
  // What the model expects each form to cost, in rows of 64 bytes loaded per path and 64 bytes of depth;
  // 0: not considered.
  double dense, compaction;
};

// density: mean of the gates, absent where it is not known. tensor_cores: products of float16, bfloat16
// and tf32.
CudaFormChoice choose_cuda_form(const GatedShape& shape, bool tensor_cores,
                                std::optional<double> density);

}  // namespace glai
