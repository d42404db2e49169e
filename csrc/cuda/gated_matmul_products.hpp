// gated_matmul's product in each arithmetic; a source file of their own each, so that they compile side
// by side.
#pragma once

#include "cuda/gated_matmul.cuh"

namespace glai {

void launch_gated_product_fp32(const GatedProduct<float>& q);
void launch_gated_product_tf32(const GatedProduct<float>& q);
void launch_gated_product_fp16(const GatedProduct<fp16>& q);
void launch_gated_product_bf16(const GatedProduct<bf16>& q);
void launch_gated_product_fp64(const GatedProduct<double>& q);

}  // namespace glai
