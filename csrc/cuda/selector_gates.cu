// selector_gates on CUDA: from arguments to the product in the arithmetic of its type.
#include "cuda/selector_gates.cuh"

#include "core/args.hpp"
#include "cuda/fma_tile.cuh"
#include "cuda/launchers.hpp"
#include "cuda/mma_tile.cuh"

namespace glai {
namespace {

template <class Tile>
void launch_product(const SelectorGatesArgs& args) {
  using T = typename Tile::T;
  SelectorProduct<T> q = {};
  q.device = args.x.device.index;
  q.stream = args.exec.stream;
  q.n = args.x.shape[0];
  q.d = args.x.shape[1];
  q.h = args.weight.shape[0];
  q.x = args.x.as<const T>();
  q.x_stride = args.x.stride[0];
  q.w = args.weight.as<const T>();
  q.w_unit = args.weight.stride[0];
  q.w_depth = args.weight.stride[1];
  q.bias = args.bias ? args.bias->as<const T>() : nullptr;
  q.words = args.words.as<std::uint32_t>();
  q.x_granule = copy_granule(q.x, {q.x_stride});
  q.w_granule = copy_granule(q.w, {q.depth_inner() ? q.w_unit : q.w_depth});
  q.depth_inner() ? launch_selector_gates_blocks<Tile, true>(q)
                  : launch_selector_gates_blocks<Tile, false>(q);
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
