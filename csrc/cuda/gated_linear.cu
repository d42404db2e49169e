// gated_linear on CUDA: from arguments to the product in the arithmetic of its type.
#include "cuda/gated_linear.cuh"

#include "core/args.hpp"
#include "cuda/launchers.hpp"
#include "cuda/tiles/fma_tile.cuh"
#include "cuda/tiles/mma_tile.cuh"

namespace glai {
namespace {

template <class Tile, bool kDepthInner>
void launch_blocks(const LinearProduct<typename Tile::T>& q, const GatedSums<typename Tile::T>& out) {
  launch(LinearBlock<Tile, kDepthInner>::launch_of("gated_linear", q),
         gated_linear_kernel<Tile, kDepthInner>, q, out);
}

template <class Tile>
void launch_product(const GatedLinearArgs& a) {
  using T = typename Tile::T;
  const auto q = linear_product<T>(a.x, a.u, a.bias, a.exec);
  const GatedSums<T> out{a.words.as<const std::uint32_t>(), a.y.as<T>(), a.y.stride[0]};
  q.depth_inner() ? launch_blocks<Tile, true>(q, out) : launch_blocks<Tile, false>(q, out);
}

}  // namespace

// 64 rows by 64 columns: a training step's batch of a few hundred samples by as many paths would leave
// most multiprocessors idle with larger tiles. Not measured on a GPU yet.
void launch_gated_linear(const GatedLinearArgs& a) {
  switch (a.x.dtype) {
    case DType::float64: return launch_product<FmaTile<double, 4, 4>>(a);
    case DType::float16: return launch_product<MmaTile<fp16, 1, 4>>(a);
    case DType::bfloat16: return launch_product<MmaTile<bf16, 1, 4>>(a);
    default: break;
  }
  a.cuda.tf32 ? launch_product<MmaTile<float, 1, 4>>(a) : launch_product<FmaTile<float, 4, 4>>(a);
}

}  // namespace glai
