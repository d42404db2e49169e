"""Gradients of every order, the registered ops, and torch.compile."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import glai_native as glai
from glai_native.ops import gated_matmul_autograd as gated_products


def inputs(n=5, p=6, d=4, c=3, dtype=torch.float64):
    g = torch.Generator().manual_seed(5)
    bits = torch.rand((n, p), generator=g) < 0.5
    bits[:, 1:2] = False

    def leaf(*size):
        return torch.randn(size, generator=g, dtype=dtype).requires_grad_()

    return glai.pack_gates(bits), leaf(n, d), leaf(p, d, c), leaf(p, c), leaf(n, c)


@pytest.mark.parametrize("sizes", [(5, 6, 4, 3), (1, 1, 1, 1), (0, 2, 3, 2), (4, 33, 2, 17)])
def test_gated_matmul(sizes):
    gates, x, weight, bias, dy = inputs(*sizes)
    assert gradcheck(lambda x, w, b: glai.gated_matmul(x, gates, w, b), (x, weight, bias))
    assert gradcheck(lambda x, w: glai.gated_matmul(x, gates, w), (x, weight))
    assert gradcheck(lambda x, dy: glai.gated_matmul_weight_grad(x, gates, dy), (x, dy))
    assert gradcheck(lambda dy, w: glai.gated_matmul_input_grad(dy, gates, w), (dy, weight))


def test_second_order():
    gates, x, weight, bias, dy = inputs()
    assert gradgradcheck(lambda x, w, b: glai.gated_matmul(x, gates, w, b), (x, weight, bias))
    assert gradgradcheck(lambda x, dy: glai.gated_matmul_weight_grad(x, gates, dy), (x, dy))
    assert gradgradcheck(lambda dy, w: glai.gated_matmul_input_grad(dy, gates, w), (dy, weight))


@pytest.mark.parametrize("needed", ["x", "weight", "bias"])
def test_only_what_is_asked_for(needed):
    gates, x, weight, bias, dy = inputs()
    leaves = {"x": x, "weight": weight, "bias": bias}
    for name, leaf in leaves.items():
        leaf.requires_grad_(name == needed)
    glai.gated_matmul(x, gates, weight, bias).backward(dy.detach())
    assert [name for name, leaf in leaves.items() if leaf.grad is not None] == [needed]
    with torch.no_grad():
        expected = torch.einsum("np,nc->pc", gates.unpack().double(), dy)
    if needed == "bias":
        torch.testing.assert_close(bias.grad, expected)


@pytest.mark.parametrize("with_bias", [True, False])
def test_opcheck_forward(with_bias):
    gates, x, weight, bias, _ = inputs()
    arguments = (x, gates.words, gates.n_gates, [0.4, 0.2], weight, bias if with_bias else None, None, None)
    torch.library.opcheck(gated_products._registered_gated_matmul, arguments)


@pytest.mark.parametrize("with_bias", [True, False])
def test_opcheck_gradients(with_bias):
    gates, x, weight, _, dy = (t.detach() if isinstance(t, torch.Tensor) else t for t in inputs())
    torch.library.opcheck(
        gated_products._registered_weight_grad,
        (x, gates.words, gates.n_gates, [0.4, 0.2], dy, with_bias, None, None),
    )
    torch.library.opcheck(
        gated_products._registered_input_grad, (dy, gates.words, gates.n_gates, None, weight, None, None)
    )


def test_compiled_step_equals_eager():
    gates, x, weight, bias, _ = inputs(n=40, dtype=torch.float32)

    def loss(x, gates, weight, bias):
        return glai.gated_matmul(x, gates, weight, bias).square().sum()

    loss(x, gates, weight, bias).backward()
    expected = [t.grad.clone() for t in (x, weight, bias)]
    for t in (x, weight, bias):
        t.grad = None
    torch.compile(loss, backend="aot_eager", fullgraph=True)(x, gates, weight, bias).backward()
    for t, want in zip((x, weight, bias), expected, strict=True):
        torch.testing.assert_close(t.grad, want)


def test_compiled_gradient_ops_equal_eager():
    gates, x, weight, _, dy = (t.detach() if isinstance(t, torch.Tensor) else t for t in inputs())

    def both(x, gates, weight, dy):
        return glai.gated_matmul_weight_grad(x, gates, dy), glai.gated_matmul_input_grad(dy, gates, weight)

    compiled = torch.compile(both, backend="aot_eager", fullgraph=True)(x, gates, weight, dy)
    for got, want in zip(compiled, both(x, gates, weight, dy), strict=True):
        assert torch.equal(got, want)


def test_compiled_gradient_ops_have_gradients():
    gates, x, weight, _, dy = inputs()

    def loss(x, dy, weight):
        dw = glai.gated_matmul_weight_grad(x, gates, dy)
        return dw.square().sum() + glai.gated_matmul_input_grad(dy, gates, weight).square().sum()

    expected = torch.autograd.grad(loss(x, dy, weight), (x, dy, weight))
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)(x, dy, weight)
    for got, want in zip(torch.autograd.grad(compiled, (x, dy, weight)), expected, strict=True):
        torch.testing.assert_close(got, want)


def test_functional_gradient():
    gates, x, weight, bias, _ = (t.detach() if isinstance(t, torch.Tensor) else t for t in inputs())

    def loss(weight):
        return glai.gated_matmul(x, gates, weight, bias).square().sum()

    leaf = weight.clone().requires_grad_()
    expected = torch.autograd.grad(loss(leaf), leaf)[0]
    torch.testing.assert_close(torch.func.grad(loss)(weight), expected)


def test_gates_changed_before_the_backward_pass_are_noticed():
    gates, x, weight, _, _ = inputs()
    y = glai.gated_matmul(x, gates, weight)
    gates.words.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
