"""path_kernel and path_gram on the executor and on a GPU."""

import pytest
import torch

import glai_native as glai
from ops.oracle import check_gram, check_kernel, draw_gram, draw_kernel, pack

# (Na, Nb, D, units per layer)
KERNEL_SHAPES = [
    (0, 3, 4, (5,)),
    (3, 4, 0, (0,)),
    (33, 31, 33, (33, 65)),
    (20, 21, 3, (300,)),
    (130, 70, 40, (32,)),
    (9, 200, 8, (9, 0, 3)),
]


@pytest.mark.parametrize("shape", KERNEL_SHAPES, ids=str)
def test_path_kernel(place, arithmetic, shape):
    dtype, rounding = arithmetic
    na, nb, d, units = shape
    (xa, layers_a), (xb, layers_b) = (draw_kernel(n, d, units, seed=n) for n in (na, nb))
    xa, xb = xa.to(dtype), xb.to(dtype)
    a, b = (
        (place(x), pack([place(layer) for layer in layers])) for x, layers in ((xa, layers_a), (xb, layers_b))
    )
    check_kernel(glai.path_kernel(*a, *b).cpu(), xa, layers_a, xb, layers_b, **rounding)
    symmetric = glai.path_kernel(*a).cpu()
    check_kernel(symmetric, xa, layers_a, xa, layers_a, **rounding)
    assert torch.equal(symmetric, symmetric.T)


# (N, P, D)
GRAM_SHAPES = [(0, 3, 4), (3, 0, 4), (3, 4, 0), (33, 33, 3), (60, 3, 31), (90, 2, 130), (9000, 2, 2)]


@pytest.mark.parametrize("shape", GRAM_SHAPES, ids=str)
@pytest.mark.parametrize("arithmetic", ["fp32", "tf32", "fp64"], indirect=True)
def test_path_gram(place, arithmetic, shape):
    dtype, rounding = arithmetic
    x, bits, weight = draw_gram(*shape, dtype)
    gates = glai.pack_gates(place(bits))
    out = glai.path_gram(place(x), gates)
    check_gram(out.cpu(), x, bits, **rounding)
    start = out.cpu().clone()
    glai.path_gram(place(x), gates, place(weight), out=out)
    check_gram(out.cpu(), x, bits, weight, added_to=start, **rounding)
    blocks = out.cpu().view(shape[1], shape[2] + 1, shape[1], shape[2] + 1)
    for p in range(shape[1] - 1):
        assert torch.equal(blocks[p, :, p + 1], blocks[p, :, p + 1].T)
