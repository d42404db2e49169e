// Is there a device?
#include <cuda_runtime.h>

#include "core/dispatch.hpp"

namespace glai {

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
