// gated_matmul's product: float64 on CUDA cores.
#include "cuda/gated_matmul_products.hpp"
#include "cuda/tiles/fma_tile.cuh"

namespace glai {

void launch_gated_product_fp64(const GatedProduct<double>& q) {
  launch_gated_product<FmaTile<double, 4, 8>, FmaTile<double, 4, 8>, FmaTile<double, 4, 4>,
                       FmaTile<double, 4, 4>>(q);
}

}  // namespace glai
