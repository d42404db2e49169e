// Gate bits on CUDA: packing, unpacking, counting, comparing, applying, and the path product.
#include "core/args.hpp"
#include "core/gates.hpp"
#include "cuda/launchers.hpp"
#include "cuda/tiles/gate_bits.cuh"
#include "cuda/tiles/launch.cuh"

namespace glai {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;

// Blocks for `count` pieces of work, `per_block` at a time: kernels go on where there are more.
std::int64_t blocks_for(std::int64_t count, std::int64_t per_block) {
  constexpr std::int64_t kEnough = 1 << 16;
  const std::int64_t blocks = (count + per_block - 1) / per_block;
  return blocks < kEnough ? blocks : kEnough;
}

GLAI_DEVICE std::int64_t first_thread() { return block_index() * kThreads + thread_index(); }
GLAI_DEVICE std::int64_t first_warp() { return block_index() * kWarps + warp_index(); }

// A warp reads 32 neighbouring gates of a sample and votes their word.
template <class T>
GLAI_KERNEL(kThreads)
pack_gates_kernel(const T* bits, std::int64_t row_stride, std::int64_t n, std::int64_t p,
                  std::uint32_t* words) {
  const std::int64_t w = words_per_row(p);
  for (std::int64_t i = first_warp(); i < n * w; i += block_count() * kWarps) {
    const std::int64_t row = i / w, gate = i % w * kWordBits + lane_index();
    const std::uint32_t word = ballot(gate < p && bits[row * row_stride + gate] > T(0));
    if (lane_index() == 0) words[i] = word;
  }
}

GLAI_KERNEL(kThreads)
unpack_gates_kernel(const std::uint32_t* words, std::int64_t n, std::int64_t p, std::uint8_t* bits) {
  const std::int64_t w = words_per_row(p);
  for (std::int64_t i = first_thread(); i < n * p; i += block_count() * kThreads) {
    const std::int64_t row = i / p, gate = i % p;
    bits[i] = words[row * w + gate / kWordBits] >> (gate % kWordBits) & 1u;
  }
}

// A block counts the 32 gates of one word; its warps take samples in turns, each lane counts one gate.
GLAI_KERNEL(kThreads)
gate_counts_kernel(const std::uint32_t* words, std::int64_t n, std::int64_t p, std::int64_t* counts) {
  const std::int64_t w = words_per_row(p);
  auto* of_warps = reinterpret_cast<std::int64_t*>(shared_memory());  // [kWarps, 32]
  for (std::int64_t j = block_index(); j < w; j += block_count()) {
    std::int64_t count = 0;
    for (std::int64_t first = warp_index() * kWarpSize; first < n; first += kThreads) {
      const std::int64_t row = first + lane_index();
      count += popcount(transpose_bits(row < n ? words[row * w + j] : 0u));
    }
    of_warps[thread_index()] = count;
    sync_block();
    const std::int64_t gate = j * kWordBits + thread_index();
    if (thread_index() < kWordBits && gate < p) {
      for (int i = 1; i < kWarps; ++i) count += of_warps[i * kWordBits + thread_index()];
      counts[gate] = count;
    }
    sync_block();
  }
}

GLAI_KERNEL(kThreads)
gate_hamming_kernel(const std::uint32_t* words_a, const std::uint32_t* words_b, std::int64_t n,
                    std::int64_t w, std::int64_t* distance) {
  for (std::int64_t row = first_warp(); row < n; row += block_count() * kWarps) {
    std::uint32_t count = 0;
    for (std::int64_t j = row * w + lane_index(); j < (row + 1) * w; j += kWarpSize) {
      count += static_cast<std::uint32_t>(popcount(words_a[j] ^ words_b[j]));
    }
    count = warp_sum(count);
    if (lane_index() == 0) distance[row] = count;
  }
}

// A thread makes one word: path q is unit q / n_inner (the last one always on) and inner path q %
// n_inner.
GLAI_KERNEL(kThreads)
path_gates_kernel(const std::uint32_t* unit_words, std::int64_t n_units,
                  const std::uint32_t* inner_words, std::int64_t n_inner, std::int64_t n,
                  std::uint32_t* words) {
  const std::int64_t w_unit = words_per_row(n_units), w_inner = words_per_row(n_inner);
  const std::int64_t n_paths = (n_units + 1) * n_inner, w = words_per_row(n_paths);
  for (std::int64_t i = first_thread(); i < n * w; i += block_count() * kThreads) {
    const std::uint32_t* units = unit_words + i / w * w_unit;
    const std::uint32_t* inner = inner_words + i / w * w_inner;
    const std::int64_t begin = i % w * kWordBits;
    std::int64_t unit = begin / n_inner, path = begin % n_inner;
    std::uint32_t word = 0;
    for (int b = 0; b < kWordBits && begin + b < n_paths; ++b) {
      const std::uint32_t on = unit == n_units ? 1u : units[unit / kWordBits] >> (unit % kWordBits) & 1u;
      word |= (on & inner[path / kWordBits] >> (path % kWordBits)) << b;
      if (++path == n_inner) {
        path = 0;
        ++unit;
      }
    }
    words[i] = word;
  }
}

// A warp turns a word of 32 samples into a word of each of 32 gates.
GLAI_KERNEL(kThreads)
gate_columns_kernel(const std::uint32_t* words, std::int64_t n, std::int64_t p, std::uint32_t* columns) {
  const std::int64_t w = words_per_row(p), w_columns = words_per_row(n);
  for (std::int64_t i = first_warp(); i < w * w_columns; i += block_count() * kWarps) {
    const std::int64_t row = i / w * kWordBits + lane_index();
    const std::int64_t gate = i % w * kWordBits + lane_index();
    const std::uint32_t column = transpose_bits(row < n ? words[row * w + i % w] : 0u);
    if (gate < p) columns[gate * w_columns + i / w] = column;
  }
}

// A warp takes the 32 values of one word of gates; Bits: an integer as wide as a value.
template <class Bits>
GLAI_KERNEL(kThreads)
apply_gates_kernel(const Bits* values, std::int64_t row_stride, const std::uint32_t* words,
                   std::int64_t n, std::int64_t p, Bits* out, std::int64_t out_stride) {
  const std::int64_t w = words_per_row(p);
  for (std::int64_t i = first_warp(); i < n * w; i += block_count() * kWarps) {
    const std::int64_t row = i / w, gate = i % w * kWordBits + lane_index();
    const bool on = (words[i] >> lane_index() & 1u) != 0;
    if (gate < p) out[row * out_stride + gate] = on ? values[row * row_stride + gate] : Bits{0};
  }
}

template <class T>
void launch_pack_gates_of(const PackGatesArgs& a) {
  const std::int64_t n = a.bits.shape[0], p = a.bits.shape[1];
  launch({"pack_gates", a.bits.device.index, a.exec.stream, blocks_for(n * words_per_row(p), kWarps),
          kThreads},
         pack_gates_kernel<T>, a.bits.as<const T>(), a.bits.stride[0], n, p,
         a.words.as<std::uint32_t>());
}

template <class Bits>
void launch_apply_gates_of(const ApplyGatesArgs& a) {
  const std::int64_t n = a.values.shape[0], p = a.n_gates;
  launch({"apply_gates", a.values.device.index, a.exec.stream, blocks_for(n * words_per_row(p), kWarps),
          kThreads},
         apply_gates_kernel<Bits>, a.values.as<const Bits>(), a.values.stride[0],
         a.words.as<const std::uint32_t>(), n, p, a.out.as<Bits>(), a.out.stride[0]);
}

}  // namespace

