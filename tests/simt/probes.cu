// One kernel per group of primitives, each a warp that applies them to words given per lane: what the
// device does is compared with what the executor does. Compiled for either; a shared library with one C
// function.
#include "cuda/tiles/launch.cuh"
#include "cuda/tiles/numbers.cuh"

namespace glai {
namespace {

constexpr int kWords = 16;  // in and out, per lane

GLAI_DEVICE float float_of(std::uint32_t word) {
#ifdef __CUDACC__
  return __uint_as_float(word);
#else
  return std::bit_cast<float>(word);
#endif
}

GLAI_KERNEL(kWarpSize)
probe_words(const std::uint32_t* in, std::uint32_t* out) {
  const std::uint32_t* w = in + lane_index() * kWords;
  std::uint32_t* o = out + lane_index() * kWords;
  o[0] = ballot((w[0] & 1u) != 0);
  o[1] = shuffle(w[0], static_cast<int>(w[1] % kWarpSize));
  o[2] = shuffle_up(w[0], 5);
  o[3] = static_cast<std::uint32_t>(popcount(w[0]));
  o[4] = round_to_tf32(w[2]);
  o[5] = narrow<fp16>(float_of(w[2])).bits;
  o[6] = narrow<bf16>(float_of(w[2])).bits;
  o[7] = bits_of(widen(fp16{static_cast<std::uint16_t>(w[3])}));
  o[8] = bits_of(widen(bf16{static_cast<std::uint16_t>(w[3])}));
  o[9] = static_cast<std::uint32_t>(block_index() * block_count() + warp_index());
  o[10] = byte_permute(w[0], w[1], 0x6420u);
  o[11] = byte_permute(w[0], w[1], w[2] & 0x7777u);
}

// Each lane copies words [0, 4) of its own, w[4] % 17 bytes of them, and as word 5 w[6] % 5; reads what
// its neighbour copied.
GLAI_KERNEL(kWarpSize)
probe_copies(const std::uint32_t* in, std::uint32_t* out) {
  const std::uint32_t* w = in + lane_index() * kWords;
  auto* shared = reinterpret_cast<std::uint32_t*>(shared_memory());
  copy_async<16>(shared + 4 * lane_index(), w, static_cast<int>(w[4] % 17));
  copy_async<4>(shared + 4 * kWarpSize + lane_index(), w + 5, static_cast<int>(w[6] % 5));
  commit_copies();
  commit_copies();  // an empty group
  wait_copies<1>();
  sync_block();
  const int neighbour = (lane_index() + 1) % kWarpSize;
  for (int i = 0; i < 4; ++i) out[lane_index() * kWords + i] = shared[4 * neighbour + i];
  out[lane_index() * kWords + 4] = shared[4 * kWarpSize + neighbour];
}

// Each lane's words [0, 4) are a row.
GLAI_KERNEL(kWarpSize)
probe_matrices(const std::uint32_t* in, std::uint32_t* out) {
  auto* shared = reinterpret_cast<std::uint32_t*>(shared_memory());
  for (int i = 0; i < 4; ++i) shared[4 * lane_index() + i] = in[lane_index() * kWords + i];
  sync_block();
  std::uint32_t plain[4], transposed[4];
  load_matrices(plain, shared + 4 * lane_index());
  load_matrices_transposed(transposed, shared + 4 * lane_index());
  for (int i = 0; i < 4; ++i) {
    out[lane_index() * kWords + i] = plain[i];
    out[lane_index() * kWords + 4 + i] = transposed[i];
  }
}

// Words: acc, a, b.
template <void (*kMma)(float (&)[4], const std::uint32_t (&)[4], const std::uint32_t (&)[2])>
GLAI_KERNEL(kWarpSize)
probe_mma(const std::uint32_t* in, std::uint32_t* out) {
  const std::uint32_t* w = in + lane_index() * kWords;
  float acc[4] = {float_of(w[0]), float_of(w[1]), float_of(w[2]), float_of(w[3])};
  const std::uint32_t a[4] = {w[4], w[5], w[6], w[7]}, b[2] = {w[8], w[9]};
  kMma(acc, a, b);
  for (int i = 0; i < 4; ++i) out[lane_index() * kWords + i] = bits_of(acc[i]);
}

GLAI_KERNEL(kWarpSize)
probe_mma_bytes(const std::uint32_t* in, std::uint32_t* out) {
  const std::uint32_t* w = in + lane_index() * kWords;
  std::int32_t acc[4];
  for (int i = 0; i < 4; ++i) acc[i] = static_cast<std::int32_t>(w[i]);
  const std::uint32_t a[4] = {w[4], w[5], w[6], w[7]}, b[2] = {w[8], w[9]};
  mma_bytes(acc, a, b);
  for (int i = 0; i < 4; ++i) out[lane_index() * kWords + i] = static_cast<std::uint32_t>(acc[i]);
}

// What no GPU does: refused by the executor.
GLAI_KERNEL(kWarpSize)
probe_unaligned_matrices(const std::uint32_t*, std::uint32_t* out) {
  std::uint32_t to[4];
  load_matrices(to, shared_memory() + 16 * lane_index() + 4);
  out[lane_index()] = to[0];
}

GLAI_KERNEL(kWarpSize)
probe_divergent_mma(const std::uint32_t* in, std::uint32_t* out) {
  const std::uint32_t a[4] = {in[0], in[1], in[2], in[3]}, b[2] = {in[4], in[5]};
  float acc[4] = {}, other[4] = {};
  if (lane_index() < 16) {
    mma_bf16(acc, a, b);
  } else {
    mma_bf16(other, a, b);
    mma_bf16(acc, a, b);
  }
  out[lane_index()] = bits_of(acc[0] + other[0]);
}

}  // namespace
}  // namespace glai

// in, out: uint32 [32, 16], where the kernel runs. Returns what went wrong, or null.
extern "C" __attribute__((visibility("default"))) const char* glai_probe(const char* name,
                                                                         const std::uint32_t* in,
                                                                         std::uint32_t* out) {
  using namespace glai;
  static const struct {
    const char* name;
    void (*kernel)(const std::uint32_t*, std::uint32_t*);
  } probes[] = {{"words", probe_words},
                {"copies", probe_copies},
                {"matrices", probe_matrices},
                {"mma_fp16", probe_mma<mma_fp16>},
                {"mma_bf16", probe_mma<mma_bf16>},
                {"mma_tf32", probe_mma<mma_tf32>},
                {"mma_bytes", probe_mma_bytes},
                {"unaligned matrices", probe_unaligned_matrices},
                {"divergent mma", probe_divergent_mma}};
  static std::string error;
  for (const auto& probe : probes) {
    if (std::string(name) != probe.name) continue;
    try {
      launch({"glai_probe", 0, nullptr, 1, kWarpSize, 20 * kWarpSize}, probe.kernel, in, out);
#ifdef __CUDACC__
      check_cuda("glai_probe", cudaDeviceSynchronize());
#endif
      return nullptr;
    } catch (const std::exception& e) {
      error = e.what();
      return error.c_str();
    }
  }
  return "no such probe";
}
