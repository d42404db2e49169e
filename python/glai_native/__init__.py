from glai_native.backend import build_info
from glai_native.gates import PackedGates
from glai_native.ops import gated_matmul, gated_matmul_input_grad, gated_matmul_weight_grad, pack_gates, path_gates
