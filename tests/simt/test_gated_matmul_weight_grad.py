"""The gradient of gated_matmul's weights on the executor and on a GPU."""

import pytest
import torch

import glai_native as glai
import glai_native._native as _native
from ops.oracle import check_bias_grad, check_weight_grad, draw_as
from simt.shapes import SHAPES


@pytest.mark.covering
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gated_matmul_weight_grad(place, arithmetic, shape):
    dtype, rounding = arithmetic
    x, weight, bias, dy, bits = draw_as(shape, dtype)
    gates = glai.pack_gates(place(bits))
    there = place(x), gates, place(dy)
    check_weight_grad(glai.gated_matmul_weight_grad(*there).cpu(), x, bits, dy, **rounding)
    out = place(weight.clone())
    glai.gated_matmul_weight_grad(*there, out=out, accumulate=True)
    check_weight_grad(out.cpu(), x, bits, dy, added_to=weight, **rounding)
    leaf = place(bias).requires_grad_()
    glai.gated_matmul(place(x), gates, place(weight), leaf).backward(place(dy))
    check_bias_grad(leaf.grad.cpu(), bits, dy, **rounding)


@pytest.mark.covering
@pytest.mark.parametrize("shape", [(4100, 3, 9, 5), (4200, 2, 70, 20), (4096, 1, 0, 3)], ids=str)
def test_weight_grad_of_many_samples_and_few_paths(place, arithmetic, shape):
    """Samples are split among blocks; paths that are on for one split's samples alone, and for none."""
    dtype, rounding = arithmetic
    x, weight, bias, dy, bits = draw_as(shape, dtype, density=0.1)
    bits[: shape[0] // 2, 0] = False
    bits[:, 1:2] = False
    gates = glai.pack_gates(place(bits))
    assert _native.plan_cuda_weight_grad(x, shape[1], shape[3]) > 1
    there = place(x), gates, place(dy)
    check_weight_grad(glai.gated_matmul_weight_grad(*there).cpu(), x, bits, dy, **rounding)
    wide = place(torch.full((shape[1], shape[2] + 1, shape[3] + 3), 7.0, dtype=dtype))
    out = wide[:, :-1, 1:-2]
    out.copy_(weight)
    glai.gated_matmul_weight_grad(*there, out=out, accumulate=True)
    check_weight_grad(out.cpu(), x, bits, dy, added_to=weight, **rounding)
    out.fill_(7)
    assert (wide == 7).all()
    leaf = place(bias).requires_grad_()
    glai.gated_matmul(place(x), gates, place(weight), leaf).backward(place(dy))
    check_bias_grad(leaf.grad.cpu(), bits, dy, **rounding)
