// Around every launch: the tensor's device made current, the error looked at.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace glai {

inline void check_cuda(const char* op, cudaError_t error) {
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string(op) + ": CUDA error: " + cudaGetErrorString(error));
  }
}

class DeviceGuard {
 public:
  DeviceGuard(const char* op, int device) {
    check_cuda(op, cudaGetDevice(&previous_));
    check_cuda(op, cudaSetDevice(device));
  }
  ~DeviceGuard() { cudaSetDevice(previous_); }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int previous_ = 0;
};

}  // namespace glai
