// gated_matmul's product: float32 rounded to tf32, on tensor cores.
#include "cuda/gated_matmul_products.hpp"
#include "cuda/tiles/mma_tile.cuh"

namespace glai {

void launch_gated_product_tf32(const GatedProduct<float>& q) {
  launch_gated_product<MmaTile<float, 4, 8>, MmaTile<float, 2, 8>, MmaTile<float, 1, 4>,
                       MmaTile<float, 1, 4>>(q);
}

}  // namespace glai
