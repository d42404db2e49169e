// Launching a kernel: the tensor's device made current, shared memory asked for, the error looked at. On
// the host the executor takes the launch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "cuda/tiles/primitives.cuh"

#ifdef __CUDACC__
#include <cuda_runtime.h>
#endif

namespace glai {

struct Launch {
  const char* op;
  int device;
  void* stream;
  std::int64_t blocks;
  int threads;
  std::size_t shared_bytes = 0;
};

#ifdef __CUDACC__

inline void check_cuda(const char* op, cudaError_t error) {
  if (error != cudaSuccess) {
    cudaGetLastError();  // so that the next launch does not find it
    throw std::runtime_error(std::string(op) + ": CUDA error: " + cudaGetErrorString(error));
  }
}

class DeviceGuard {
 public:
  // Only where it changes anything: making a device current may create its context.
  DeviceGuard(const char* op, int device) : device_(device) {
    check_cuda(op, cudaGetDevice(&previous_));
    if (previous_ != device_) check_cuda(op, cudaSetDevice(device_));
  }
  ~DeviceGuard() {
    if (previous_ != device_) cudaSetDevice(previous_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int device_;
  int previous_ = 0;
};

#endif

// What a block's shared memory may take.
inline std::size_t most_shared_bytes([[maybe_unused]] const char* op, [[maybe_unused]] int device) {
#ifdef __CUDACC__
  int bytes = 0;
  check_cuda(op, cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  return static_cast<std::size_t>(bytes);
#else
  return simt::most_shared_bytes();
#endif
}

// How many bytes a copy of rows at these strides can take at a time: 16 or 4, or 0 where only elements
// will do.
template <class T>
int copy_granule(const T* data, std::initializer_list<std::int64_t> strides) {
  for (const int granule : {16, 4}) {
    bool fits = reinterpret_cast<std::uintptr_t>(data) % granule == 0;
    for (const std::int64_t stride : strides) fits = fits && stride * sizeof(T) % granule == 0;
    if (fits) return granule;
  }
  return 0;
}

// Kernels of no blocks are not launched.
template <class... Parameters, class... Arguments>
void launch(const Launch& l, void (*kernel)(Parameters...), const Arguments&... arguments) {
  if (l.blocks == 0) return;
  constexpr std::int64_t kMostBlocks = 0x7fffffff;
  if (l.blocks > kMostBlocks) {
    throw std::runtime_error(std::string(l.op) + ": needs " + std::to_string(l.blocks) +
                             " blocks, more than one launch takes");
  }
#ifdef __CUDACC__
  const DeviceGuard guard(l.op, l.device);
  constexpr std::size_t kWithoutAsking = 48 * 1024;
  if (l.shared_bytes > kWithoutAsking) {
    check_cuda(l.op, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          static_cast<int>(l.shared_bytes)));
  }
  kernel<<<static_cast<unsigned>(l.blocks), l.threads, l.shared_bytes,
           static_cast<cudaStream_t>(l.stream)>>>(arguments...);
  check_cuda(l.op, cudaGetLastError());
#else
  simt::launch(l.blocks, l.threads, l.shared_bytes, [&] { kernel(arguments...); });
#endif
}

}  // namespace glai
