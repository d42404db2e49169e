// gated_matmul's product in each arithmetic; a source file of their own each, so that they compile side
// by side.
#pragma once

#include "cuda/gated_matmul.cuh"
#include "cuda/gated_matmul_compaction.cuh"
#include "cuda/gated_matmul_reference.cuh"

namespace glai {

template <class Dense, class DenseFew, class Compaction, class Reference>
void launch_gated_product(const GatedProduct<typename Dense::T>& q) {
  if (q.form == Form::dense) {
    launch_dense_product<Dense, DenseFew>(q);
  } else {
    if (q.form == Form::reference) launch_reference<Reference>(q);
    launch_compaction_product<Compaction>(q);
  }
  launch_sum_slices(q);
}

void launch_gated_product_fp32(const GatedProduct<float>& q);
void launch_gated_product_tf32(const GatedProduct<float>& q);
void launch_gated_product_fp16(const GatedProduct<fp16>& q);
void launch_gated_product_bf16(const GatedProduct<bf16>& q);
void launch_gated_product_fp64(const GatedProduct<double>& q);

}  // namespace glai
