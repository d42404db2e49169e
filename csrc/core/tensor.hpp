// What the core knows of a tensor: where it lies, what it holds, how it is laid out.
// Nothing here owns memory, and nothing here knows Python, torch or CUDA.
#pragma once

#include <cstdint>

// Every function that a kernel translation unit shares with the rest must be inlined: a copy compiled
// for AVX-512 and merged by the linker would run on machines that lack it.
#define GLAI_ALWAYS_INLINE __attribute__((always_inline)) inline

// For what CPU and CUDA kernels both call.
#ifdef __CUDACC__
#define GLAI_HOST_DEVICE __host__ __device__
#else
#define GLAI_HOST_DEVICE
#endif

namespace glai {

enum class DType : std::uint8_t {
  boolean,
  uint8,
  int8,
  int16,
  int32,
  int64,
  float16,
  bfloat16,
  float32,
  float64,
  other
};

enum class DeviceType : std::uint8_t { cpu, cuda, other };

struct Device {
  DeviceType type = DeviceType::cpu;
  int index = 0;

  GLAI_ALWAYS_INLINE bool operator==(const Device& o) const {
    return type == o.type && (type == DeviceType::cpu || index == o.index);
  }
};

constexpr int kMaxDims = 8;

struct TensorView {
  void* data = nullptr;
  DType dtype = DType::other;
  Device device;
  int ndim = 0;
  std::int64_t shape[kMaxDims] = {};
  // In elements. Of a dimension of size 0 or 1, along which nothing is ever stepped, and of a tensor
  // without elements a contiguous tensor's, whatever Python says: kernels compare and multiply them.
  std::int64_t stride[kMaxDims] = {};

  template <class T>
  GLAI_ALWAYS_INLINE T* as() const {
    return static_cast<T*>(data);
  }
};

GLAI_ALWAYS_INLINE bool is_empty(const TensorView& v) {
  for (int i = 0; i < v.ndim; ++i) {
    if (v.shape[i] == 0) return true;
  }
  return false;
}

}  // namespace glai
