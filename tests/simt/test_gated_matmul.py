"""gated_matmul and its input's gradient on the executor and on a GPU: every form, shape and layout."""

from unittest import mock

import pytest
import torch

import glai_native as glai
from executor import SCHEDULES, SHARED_KIB, on_executor
from glai_native.gates import packing
from glai_native.ops import operands
from ops.oracle import (
    check_forward,
    check_gates,
    check_input_grad,
    check_weight_grad,
    draw_as,
    draw_products,
)
from simt.shapes import FORMS, SHAPES


@pytest.mark.covering
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gated_matmul(place, arithmetic, shape, form):
    dtype, rounding = arithmetic
    x, weight, bias, dy, bits = draw_as(shape, dtype)
    gates = glai.pack_gates(place(bits))
    for w in (weight, weight.mT.contiguous().mT):
        there = place(x), gates, place(w)
        y = glai.gated_matmul(*there, form=form)
        check_forward(y.cpu(), x, bits, w, None, form, **rounding)
        y = glai.gated_matmul(*there, place(bias), form=form)
        check_forward(y.cpu(), x, bits, w, bias, form, **rounding)
        dx = glai.gated_matmul_input_grad(place(dy), gates, place(w), form=form)
        check_input_grad(dx.cpu(), dy, bits, w, form, **rounding)


@pytest.mark.covering
@pytest.mark.parametrize("shape", [(257, 180, 7, 20), (385, 9, 150, 270)], ids=str)
def test_blocks_of_many_rows(place, arithmetic, shape):
    """More blocks than run at once, which own more rows each; several slices of depth."""
    dtype, rounding = arithmetic
    x, weight, bias, _, bits = draw_as(shape, dtype)
    y = glai.gated_matmul(place(x), glai.pack_gates(place(bits)), place(weight), place(bias), form="dense")
    check_forward(y.cpu(), x, bits, weight, bias, **rounding)


@pytest.mark.parametrize("density", [0.05, 1.0])
def test_compaction(place, arithmetic, density):
    """More than one block of rows, none to several gathers of a path's rows, paths over word and window."""
    dtype, rounding = arithmetic
    x, weight, bias, dy, bits = draw_as((270, 18, 20, 9), dtype, density=density)
    bits[:, 7] = True
    bits[:200, 17] = True
    bits[:, 3] = False
    gates = glai.pack_gates(place(bits))
    for splits in (1, 5):
        with mock.patch.object(operands, "_native", wraps=operands._native) as native:
            native.plan_cuda_product.side_effect = lambda *_, n=splits: ("compaction", n, 0)
            y = glai.gated_matmul(place(x), gates, place(weight), place(bias))
            dx = glai.gated_matmul_input_grad(place(dy), gates, place(weight))
        check_forward(y.cpu(), x, bits, weight, bias, **rounding)
        check_input_grad(dx.cpu(), dy, bits, weight, **rounding)


def test_strided_inputs(place, arithmetic):
    dtype, rounding = arithmetic
    n, p, d, c = 40, 35, 24, 16
    *values, bits = draw_as((2 * n, 2 * p, 2 * d, 2 * c), dtype)
    x, weight, bias, dy = map(place, values)
    bits = bits[:n, :p]
    views = {
        "slices": (
            x[5 : 5 + n, 3 : 3 + d],
            weight[1 : 1 + p, 2 : 2 + d, 4 : 4 + c],
            bias[:p, 1 : 1 + c],
            dy[:n, 2 : 2 + c],
        ),
        "aligned slices": (x[5 : 5 + n, 8 : 8 + d], weight[1 : 1 + p, :d, 16:], bias[:p, :c], dy[:n, :c]),
        "steps": (x[::2, ::2], weight[::2, ::2, ::2], bias[::2, ::2], dy[::2, ::2]),
        "expanded": (
            x[:1, :d].expand(n, d),
            weight[:1, :d, :c].expand(p, d, c),
            bias[:1, :1].expand(p, c),
            dy[:1, :1].expand(n, c),
        ),
    }
    gates = glai.pack_gates(place(bits))
    for view in views.values():
        x, weight, bias, dy = view
        there = [t.cpu() for t in view]
        for form in FORMS:
            y = glai.gated_matmul(x, gates, weight, bias, form=form)
            check_forward(y.cpu(), there[0], bits, there[1], there[2], form, **rounding)
            dx = glai.gated_matmul_input_grad(dy, gates, weight, form=form)
            check_input_grad(dx.cpu(), there[3], bits, there[1], form, **rounding)
        out = place(torch.full((p + 2, d + 3, c + 5), 7.0, dtype=dtype))
        inner = out[1:-1, 2:-1, 3:-2]
        glai.gated_matmul_weight_grad(x, gates, dy, out=inner)
        check_weight_grad(inner.cpu(), there[0], bits, there[3], **rounding)
        inner.fill_(7)
        assert (out == 7).all()


