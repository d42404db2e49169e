"""gated_linear and its gradients on the executor and on a GPU."""

import pytest
import torch

import glai_native as glai
from glai_native.ops import oracle as ref
from glai_native.ops.gated_linear import _apply_gates
from ops.oracle import check_linear, check_linear_gradients, draw_linear
from simt.shapes import SELECTOR_SHAPES

# (N, P, D): as for selector_gates, whose D and H change places here.
LINEAR_SHAPES = [(n, h, d) for n, d, h in SELECTOR_SHAPES]


@pytest.mark.parametrize("shape", LINEAR_SHAPES, ids=str)
def test_gated_linear(place, arithmetic, shape):
    dtype, rounding = arithmetic
    x, u, bias, dh, bits = draw_linear(*shape, dtype)
    on = glai.pack_gates(place(bits))
    views = [(x, u, bias, bits), (x, u.T.contiguous().T, bias, bits)]
    views.append((x[::3, 1:], u[1:, 1:], bias[1:], bits[::3, 1:]))
    for a, b, c, g in views:
        gates = glai.pack_gates(place(g))
        h = glai.gated_linear(place(a), gates, place(b), place(c))
        check_linear(h.cpu(), a, g, b, c, **rounding)
        check_linear(glai.gated_linear(place(a), gates, place(b)).cpu(), a, g, b, None, **rounding)
    masked = _apply_gates(place(dh), on.words, on.n_gates).cpu()
    assert torch.equal(masked, ref.apply_gates_ref(dh, bits))
    if dtype == torch.float64:  # products of torch's, of the type's own accuracy
        leaves = [place(t.clone()).requires_grad_() for t in (x, u, bias)]
        h = glai.gated_linear(leaves[0], on, *leaves[1:])
        gradients = torch.autograd.grad(h, leaves, place(dh))
        check_linear_gradients([gradient.cpu() for gradient in gradients], x, bits, u, dh)


def test_gated_linear_where_off_is_exactly_zero(place, arithmetic):
    """A NaN or infinity reaches the samples whose gate is on, and nobody else."""
    x, u, bias, dh, bits = draw_linear(70, 67, 40, arithmetic[0])
    bits[:, 4] = bits[3] = False
    x[3], u[4], u[9, 7], bias[11] = float("inf"), float("nan"), float("inf"), float("nan")
    dh[~bits] = float("nan")
    gates = glai.pack_gates(place(bits))
    h = glai.gated_linear(place(x), gates, place(u), place(bias)).cpu()
    assert bool((h[~bits] == 0).all())
    assert torch.equal(~torch.isfinite(h[:, [9, 11]]), bits[:, [9, 11]])
    assert bool(torch.isfinite(_apply_gates(place(dh), gates.words, gates.n_gates)).all())
