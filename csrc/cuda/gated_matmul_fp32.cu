// gated_matmul's product: float32 as it is, on CUDA cores.
#include "cuda/gated_matmul_products.hpp"
#include "cuda/tiles/fma_tile.cuh"

namespace glai {

void launch_gated_product_fp32(const GatedProduct<float>& q) {
  launch_gated_product<FmaTile<float, 16, 8>, FmaTile<float, 8, 8>, FmaTile<float, 4, 4>,
                       FmaTile<float, 4, 4>>(q);
}

}  // namespace glai
