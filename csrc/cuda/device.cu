// Is there a device, and the table of the ops that run on it.
#include "cuda/device.hpp"

#include <cuda_runtime.h>

#include "core/dispatch.hpp"
#include "cuda/launchers.hpp"

namespace glai {

const OpTable kCuda = {
    launch_pack_gates,
    nullptr,  // unpack_gates
    nullptr,  // gate_counts
    nullptr,  // gate_hamming
    nullptr,  // path_gates
    nullptr,  // gated_matmul
    nullptr,  // gated_matmul_input_grad
    nullptr,  // gated_matmul_weight_grad
    nullptr,  // path_kernel
    nullptr,  // path_gram
};

std::string cuda_unavailable_reason() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    cudaGetLastError();  // the failed query must not become the next launch's error
    if (error == cudaErrorInsufficientDriver) return "no NVIDIA driver, or one too old for this build";
    return cudaGetErrorString(error);
  }
  return count > 0 ? "" : "no CUDA device";
}

}  // namespace glai
