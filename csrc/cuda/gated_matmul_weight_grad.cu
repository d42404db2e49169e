// gated_matmul_weight_grad on CUDA: gates turned to bits over samples, then the product of each path.
#include "cuda/gated_matmul_weight_grad.cuh"

#include "core/args.hpp"
#include "core/tiling.hpp"
#include "cuda/launchers.hpp"
#include "cuda/tiles/fma_tile.cuh"
#include "cuda/tiles/mma_tile.cuh"

namespace glai {
namespace {

template <class Narrow, class Wide>
void launch_products(const GatedMatmulWeightGradArgs& a) {
  using T = typename Narrow::T;
  static_assert(Narrow::kRows == weight_grad_rows(sizeof(SumOf<T>), true));
  static_assert(Wide::kRows == weight_grad_rows(sizeof(SumOf<T>), false));
  static_assert(16 * Narrow::kUnits == weight_grad_columns(true));
  static_assert(16 * Wide::kUnits == weight_grad_columns(false));
  WeightGradProduct<T> q = {};
  q.device = a.x.device.index;
  q.stream = a.exec.stream;
  q.n = a.x.shape[0];
  q.p = a.n_gates;
  q.d = a.x.shape[1];
  q.c = a.dy.shape[1];
  q.x = a.x.as<const T>();
  q.x_stride = a.x.stride[0];
  q.dy = a.dy.as<const T>();
  q.dy_stride = a.dy.stride[0];
  q.columns = a.cuda.gate_columns->as<const std::uint32_t>();
  q.dw = a.dw.as<T>();
  q.dw_path = a.dw.stride[0];
  q.dw_row = a.dw.stride[1];
  if (a.db) {
    q.db = a.db->as<T>();
    q.db_path = a.db->stride[0];
  }
  q.accumulate = a.accumulate;
  q.splits = 1;
  if (a.cuda.partial) {
    q.partial = a.cuda.partial->as<SumOf<T>>();
    q.splits = a.cuda.partial->shape[0];
  }
  q.x_granule = copy_granule(q.x, {q.x_stride});
  q.dy_granule = copy_granule(q.dy, {q.dy_stride});
  q.c <= 16 ? launch_weight_grad_tiles<Narrow>(q) : launch_weight_grad_tiles<Wide>(q);
}

}  // namespace

void launch_gated_matmul_weight_grad(const GatedMatmulWeightGradArgs& a) {
  launch_gate_columns("gated_matmul_weight_grad", a.words, a.n_gates, *a.cuda.gate_columns, a.exec);
  switch (a.x.dtype) {
    case DType::float64: return launch_products<FmaTile<double, 4, 1>, FmaTile<double, 4, 4>>(a);
    case DType::float16: return launch_products<MmaTile<fp16, 1, 1>, MmaTile<fp16, 2, 4>>(a);
    case DType::bfloat16: return launch_products<MmaTile<bf16, 1, 1>, MmaTile<bf16, 2, 4>>(a);
    default: break;
  }
  if (a.cuda.tf32) return launch_products<MmaTile<float, 1, 1>, MmaTile<float, 2, 4>>(a);
  launch_products<FmaTile<float, 4, 1>, FmaTile<float, 8, 4>>(a);
}

}  // namespace glai
