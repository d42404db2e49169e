// gated_matmul's product: bfloat16 on tensor cores.
#include "cuda/gated_matmul_products.hpp"
#include "cuda/tiles/mma_tile.cuh"

namespace glai {

void launch_gated_product_bf16(const GatedProduct<bf16>& q) {
  launch_gated_product<MmaTile<bf16, 4, 8>, MmaTile<bf16, 2, 8>, MmaTile<bf16, 1, 4>,
                       FmaTile<float, 4, 4>>(q);
}

}  // namespace glai
