"""Gated products of precision "bf16" on the CPU: every instruction set, form, edge shape and layout; names refused.

Where a form rounds each operand (compaction, the weight gradient), the reference is computed from the operands as
rounded; where it rounds sums of weights, half a unit of bfloat16 for every term that was added is allowed besides.
"""

import pytest
import torch

import glai_native as glai
from glai_native.ops import gated_matmul_autograd as gated_products
from ops.oracle import check_bias_grad, check_forward, check_input_grad, check_weight_grad, form_of
from ops.oracle import draw_products as draw
from ops.test_gated_matmul import FORMS, GRAD_FORMS

EDGES = [
    (0, 3, 4, 5),
    (3, 0, 4, 5),
    (3, 4, 0, 5),
    (3, 4, 5, 0),
    (1, 1, 1, 1),
    (31, 31, 31, 31),
    (32, 32, 32, 32),
    (33, 33, 33, 33),
    (5, 64, 7, 16),
    (257, 3, 5, 65),
    (64, 3, 513, 33),
    (1025, 2, 3, 2),  # two blocks of samples
    (40, 2, 130, 530),  # rows of weights far apart
    (70, 2, 256, 40),  # rows of x that collide in the cache
]


def rounded(t):
    return t.bfloat16().float()


def check_all(x, weight, bias, dy, bits):
    gates = glai.pack_gates(bits)
    for form in FORMS:
        sums = form != "compaction"
        w, b = (weight, bias) if sums else (rounded(weight), rounded(bias))
        taken = form or form_of("gated_matmul", gates, weight)
        y = glai.gated_matmul(x, gates, weight, bias, form=form, precision="bf16")
        check_forward(y, rounded(x), bits, w, b, taken, rounded_sums=sums)
        taken = form or form_of("gated_matmul_input_grad", gates, weight)
        dx = glai.gated_matmul_input_grad(dy, gates, weight, form=form, precision="bf16")
        check_input_grad(dx, rounded(dy), bits, w, taken, rounded_sums=sums)
    for form in GRAD_FORMS:
        dw = glai.gated_matmul_weight_grad(x, gates, dy, form=form, precision="bf16")
        check_weight_grad(dw, rounded(x), bits, rounded(dy))
    leaf = bias.clone().requires_grad_()
    glai.gated_matmul(x, gates, weight, leaf, precision="bf16").backward(dy)
    check_bias_grad(leaf.grad, bits, rounded(dy))


@pytest.mark.parametrize("shape", EDGES, ids=str)
def test_edges(bf16_isa, shape):
    check_all(*draw(*shape))


@pytest.mark.parametrize("density", [0.0, 0.05, 0.9, 1.0])
def test_densities(bf16_isa, density):
    check_all(*draw(150, 40, 41, 13, density=density))


def test_slices_and_transposed_weights(bf16_isa):
    x, weight, bias, dy, bits = draw(60, 20, 45, 31)
    wide = torch.zeros(60, 91)
    wide[:, ::2][:, :45] = x
    x = wide[:, ::2][:, :45]
    check_all(x, weight.mT.contiguous().mT, bias.T.contiguous().T, dy.T.contiguous().T, bits)
    buffer = torch.ones(20, 45, 40)
    out = buffer[:, :, 3:34]
    gates = glai.pack_gates(bits)
    glai.gated_matmul_weight_grad(x, gates, dy, out=out, accumulate=True, precision="bf16")
    check_weight_grad(out, rounded(x), bits, rounded(dy), added_to=torch.ones_like(out))
    assert (buffer[:, :, :3] == 1).all()
    assert (buffer[:, :, 34:] == 1).all()


@pytest.mark.parametrize("shape", [(700, 40, 33, 70), (40, 330, 9, 7)])
def test_bits_do_not_depend_on_threads(bf16_isa, threads, shape):
    x, weight, bias, dy, bits = draw(*shape)
    gates = glai.pack_gates(bits)
    results = []
    for n in (1, 3, 3):
        threads(n)
        results.append(
            (
                *(glai.gated_matmul(x, gates, weight, bias, form=f, precision="bf16") for f in FORMS),
                *(glai.gated_matmul_weight_grad(x, gates, dy, form=f, precision="bf16") for f in GRAD_FORMS),
                *(glai.gated_matmul_input_grad(dy, gates, weight, form=f, precision="bf16") for f in FORMS),
            )
        )
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_operands_are_rounded_to_nearest_ties_to_even(bf16_isa):
    step = 2.0**-7  # between bfloat16 numbers from 1 on
    x = torch.tensor([1 + step / 2, 1 + 1.5 * step, 1 + 0.49 * step, -1 - step / 2, 3.39e38, 0.0]).unsqueeze(
        1
    )
    gates = glai.pack_gates(torch.ones(6, 1, dtype=torch.bool))
    for form in FORMS:
        y = glai.gated_matmul(x, gates, torch.ones(1, 1, 1), form=form, precision="bf16")
        assert torch.equal(y, x.bfloat16().float())


def test_a_path_that_is_never_on_has_no_gradient(bf16_isa):
    x, _, _, dy, bits = draw(50, 12, 9, 7)
    bits[:, 5] = False
    for form in GRAD_FORMS:
        dw = glai.gated_matmul_weight_grad(x, glai.pack_gates(bits), dy, form=form, precision="bf16")
        assert (dw[5] == 0).all()


