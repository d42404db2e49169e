// path_kernel on CUDA: from arguments to the product in the arithmetic of its type.
#include "cuda/path_kernel.cuh"

#include "core/args.hpp"
#include "cuda/launchers.hpp"
#include "cuda/tiles/fma_tile.cuh"
#include "cuda/tiles/mma_tile.cuh"

namespace glai {
namespace {

template <class Tile>
void launch_product(const PathKernelArgs& args) {
  using T = typename Tile::T;
  using Block = PathKernelBlock<Tile>;
  PathKernelProduct<T> q = {};
  q.device = args.xa.device.index;
  q.stream = args.exec.stream;
  q.n = args.xa.shape[0];
  q.m = args.xb.shape[0];
  q.d = args.xa.shape[1];
  q.a = args.xa.as<const T>();
  q.b = args.xb.as<const T>();
  q.a_stride = args.xa.stride[0];
  q.b_stride = args.xb.stride[0];
  q.n_layers = static_cast<int>(args.n_layers);
  for (int l = 0; l < q.n_layers; ++l) {
    const UnitLayerPair& layer = args.layers[l];
    q.layers[l] = {layer.words_a.as<const std::uint32_t>(), layer.words_b.as<const std::uint32_t>(),
                   words_per_row(layer.n_units)};
  }
  q.symmetric = args.symmetric;
  q.out = args.out.as<T>();
  q.out_stride = args.out.stride[0];
  q.a_granule = copy_granule(q.a, {q.a_stride});
  q.b_granule = copy_granule(q.b, {q.b_stride});
  const std::int64_t row_tiles = (q.n + Tile::kRows - 1) / Tile::kRows;
  const std::int64_t column_tiles = (q.m + Block::kColumns - 1) / Block::kColumns;
  launch(
      {"path_kernel", q.device, q.stream, row_tiles * column_tiles, Tile::kThreads, Block::kSharedBytes},
      path_kernel_kernel<Tile>, q);
}

}  // namespace

void launch_path_kernel(const PathKernelArgs& a) {
  switch (a.xa.dtype) {
    case DType::float64: return launch_product<FmaTile<double, 4, 4>>(a);
    case DType::float16: return launch_product<MmaTile<fp16, 2, 8>>(a);
    case DType::bfloat16: return launch_product<MmaTile<bf16, 2, 8>>(a);
    default: break;
  }
  a.cuda.tf32 ? launch_product<MmaTile<float, 2, 8>>(a) : launch_product<FmaTile<float, 8, 8>>(a);
}

}  // namespace glai
