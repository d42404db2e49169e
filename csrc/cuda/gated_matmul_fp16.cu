// gated_matmul's product: float16 on tensor cores.
#include "cuda/gated_matmul_products.hpp"
#include "cuda/tiles/mma_tile.cuh"

namespace glai {

void launch_gated_product_fp16(const GatedProduct<fp16>& q) {
  launch_gated_product<MmaTile<fp16, 4, 8>, MmaTile<fp16, 2, 8>, MmaTile<fp16, 1, 4>,
                       FmaTile<float, 4, 4>>(q);
}

}  // namespace glai
