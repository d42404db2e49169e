// gated_matmul and gated_matmul_input_grad on CUDA: from arguments to the product that both are.
#include "core/args.hpp"
#include "core/tiling.hpp"
#include "cuda/gated_matmul.cuh"
#include "cuda/gated_matmul_products.hpp"
#include "cuda/launchers.hpp"

namespace glai {
namespace {

template <class T>
GatedProduct<T> gated_product(const char* op, const TensorView& a, const TensorView& words,
                              std::int64_t n_gates, const TensorView& weight, int depth_dim,
                              const TensorView* bias, const TensorView& y, Form form,
                              const CudaProduct& cuda, const Execution& exec) {
  const int column_dim = 3 - depth_dim;
  GatedProduct<T> q = {};
  q.op = op;
  q.device = a.device.index;
  q.stream = exec.stream;
  q.n = a.shape[0];
  q.p = n_gates;
  q.depth = a.shape[1];
  q.c = y.shape[1];
  q.a = a.as<const T>();
  q.a_stride = a.stride[0];
  q.words = words.as<const std::uint32_t>();
  q.w = weight.as<const T>();
  q.w_path = weight.stride[0];
  q.w_depth = weight.stride[depth_dim];
  q.w_column = weight.stride[column_dim];
  if (bias != nullptr) {
    q.bias = bias->as<const T>();
    q.bias_stride = bias->stride[0];
  }
  q.y = y.as<T>();
  q.y_stride = y.stride[0];
  // Without paths there is no majority either.
  q.form = form == Form::automatic               ? Form::dense
           : q.p == 0 && form == Form::reference ? Form::compaction
                                                 : form;
  q.rows = gated_matmul_tiling(form, y.dtype, q.n, q.p, q.c).rows;
  q.splits = 1;
  if (cuda.partial) {
    q.partial = cuda.partial->as<SumOf<T>>();
    q.splits = cuda.partial->shape[0] - (form == Form::reference ? 1 : 0);
  }
  if (q.form == Form::reference) {
    const ReferenceMemory memory = reference_memory(y.dtype, q.p, q.depth, q.c);
    auto* bytes = reinterpret_cast<std::byte*>(cuda.reference->data);
    q.majority = reinterpret_cast<std::uint32_t*>(bytes);
    q.reference = reinterpret_cast<SumOf<T>*>(bytes + memory.sums);
    q.reference_granule = copy_granule(q.reference, {q.c});
    const bool with_norms = 4 * cuda.reference->shape[0] == memory.with_norms;
    if (with_norms) q.norms = reinterpret_cast<SumOf<T>*>(bytes + memory.norms);
  }
  q.a_granule = copy_granule(q.a, {q.a_stride});
  q.w_granule = copy_granule(q.w, {q.w_path, q.depth_inner() ? q.w_column : q.w_depth});
  q.bias_granule = copy_granule(q.bias, {q.bias_stride});
  return q;
}

template <class... Arguments>
void launch_as(DType dtype, bool tf32, const Arguments&... arguments) {
  switch (dtype) {
    case DType::float64: return launch_gated_product_fp64(gated_product<double>(arguments...));
    case DType::float16: return launch_gated_product_fp16(gated_product<fp16>(arguments...));
    case DType::bfloat16: return launch_gated_product_bf16(gated_product<bf16>(arguments...));
    default: break;
  }
  const auto q = gated_product<float>(arguments...);
  tf32 ? launch_gated_product_tf32(q) : launch_gated_product_fp32(q);
}

}  // namespace

void launch_gated_matmul(const GatedMatmulArgs& a) {
  launch_as(a.x.dtype, a.cuda.tf32, "gated_matmul", a.x, a.words, a.n_gates, a.weight, 1,
            a.bias ? &*a.bias : nullptr, a.y, a.form, a.cuda, a.exec);
}

void launch_gated_matmul_input_grad(const GatedMatmulInputGradArgs& a) {
  const TensorView* no_bias = nullptr;
  launch_as(a.dy.dtype, a.cuda.tf32, "gated_matmul_input_grad", a.dy, a.words, a.n_gates, a.weight, 2,
            no_bias, a.dx, a.form, a.cuda, a.exec);
}

}  // namespace glai