void launch_pack_gates(const PackGatesArgs& a) {
  switch (a.bits.dtype) {
    case DType::float32: return launch_pack_gates_of<float>(a);
    case DType::float64: return launch_pack_gates_of<double>(a);
    default: return launch_pack_gates_of<std::uint8_t>(a);  // bool
  }
}

void launch_unpack_gates(const UnpackGatesArgs& a) {
  const std::int64_t n = a.words.shape[0];
  launch({"unpack_gates", a.words.device.index, a.exec.stream, blocks_for(n * a.n_gates, kThreads),
          kThreads},
         unpack_gates_kernel, a.words.as<const std::uint32_t>(), n, a.n_gates,
         a.bits.as<std::uint8_t>());
}

void launch_apply_gates(const ApplyGatesArgs& a) {
  switch (a.values.dtype) {
    case DType::float64: return launch_apply_gates_of<std::uint64_t>(a);
    case DType::float32: return launch_apply_gates_of<std::uint32_t>(a);
    default: return launch_apply_gates_of<std::uint16_t>(a);  // float16, bfloat16
  }
}

void launch_gate_counts(const GateCountsArgs& a) {
  launch({"gate_counts", a.words.device.index, a.exec.stream, blocks_for(words_per_row(a.n_gates), 1),
          kThreads, kThreads * sizeof(std::int64_t)},
         gate_counts_kernel, a.words.as<const std::uint32_t>(), a.words.shape[0], a.n_gates,
         a.counts.as<std::int64_t>());
}

void launch_gate_hamming(const GateHammingArgs& a) {
  const std::int64_t n = a.words_a.shape[0];
  launch({"gate_hamming", a.words_a.device.index, a.exec.stream, blocks_for(n, kWarps), kThreads},
         gate_hamming_kernel, a.words_a.as<const std::uint32_t>(), a.words_b.as<const std::uint32_t>(),
         n, words_per_row(a.n_gates), a.distance.as<std::int64_t>());
}

void launch_path_gates(const PathGatesArgs& a) {
  const std::int64_t n = a.unit_words.shape[0];
  const std::int64_t w = words_per_row((a.n_units + 1) * a.n_inner);
  launch({"path_gates", a.unit_words.device.index, a.exec.stream, blocks_for(n * w, kThreads), kThreads},
         path_gates_kernel, a.unit_words.as<const std::uint32_t>(), a.n_units,
         a.inner_words.as<const std::uint32_t>(), a.n_inner, n, a.words.as<std::uint32_t>());
}

void launch_gate_columns(const char* op, const TensorView& words, std::int64_t n_gates,
                         const TensorView& columns, const Execution& exec) {
  const std::int64_t n = words.shape[0];
  launch({op, words.device.index, exec.stream,
          blocks_for(words_per_row(n) * words_per_row(n_gates), kWarps), kThreads},
         gate_columns_kernel, words.as<const std::uint32_t>(), n, n_gates, columns.as<std::uint32_t>());
}

}  // namespace glai
