// What gated_matmul and its input gradient compute, whatever the form: the arguments of their kernels,
// and the sum of what the splits of the paths gave.
#pragma once

#include "core/args.hpp"
#include "core/gates.hpp"
#include "cuda/tiles/launch.cuh"
#include "cuda/tiles/numbers.cuh"
#include "cuda/tiles/pipeline.cuh"

namespace glai {

// y[n,c] = sum_p g[n,p] (bias[p,c] + sum_k a[n,k] w[p,k,c])
template <class T>
struct GatedProduct {
  const char* op;
  int device;
  void* stream;
  std::int64_t n, p, depth, c;
  const T* a;
  std::int64_t a_stride;
  const std::uint32_t* words;
  const T* w;
  std::int64_t w_path, w_depth, w_column;  // strides; w_depth or w_column is 1
  const T* bias;                           // or null
  std::int64_t bias_stride;
  T* y;
  std::int64_t y_stride;
  SumOf<T>* partial;    // [slices, N, C], or null where there is one
  std::int64_t splits;  // of the paths: a slice each, behind the reference's
  Form form;            // dense, compaction or reference
  std::int64_t rows;    // of y that a block of the dense form owns
  int a_granule, w_granule, bias_granule, reference_granule;  // copy_granule of the rows

  // Of the reference form, otherwise null. majority: a row of words, and whether it is safe to use.
  std::uint32_t* majority;
  SumOf<T>* reference;  // [depth + 1, C]: sums of the majority's weights and, last, of its biases
  SumOf<T>* norms;      // [2, P, C], or null where safety is not looked at

  GLAI_DEVICE std::uint32_t majority_word(std::int64_t word) const {
    return majority != nullptr && majority[words_per_row(p)] != 0 ? majority[word] : 0u;
  }

  GLAI_HOST_DEVICE std::int64_t slices() const { return splits + (form == Form::reference ? 1 : 0); }

  // Whether a row of the weights lies along the depth. The stride of a dimension of size 1 says nothing.
  bool depth_inner() const { return c == 1 ? w_depth == 1 : w_column != 1; }

  // Of path p's weights, from (k, c) on along the depth or along the columns.
  template <bool kDepthInner>
  GLAI_DEVICE Chunk<T> weights(std::int64_t path, std::int64_t k, std::int64_t column) const {
    const bool inside = path < p && (kDepthInner ? column < c : k < depth);
    return {w + path * w_path + k * w_depth + column * w_column,
            inside ? (kDepthInner ? depth - k : c - column) : 0};
  }

  GLAI_DEVICE SumOf<T> bias_of(std::int64_t path, std::int64_t column) const {
    const bool some = bias != nullptr && path < p && column < c;
    return some ? widen(bias[path * bias_stride + column]) : 0;
  }

  GLAI_DEVICE void store_slice(std::int64_t slice, std::int64_t row, std::int64_t column,
                               SumOf<T> sum) const {
    if (row < n && column < c) partial[(slice * n + row) * c + column] = sum;
  }

  // y, or what this split gives of it.
  GLAI_DEVICE void store(std::int64_t split, std::int64_t row, std::int64_t column, SumOf<T> sum) const {
    if (partial != nullptr) {
      store_slice(slices() - splits + split, row, column, sum);
    } else if (row < n && column < c) {
      y[row * y_stride + column] = narrow<T>(sum);
    }
  }
};

// y = the partial sums, in order.
template <class T>
GLAI_KERNEL(256)
sum_slices_kernel(GatedProduct<T> q) {
  for (std::int64_t i = block_index() * 256 + thread_index(); i < q.n * q.c; i += block_count() * 256) {
    SumOf<T> sum = 0;
    for (std::int64_t slice = 0; slice < q.slices(); ++slice) sum += q.partial[slice * q.n * q.c + i];
    q.y[i / q.c * q.y_stride + i % q.c] = narrow<T>(sum);
  }
}

template <class T>
void launch_sum_slices(const GatedProduct<T>& q) {
  if (q.partial == nullptr) return;
  const std::int64_t blocks = (q.n * q.c + 255) / 256;
  launch({q.op, q.device, q.stream, blocks < 65536 ? blocks : 65536, 256}, sum_slices_kernel<T>, q);
}

}  // namespace glai
