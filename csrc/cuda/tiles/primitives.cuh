// What kernels ask of the machine, each primitive twice: as CUDA or PTX for the device, and as a call
// into the executor (tests/simt) that runs the same kernels on the host. Kernels use nothing else of
// CUDA, so that every line of them runs where there is no GPU. Warp-wide primitives take all 32 lanes.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#define GLAI_DEVICE __device__ __forceinline__
#define GLAI_KERNEL(threads) __global__ void __launch_bounds__(threads)
// So many blocks are to fit on a multiprocessor: bounds the registers, and lets one block have them all.
#define GLAI_KERNEL_AT_ONCE(threads, blocks) __global__ void __launch_bounds__(threads, blocks)
#define GLAI_UNROLL _Pragma("unroll")
#define GLAI_UNROLL_BY_8 _Pragma("unroll 8")
#else
#include <bit>

#include "simt/executor.hpp"
#include "simt/warp.hpp"
#define GLAI_DEVICE inline
#define GLAI_KERNEL(threads) void
#define GLAI_KERNEL_AT_ONCE(threads, blocks) void
#define GLAI_UNROLL
#define GLAI_UNROLL_BY_8
#endif

namespace glai {

constexpr int kWarpSize = 32;

// --- where a thread is ---

GLAI_DEVICE int thread_index() {
#ifdef __CUDACC__
  return static_cast<int>(threadIdx.x);
#else
  return simt::thread_index();
#endif
}

GLAI_DEVICE std::int64_t block_index() {
#ifdef __CUDACC__
  return blockIdx.x;
#else
  return simt::block_index();
#endif
}

GLAI_DEVICE std::int64_t block_count() {
#ifdef __CUDACC__
  return gridDim.x;
#else
  return simt::block_count();
#endif
}

GLAI_DEVICE int lane_index() { return thread_index() % kWarpSize; }
GLAI_DEVICE int warp_index() { return thread_index() / kWarpSize; }

// The block's shared memory, as many bytes as its launch said, aligned to 16.
GLAI_DEVICE std::byte* shared_memory() {
#ifdef __CUDACC__
  extern __shared__ __align__(16) unsigned char bytes[];
  return reinterpret_cast<std::byte*>(bytes);
#else
  return simt::shared_memory();
#endif
}

// --- meeting others ---

GLAI_DEVICE void sync_block() {
#ifdef __CUDACC__
  __syncthreads();
#else
  simt::sync_block();
#endif
}

// Bit i: what lane i said.
GLAI_DEVICE std::uint32_t ballot(bool on) {
#ifdef __CUDACC__
  return __ballot_sync(0xffffffffu, on);
#else
  return simt::ballot(on);
#endif
}

GLAI_DEVICE std::uint32_t shuffle(std::uint32_t value, int lane) {
#ifdef __CUDACC__
  return __shfl_sync(0xffffffffu, value, lane);
#else
  return simt::shuffle(value, lane);
#endif
}

// The value of the lane `delta` below; the lowest lanes keep theirs.
GLAI_DEVICE std::uint32_t shuffle_up(std::uint32_t value, int delta) {
#ifdef __CUDACC__
  return __shfl_up_sync(0xffffffffu, value, delta);
#else
  return simt::shuffle_up(value, delta);
#endif
}

// --- bits ---

GLAI_DEVICE int popcount(std::uint32_t word) {
#ifdef __CUDACC__
  return __popc(word);
#else
  return std::popcount(word);
#endif
}

GLAI_DEVICE std::uint32_t bits_of(float value) {
#ifdef __CUDACC__
  return __float_as_uint(value);
#else
  return std::bit_cast<std::uint32_t>(value);
#endif
}

// Four bytes out of eight: byte i of the result is the byte of (a, b) that hexadecimal digit i of
// `selector` numbers, those of a first.
GLAI_DEVICE std::uint32_t byte_permute(std::uint32_t a, std::uint32_t b, std::uint32_t selector) {
#ifdef __CUDACC__
  return __byte_perm(a, b, selector);
#else
  const std::uint64_t bytes = std::uint64_t{b} << 32 | a;
  std::uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const auto byte = static_cast<std::uint32_t>(bytes >> (8 * (selector >> (4 * i) & 7u)) & 255u);
    result |= byte << (8 * i);
  }
  return result;
#endif
}

// --- global to shared memory, past the registers ---

#ifdef __CUDACC__
GLAI_DEVICE std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}
#endif