@pytest.mark.parametrize("row", [64, 50], ids=["16 bytes at a time", "4 bytes at a time"])
def test_odd_slices_of_wide_buffers(place, arithmetic, row):
    """The last copy of a row is partial, and what lies behind it NaN."""
    dtype, rounding = arithmetic
    *values, bits = draw_as((70, 5, 37, 21), dtype)

    def inside(t):
        wide = torch.full((*t.shape[:-1], row), float("nan"), dtype=dtype)
        wide[..., : t.shape[-1]] = t
        return place(wide)[..., : t.shape[-1]]

    x, weight, bias, dy = values
    gates = glai.pack_gates(place(bits))
    for w in (inside(weight), inside(weight.mT).mT):
        for form in FORMS:
            y = glai.gated_matmul(inside(x), gates, w, inside(bias), form=form)
            check_forward(y.cpu(), x, bits, weight, bias, form, **rounding)
            dx = glai.gated_matmul_input_grad(inside(dy), gates, w, form=form)
            check_input_grad(dx.cpu(), dy, bits, weight, form, **rounding)
    check_weight_grad(
        glai.gated_matmul_weight_grad(inside(x), gates, inside(dy)).cpu(), x, bits, dy, **rounding
    )
    fired = packing.selector_gates(inside(x), inside(weight[:, :, 0]), None)
    check_gates(fired, x, weight[:, :, 0], None, **rounding)


def test_what_is_off_has_no_effect(place, arithmetic):
    """A NaN or infinity reaches the samples whose path is on, and nobody else."""
    dtype, _ = arithmetic
    x, weight, _, dy, bits = draw_as((300, 9, 40, 10), dtype)
    bits[:, 4] = bits[3] = False
    gates = glai.pack_gates(place(bits))
    weight[4] = float("nan")
    for form in ("dense", "compaction"):
        assert torch.isfinite(glai.gated_matmul(place(x), gates, place(weight), form=form)).all()
        dx = glai.gated_matmul_input_grad(place(dy), gates, place(weight), form=form)
        assert torch.isfinite(dx).all()
    weight[2] = float("inf")
    for form in ("dense", "compaction"):
        y = glai.gated_matmul(place(x), gates, place(weight), form=form).cpu()
        assert torch.equal(~torch.isfinite(y).all(1), bits[:, 2])
    x[3], dy[3] = float("inf"), float("nan")
    out = place(torch.full((9, 40, 10), float("nan"), dtype=dtype))
    glai.gated_matmul_weight_grad(place(x), gates, place(dy), out=out)
    assert torch.isfinite(out).all()
    assert (out[4] == 0).all()


def test_gradients_of_a_step(place):
    """Of a loss, through all three products, as training takes them."""
    x, weight, bias, _, bits = draw_products(64, 17, 50, 10)

    def gradients(device, gates):
        leaves = [device(t).requires_grad_() for t in (x, weight, bias)]
        loss = glai.gated_matmul(leaves[0], gates, *leaves[1:]).square().sum()
        return [g.cpu() for g in torch.autograd.grad(loss, leaves)]

    actual = gradients(place, glai.pack_gates(place(bits)))
    g = bits.float()
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    loss = (torch.einsum("np,nd,pdc->nc", g, x, weight) + g @ bias).square().sum()
    for a, b in zip(actual, torch.autograd.grad(loss, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


def test_sums_do_not_depend_on_the_schedule(executor, arithmetic):
    dtype, _ = arithmetic
    x, weight, bias, dy, bits = draw_as((140, 20, 70, 20), dtype)
    gates = glai.pack_gates(bits)
    module, schedule = executor
    results = []
    with on_executor(module):
        for order, eager in SCHEDULES:
            schedule(order, eager, seed=7)
            y = [glai.gated_matmul(x, gates, weight, bias, form=form) for form in FORMS]
            results.append((*y, glai.gated_matmul_weight_grad(x, gates, dy)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_sums_do_not_depend_on_shared_memory(executor, arithmetic):
    dtype, _ = arithmetic
    x, weight, bias, _, bits = draw_as((600, 20, 40, 20), dtype, density=0.2)
    gates = glai.pack_gates(bits)
    module, schedule = executor
    results = []
    with on_executor(module):
        for kib in SHARED_KIB:
            schedule("forward", True, shared_kib=kib)
            results.append([glai.gated_matmul(x, gates, weight, bias, form=form) for form in FORMS])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
