// selector_gates on CUDA: from arguments to the product in the arithmetic of its type.
#include "cuda/selector_gates.cuh"

#include "core/args.hpp"
#include "cuda/launchers.hpp"
#include "cuda/tiles/fma_tile.cuh"
#include "cuda/tiles/mma_tile.cuh"

namespace glai {
namespace {

template <class Tile, bool kDepthInner>
void launch_blocks(const LinearProduct<typename Tile::T>& q, std::uint32_t* words) {
  launch(LinearBlock<Tile, kDepthInner>::launch_of("selector_gates", q),
         selector_gates_kernel<Tile, kDepthInner>, q, words);
}

template <class Tile>
void launch_product(const SelectorGatesArgs& a) {
  const auto q = linear_product<typename Tile::T>(a.x, a.weight, a.bias, a.exec);
  auto* words = a.words.as<std::uint32_t>();
  q.depth_inner() ? launch_blocks<Tile, true>(q, words) : launch_blocks<Tile, false>(q, words);
}

}  // namespace

void launch_selector_gates(const SelectorGatesArgs& a) {
  switch (a.x.dtype) {
    case DType::float64: return launch_product<FmaTile<double, 4, 4>>(a);
    case DType::float16: return launch_product<MmaTile<fp16, 2, 8>>(a);
    case DType::bfloat16: return launch_product<MmaTile<bf16, 2, 8>>(a);
    default: break;
  }
  a.cuda.tf32 ? launch_product<MmaTile<float, 2, 8>>(a) : launch_product<FmaTile<float, 8, 8>>(a);
}

}  // namespace glai