# NaN with every payload bit set: rounded like a number it would carry into the sign.
@pytest.mark.parametrize("bits_of_value", [0x7FFFFFFF, 0x7F800001, 0x7F800000])
def test_nan_and_infinity_reach_whom_they_concern(bf16_isa, bits_of_value):
    value = torch.tensor([bits_of_value], dtype=torch.int32).view(torch.float32)
    x, weight, _, dy, bits = draw(20, 8, 7, 5)
    gates = glai.pack_gates(bits)
    x, dy = x.abs() + 1, dy.abs() + 1
    bad_x, bad_weight = x.clone(), weight.clone()
    bad_x[3, 6] = value
    bad_weight[2, 6, 4] = value
    for form in (None, "compaction", "subset_sums"):
        y = glai.gated_matmul(bad_x, gates, weight.abs() + 1, form=form, precision="bf16")
        assert torch.equal(~y.isfinite().all(1), (torch.arange(20) == 3) & bits.any(1))
        y = glai.gated_matmul(x, gates, bad_weight, form=form, precision="bf16")
        assert torch.equal(~y[:, 4].isfinite(), bits[:, 2])
        assert y[:, :4].isfinite().all()
    for form in GRAD_FORMS:
        dw = glai.gated_matmul_weight_grad(bad_x, gates, dy, form=form, precision="bf16")
        assert torch.equal(~dw[:, 6].isfinite().all(1), bits[3])
        assert dw[:, :6].isfinite().all()


def test_gradients_take_the_same_precision():
    x, weight, bias, dy, bits = draw(40, 9, 11, 6)
    gates = glai.pack_gates(bits)
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    glai.gated_matmul(leaves[0], gates, leaves[1], leaves[2], precision="bf16").backward(dy)
    assert torch.equal(leaves[0].grad, glai.gated_matmul_input_grad(dy, gates, weight, precision="bf16"))
    assert torch.equal(leaves[1].grad, glai.gated_matmul_weight_grad(x, gates, dy, precision="bf16"))
    exact = glai.gated_matmul_weight_grad(x, gates, dy)
    assert not torch.equal(leaves[1].grad, exact)
    assert torch.equal(exact, glai.gated_matmul_weight_grad(x, gates, dy, precision="fp32"))
    ddw = weight.clone()
    leaf = x.clone().requires_grad_()
    glai.gated_matmul_weight_grad(leaf, gates, dy, precision="bf16").backward(ddw)
    assert torch.equal(leaf.grad, glai.gated_matmul_input_grad(dy, gates, ddw, precision="bf16"))
    leaf = dy.clone().requires_grad_()
    glai.gated_matmul_input_grad(leaf, gates, weight, precision="bf16").backward(x)
    assert torch.equal(leaf.grad, glai.gated_matmul(x, gates, weight, precision="bf16"))


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_opcheck(precision):
    x, weight, bias, dy, bits = draw(5, 6, 4, 3)
    gates = glai.pack_gates(bits)
    x.requires_grad_()
    common = (gates.words, gates.n_gates, None)
    # The tests of gradients compare the registered op with itself, so that rounding does not show.
    for op, arguments in (
        (gated_products._registered_gated_matmul, (x, *common, weight, bias, None, precision)),
        (gated_products._registered_weight_grad, (x, *common, dy, True, None, precision)),
        (gated_products._registered_input_grad, (dy, *common, weight, None, precision)),
    ):
        torch.library.opcheck(op, arguments)


def test_compiled_step_equals_eager():
    x, weight, bias, _, bits = draw(40, 9, 11, 6)
    gates = glai.pack_gates(bits)

    def loss(weight, bias):
        return glai.gated_matmul(x, gates, weight, bias, precision="bf16").square().sum()

    leaves = [weight.requires_grad_(), bias.requires_grad_()]
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    for got, want in zip(
        torch.autograd.grad(compiled(*leaves), leaves),
        torch.autograd.grad(loss(*leaves), leaves),
        strict=True,
    ):
        torch.testing.assert_close(got, want)


GATES = glai.pack_gates(torch.ones(3, 40, dtype=torch.bool))
X, W, DY = torch.zeros(3, 5), torch.zeros(40, 5, 2), torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("op", "call"),
    [
        (
            "gated_matmul",
            lambda dtype, name: glai.gated_matmul(X.to(dtype), GATES, W.to(dtype), precision=name),
        ),
        (
            "gated_matmul_weight_grad",
            lambda dtype, name: glai.gated_matmul_weight_grad(
                X.to(dtype), GATES, DY.to(dtype), precision=name
            ),
        ),
        (
            "gated_matmul_input_grad",
            lambda dtype, name: glai.gated_matmul_input_grad(
                DY.to(dtype), GATES, W.to(dtype), precision=name
            ),
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(op, call):
    for dtype, name, error, sentence in (
        (
            torch.float32,
            "magic",
            ValueError,
            "precision must be None, 'fp32', 'tf32' or 'bf16', got 'magic'",
        ),
        (
            torch.float32,
            "tf32",
            ValueError,
            "precision must be None, 'fp32' or 'bf16' on cpu, got 'tf32'",
        ),
        (torch.float64, "bf16", ValueError, "precision must be None for float64 tensors, got 'bf16'"),
        (torch.float32, 16, TypeError, "precision must be None or a str, got int"),
    ):
        with pytest.raises(error, match=f"^{op}: {sentence}$"):
            call(dtype, name)
