// The ops that run on CUDA.
#include "core/dispatch.hpp"
#include "cuda/launchers.hpp"

namespace glai {

const OpTable kCuda = {
    launch_pack_gates, launch_unpack_gates, launch_gate_counts, launch_gate_hamming, launch_path_gates,
    nullptr,  // gated_matmul
    nullptr,  // gated_matmul_input_grad
    nullptr,  // gated_matmul_weight_grad
    nullptr,  // path_kernel
    nullptr,  // path_gram
};

}  // namespace glai
