"""Which form of gated_matmul CUDA takes, and the reference form: where it is safe, and where it is not."""

from contextlib import contextmanager
from unittest import mock

import pytest
import torch

import glai_native as glai
from glai_native.machine import backend
from glai_native.ops import gated_matmul_autograd as gated_products
from glai_native.ops import operands
from ops.oracle import check_forward, check_input_grad, draw_as, draw_products


@contextmanager
def reference_taken(splits=1):
    """Within, products take the reference form as where it is chosen: they look whether it is safe."""

    def plan(op, y, n_gates, depth, tf32, estimate, form):
        item, c = 8 if y.dtype == torch.float64 else 4, y.shape[1]
        parts = (4 * (-(-n_gates // 32) + 1), (depth + 1) * c * item, 2 * n_gates * c * item)
        return "reference", splits + 1, sum(-(-part // 16) * 4 for part in parts)

    with mock.patch.object(operands, "_native", wraps=operands._native) as native:
        native.plan_cuda_product.side_effect = plan
        yield


@pytest.mark.parametrize(("n", "splits"), [(70, 3), (300, 1)])
def test_reference(place, arithmetic, n, splits):
    """Most paths on or off for most samples; around a word of gates, more than one block of rows."""
    dtype, rounding = arithmetic
    x, weight, bias, dy, _ = draw_as((n, 35, 20, 37), dtype)
    generator = torch.Generator().manual_seed(0)
    majority = torch.rand(35, generator=generator) < 0.7
    bits = majority ^ (torch.rand((n, 35), generator=generator) < 0.1)
    weight[majority] = weight[majority].abs()
    bias[majority] = bias[majority].abs()
    gates = glai.pack_gates(place(bits))
    for w in (weight, weight.mT.contiguous().mT):
        with reference_taken(splits):
            y = glai.gated_matmul(place(x), gates, place(w), place(bias))
            without = glai.gated_matmul(place(x), gates, place(w))
            dx = glai.gated_matmul_input_grad(place(dy), gates, place(w))
        check_forward(y.cpu(), x, bits, w, bias, "reference", **rounding)
        check_forward(without.cpu(), x, bits, w, None, "reference", **rounding)
        check_input_grad(dx.cpu(), dy, bits, w, "reference", **rounding)


@pytest.mark.covering
def test_reference_that_is_not_safe_is_dropped(place, arithmetic):
    """Where what a sample has off outweighs what it has on, sums are those of compaction, bit by bit."""
    dtype, _ = arithmetic
    x, weight, bias, dy, bits = draw_as((300, 9, 40, 37), dtype, density=0.9)
    bits[:, 2] = True
    bits[7, 2] = False
    gates = glai.pack_gates(place(bits))

    def check():
        there = place(x), gates, place(weight), place(bias)
        with reference_taken():
            y, dx = glai.gated_matmul(*there), glai.gated_matmul_input_grad(place(dy), gates, there[2])
        expected = glai.gated_matmul(*there, form="compaction")
        assert torch.equal(y.nan_to_num(7), expected.nan_to_num(7))
        expected = glai.gated_matmul_input_grad(place(dy), gates, there[2], form="compaction")
        assert torch.equal(dx.nan_to_num(7), expected.nan_to_num(7))

    weight[2, 3, 5] = 1e4  # one number, in one output of each product
    bias[2, 30] = 1e4
    check()
    weight[2] = float("nan")
    check()
    weight[2], bias[2] = float("inf"), float("inf")
    check()


def test_padding_bits_of_a_majority(place, arithmetic):
    """Nobody looks at the padding of words on CUDA; what lies behind the weights is NaN."""
    dtype, rounding = arithmetic
    x, weight, bias, dy, _ = draw_as((70, 33, 9, 11), dtype)
    bits = torch.ones((70, 33), dtype=torch.bool)
    gates = glai.PackedGates._trusted(place(torch.full((70, 2), -1, dtype=torch.int32)), 33)
    wide = [torch.full((40, *t.shape[1:]), float("nan"), dtype=dtype) for t in (weight, bias)]
    for behind, t in zip(wide, (weight, bias), strict=True):
        behind[:33] = t
    there = place(wide[0])[:33], place(wide[1])[:33]
    with reference_taken():
        y = glai.gated_matmul(place(x), gates, *there)
        dx = glai.gated_matmul_input_grad(place(dy), gates, there[0])
    check_forward(y.cpu(), x, bits, weight, bias, "reference", **rounding)
    check_input_grad(dx.cpu(), dy, bits, weight, "reference", **rounding)


@pytest.mark.parametrize("estimate", [(0.99, 0.0), (0.5, 0.5)])
def test_a_chosen_reference_always_looks(executor, estimate):
    """An estimate may be wrong: there is room for norms whatever it says."""
    module, _ = executor
    form, slices, words = module.plan_cuda_product(
        "gated_matmul", torch.empty(4096, 64), 64, 128, False, (0.99, 0.0), None
    )
    forced = module.plan_cuda_product(
        "gated_matmul", torch.empty(4096, 64), 64, 128, False, estimate, "reference"
    )
    assert (form, forced[0], slices) == ("reference", "reference", forced[1])
    assert words - forced[2] == 2 * 64 * 64


def test_the_form_follows_what_is_known_of_the_gates(place):
    x, weight, _, dy, bits = draw_products(600, 20, 64, 128, density=0.05)
    there, gates = (place(x), place(weight), place(dy)), glai.pack_gates(place(bits))

    def forms():
        with mock.patch.object(gated_products, "_native", wraps=gated_products._native) as native:
            leaf = there[0].detach().clone().requires_grad_()
            glai.gated_matmul(leaf, gates, there[1]).backward(there[2])
        calls = native.gated_matmul.call_args, native.gated_matmul_input_grad.call_args
        return [next(a for a in call.args if isinstance(a, str)) for call in calls]

    assert forms() == ["dense", "dense"]  # nobody has counted
    gates.density()
    assert forms() == ["compaction", "compaction"]
    gates = gates[torch.arange(600).to(gates.device)]
    assert forms() == ["compaction", "compaction"]


def test_what_cuda_does_not_take(place):
    x, weight, _, dy, bits = draw_products(5, 4, 3, 2)
    x, weight, dy, gates = place(x), place(weight), place(dy), glai.pack_gates(place(bits))
    sentence = "form must be None, 'dense', 'compaction' or 'reference' on cuda, got 'subset_sums'"
    with pytest.raises(ValueError, match=f"gated_matmul: {sentence}"):
        glai.gated_matmul(x, gates, weight, form="subset_sums")
    with pytest.raises(ValueError, match=f"gated_matmul_input_grad: {sentence}"):
        glai.gated_matmul_input_grad(dy, gates, weight, form="subset_sums")
    with pytest.raises(
        ValueError, match="weight_grad: form must be None or 'compaction' on cuda, got 'dense'"
    ):
        glai.gated_matmul_weight_grad(x, gates, dy, form="dense")
    with pytest.raises(ValueError, match="path_kernel: layers_a must be at most 16 on cuda, got 17"):
        glai.path_kernel(x, [gates] * 17)
    with pytest.raises(ValueError, match="path_gram: x must be float32 or float64"):
        glai.path_gram(x.half(), gates)


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch has one name for it"
)
def test_tf32_follows_torch_by_either_name():
    matmul = torch.backends.cuda.matmul
    try:
        for precision in ("tf32", "ieee"):
            matmul.fp32_precision = precision
            assert backend.allows_tf32() == (precision == "tf32")
    finally:
        matmul.allow_tf32 = False
    assert not backend.allows_tf32()
    matmul.allow_tf32 = True
    assert backend.allows_tf32()
    matmul.allow_tf32 = False
