// The ops that run on CUDA.
#include "core/dispatch.hpp"
#include "cuda/launchers.hpp"

namespace glai {

const OpTable kCuda = {
    launch_pack_gates,
    launch_unpack_gates,
    launch_gate_counts,
    launch_gate_hamming,
    launch_path_gates,
    launch_selector_gates,
    launch_gated_linear,
    launch_apply_gates,
    launch_gated_matmul,
    launch_gated_matmul_input_grad,
    launch_gated_matmul_weight_grad,
    launch_path_kernel,
    launch_path_gram,
    launch_integer_gram,
    nullptr,  // class_sums
    nullptr,  // integer_features
    nullptr,  // train_steps: on a GPU the loop is torch's, its step captured in a graph
    nullptr,  // structure_steps: likewise torch's
};

}  // namespace glai
