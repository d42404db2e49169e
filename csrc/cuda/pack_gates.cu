// pack_gates on CUDA: a warp reads 32 neighbouring gates of a sample and votes their word.
#include "core/args.hpp"
#include "core/gates.hpp"
#include "cuda/launch.cuh"
#include "cuda/launchers.hpp"

namespace glai {
namespace {

constexpr int kWarpsPerBlock = 8;

template <class T>
__global__ void pack_gates_kernel(const T* bits, std::int64_t row_stride, std::int64_t n, std::int64_t p,
                                  std::uint32_t* words) {
  const std::int64_t w = words_per_row(p);
  const std::int64_t n_warps = static_cast<std::int64_t>(gridDim.x) * kWarpsPerBlock;
  const int lane = threadIdx.x % 32;
  // The loop bound is the same for all lanes of a warp, so every vote is complete.
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / 32;
       i < n * w; i += n_warps) {
    const std::int64_t row = i / w, gate = i % w * kWordBits + lane;
    const bool on = gate < p && bits[row * row_stride + gate] > T(0);
    const std::uint32_t word = __ballot_sync(0xffffffffu, on);
    if (lane == 0) words[i] = word;
  }
}

template <class T>
void launch(const PackGatesArgs& a) {
  const std::int64_t n = a.bits.shape[0], p = a.bits.shape[1];
  const std::int64_t n_words = n * words_per_row(p);
  if (n_words == 0) return;
  const DeviceGuard guard("pack_gates", a.bits.device.index);
  constexpr std::int64_t kMaxBlocks = 1 << 16;
  const std::int64_t blocks = (n_words + kWarpsPerBlock - 1) / kWarpsPerBlock;
  const auto grid = static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks);
  pack_gates_kernel<<<grid, kWarpsPerBlock * 32, 0, static_cast<cudaStream_t>(a.exec.stream)>>>(
      a.bits.as<const T>(), a.bits.stride[0], n, p, a.words.as<std::uint32_t>());
  check_cuda("pack_gates", cudaGetLastError());
}

}  // namespace

void launch_pack_gates(const PackGatesArgs& args) {
  switch (args.bits.dtype) {
    case DType::float32: return launch<float>(args);
    case DType::float64: return launch<double>(args);
    default: return launch<std::uint8_t>(args);  // bool
  }
}

}  // namespace glai