// Starts to copy kSize bytes, 16 or 4, of which those past `bytes` are zero; both places are multiples
// of kSize.
template <int kSize>
GLAI_DEVICE void copy_async(void* to_shared, const void* from, int bytes) {
  static_assert(kSize == 16 || kSize == 4);
#ifdef __CUDACC__
  if constexpr (kSize == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(to_shared)),
                 "l"(from), "r"(bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(shared_address(to_shared)),
                 "l"(from), "r"(bytes)
                 : "memory");
  }
#else
  simt::copy_async(to_shared, from, kSize, bytes);
#endif
}

// The copies started since the last commit are a group.
GLAI_DEVICE void commit_copies() {
#ifdef __CUDACC__
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#else
  simt::commit_copies();
#endif
}

// Waits until at most kPending of this thread's groups are under way.
template <int kPending>
GLAI_DEVICE void wait_copies() {
#ifdef __CUDACC__
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
#else
  simt::wait_copies(kPending);
#endif
}

// --- tensor cores; g = lane / 4, t = lane % 4 ---

// Four matrices of 8 rows of 16 bytes in shared memory; lanes 8i to 8i+7 pass the rows of matrix i.
// to[i]: word t of row g of matrix i.
GLAI_DEVICE void load_matrices(std::uint32_t (&to)[4], const void* row) {
#ifdef __CUDACC__
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
#else
  simt::load_matrices(to, row, false);
#endif
}

// The same, transposed: to[i] holds the 16-bit elements g of rows 2t (lower half) and 2t+1 of matrix i.
GLAI_DEVICE void load_matrices_transposed(std::uint32_t (&to)[4], const void* row) {
#ifdef __CUDACC__
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
#else
  simt::load_matrices(to, row, true);
#endif
}

// acc[16x8] += a[16xK] b[Kx8], K = 16 (fp16, bf16: two in a word) or 8 (tf32).
// acc[0..1]: row g, columns 2t, 2t+1; acc[2..3]: row g+8.
// fp16, bf16: a[0]: row g, k = 2t, 2t+1; a[1]: row g+8; a[2], a[3]: the same, k + 8; b[0]: k = 2t, 2t+1,
// column g; b[1]: k + 8. tf32: a[0]: row g, k = t; a[1]: row g+8; a[2], a[3]: k + 4; b[0]: k = t, column
// g; b[1]: k + 4.
GLAI_DEVICE void mma_fp16(float (&acc)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
#ifdef __CUDACC__
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};\n"
      : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  simt::mma(simt::MmaType::fp16, acc, a, b);
#endif
}

GLAI_DEVICE void mma_bf16(float (&acc)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
#ifdef __CUDACC__
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, "
      "%9}, "
      "{%0, %1, %2, %3};\n"
      : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  simt::mma(simt::MmaType::bf16, acc, a, b);
#endif
}

GLAI_DEVICE void mma_tf32(float (&acc)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
#ifdef __CUDACC__
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};\n"
      : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  simt::mma(simt::MmaType::tf32, acc, a, b);
#endif
}

// acc[16x8] += a[16x32] b[32x8] of unsigned bytes, four in a word, sums in 32 bits. a[0]: row g, k = 4t
// to 4t+3; a[1]: row g+8; a[2], a[3]: the same, k + 16; b[0]: k = 4t to 4t+3, column g; b[1]: k + 16.
GLAI_DEVICE void mma_bytes(std::int32_t (&acc)[4], const std::uint32_t (&a)[4],
                           const std::uint32_t (&b)[2]) {
#ifdef __CUDACC__
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.u8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};\n"
      : "+r"(acc[0]), "+r"(acc[1]), "+r"(acc[2]), "+r"(acc[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  simt::mma_bytes(acc, a, b);
#endif
}

// The nearest tf32 (10 bits of mantissa; ties away from zero) of a float given by its bits.
GLAI_DEVICE std::uint32_t round_to_tf32(std::uint32_t value) {
#ifdef __CUDACC__
  std::uint32_t rounded;
  asm("cvt.rna.tf32.f32 %0, %1;\n" : "=r"(rounded) : "f"(__uint_as_float(value)));
  return rounded;
#else
  // Without a branch: see simt::mma.
  const std::uint32_t finite = 0u - static_cast<std::uint32_t>((value & 0x7f800000u) != 0x7f800000u);
  return (((value + 0x1000u) & 0xffffe000u) & finite) | (value & ~finite);
#endif
}

}  // namespace glai
