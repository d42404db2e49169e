"""gated_linear against its float64 reference: every instruction set, edge shape and layout; and its gradients."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import glai_native as glai

# The function has the module's name in the package.
from glai_native.ops.gated_linear import _registered_apply_gates, _registered_gated_linear
from ops.oracle import check_linear, check_linear_gradients
from ops.oracle import draw_linear as draw

DTYPES = [torch.float32, torch.float64]
# (N, P, D): zero, one, around a word, around a vector, more than one block of rows, of features, of columns.
EDGES = [
    (0, 3, 4),
    (3, 0, 4),
    (3, 4, 0),
    (1, 1, 1),
    (31, 31, 31),
    (32, 32, 32),
    (33, 33, 33),
    (5, 65, 7),
    (257, 97, 50),
    (300, 130, 300),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", EDGES, ids=str)
def test_matches_reference(isa, shape, dtype):
    x, u, bias, dh, bits = draw(*shape, dtype)
    gates = glai.pack_gates(bits)
    for v in (u, u.T.contiguous().T):
        check_linear(glai.gated_linear(x, gates, v, bias), x, bits, v, bias)
        check_linear(glai.gated_linear(x, gates, v), x, bits, v, None)
    leaves = [t.clone().requires_grad_() for t in (x, u, bias)]
    check_linear_gradients(
        torch.autograd.grad(glai.gated_linear(leaves[0], gates, *leaves[1:]), leaves, dh), x, bits, u, dh
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_off_gates_give_exactly_zero(isa, dtype):
    """Also where the product is NaN or infinite, which reaches the samples whose gate is on, and no others."""
    x, u, bias, _, bits = draw(70, 67, 150, dtype)
    bits[:, 4] = bits[3] = False
    x[3], u[4], u[9, 7], bias[11] = float("inf"), float("nan"), float("inf"), float("nan")
    h = glai.gated_linear(x, glai.pack_gates(bits), u, bias)
    assert bool((h[~bits] == 0).all())
    assert not bool(torch.signbit(h[~bits]).any())
    expected = bits.clone()
    expected[:, [0, *range(1, 9), 10, *range(12, 67)]] = False
    assert torch.equal(~torch.isfinite(h), expected)


def test_strided_inputs(isa):
    x, u, bias, dh, _ = draw(80, 100, 90)
    bits = torch.rand((90, 100), generator=torch.Generator().manual_seed(0)) < 0.5
    inputs = {
        "slices": (x[5:60, 3:40], u[10:80, 3:40], bias[10:80]),
        "steps": (x[::2, ::2], u[::2, ::2], bias[::2]),
        "transposed": (x.T, u[:, :80], bias),
        "expanded": (x[:1].expand(40, 90), u[:1].expand(35, 90), bias[:1].expand(35)),
        "one path": (x[:, ::5], u[3:4, ::5], bias[3:4]),
        "one feature": (x[:, 3:4], u[:, 3:4], bias),
    }
    for a, b, c in inputs.values():
        on = bits[: len(a), : len(b)]
        check_linear(glai.gated_linear(a, glai.pack_gates(on), b, c), a, on, b, c)
    # A gradient of any strides: expanded, as sum().backward() passes it.
    leaves = [t.clone().requires_grad_() for t in (x, u, bias)]
    h = glai.gated_linear(leaves[0], glai.pack_gates(bits[:80]), *leaves[1:])
    for strided in (torch.ones(1).expand(80, 100), dh.T.contiguous().T):
        gradients = torch.autograd.grad(h, leaves, strided, retain_graph=True)
        check_linear_gradients(gradients, x, bits[:80], u, strided)


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_for_any_threads_and_any_batch(isa, threads, dtype):
    x, u, bias, _, bits = draw(600, 130, 300, dtype)
    gates = glai.pack_gates(bits)
    threads(1)
    whole = glai.gated_linear(x, gates, u, bias)
    threads(3)
    assert torch.equal(glai.gated_linear(x, gates, u, bias), whole)
    for rows in (slice(0, 1), slice(3, 10), slice(255, 258), slice(1, 600)):
        assert torch.equal(glai.gated_linear(x[rows], gates[rows], u, bias), whole[rows])


@pytest.mark.parametrize("sizes", [(5, 6, 4), (1, 1, 1), (0, 2, 3), (4, 33, 2)])
def test_gradients_of_two_orders(sizes):
    x, u, bias, _, bits = draw(*sizes, torch.float64)
    gates = glai.pack_gates(bits)
    leaves = [t.requires_grad_() for t in (x, u, bias)]
    assert gradcheck(lambda x, u, b: glai.gated_linear(x, gates, u, b), leaves)
    assert gradcheck(lambda x, u: glai.gated_linear(x, gates, u), leaves[:2])
    assert gradgradcheck(lambda x, u, b: glai.gated_linear(x, gates, u, b), leaves)


@pytest.mark.parametrize("needed", ["x", "u", "bias"])
def test_only_what_is_asked_for(needed):
    x, u, bias, dh, bits = draw(5, 6, 4)
    leaves = {"x": x, "u": u, "bias": bias}
    leaves[needed].requires_grad_()
    glai.gated_linear(x, glai.pack_gates(bits), u, bias).backward(dh)
    assert [name for name, leaf in leaves.items() if leaf.grad is not None] == [needed]


@pytest.mark.parametrize("with_bias", [True, False])
def test_opcheck(with_bias):
    x, u, bias, dh, bits = draw(5, 6, 4, torch.float64)
    gates = glai.pack_gates(bits)
    leaves = [t.requires_grad_() for t in (x, u, bias, dh)]
    arguments = (leaves[0], gates.words, gates.n_gates, leaves[1], leaves[2] if with_bias else None)
    torch.library.opcheck(_registered_gated_linear, arguments)
    torch.library.opcheck(_registered_apply_gates, (leaves[3], gates.words, gates.n_gates))


def test_compiled_step_equals_eager():
    x, u, bias, _, bits = draw(40, 35, 7)
    gates = glai.pack_gates(bits)
    leaves = [t.requires_grad_() for t in (x, u, bias)]

    def loss(x, u, bias):
        return glai.gated_linear(x, gates, u, bias).square().sum()

    expected = torch.autograd.grad(loss(*leaves), leaves)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    for got, want in zip(torch.autograd.grad(compiled(*leaves), leaves), expected, strict=True):
        torch.testing.assert_close(got, want)


def test_refusals():
    x, u, bias, _, bits = draw(3, 40, 4)
    gates = glai.pack_gates(bits)
    for call, sentence in (
        (
            lambda: glai.gated_linear(x, gates, u[:39]),
            r"u must be float32 \[P=40, D=4\], got float32 \[39, 4\]",
        ),
        (
            lambda: glai.gated_linear(x, gates, u[:, :3]),
            r"u must be float32 \[P=40, D=4\], got float32 \[40, 3\]",
        ),
        (lambda: glai.gated_linear(x, gates, u[0]), r"u must be float32 \[P=40, D=4\], got float32 \[4\]"),
        (lambda: glai.gated_linear(x, gates, u.double()), "u must be float32 .*, got float64"),
        (
            lambda: glai.gated_linear(x, gates, u, bias[:4]),
            r"bias must be float32 \[P=40\], got float32 \[4\]",
        ),
        (lambda: glai.gated_linear(x.half(), gates, u), "x must be float32 or float64"),
        (
            lambda: glai.gated_linear(x[0], gates, u),
            r"x must be float32 or float64 \[N, D\], got float32 \[4\]",
        ),
        (
            lambda: glai.gated_linear(x[:2], gates, u),
            r"gates.words must be int32 \[N=2, ceil\(P/32\)=2\], got int32 \[3, 2\]",
        ),
        (lambda: glai.gated_linear(x, gates, u.to("meta")), "u must be on cpu like x, got another device"),
    ):
        with pytest.raises(ValueError, match=f"gated_linear: {sentence}") as error:
            call()
        assert "\n" not in str(error.value)
    for bad in ((x.tolist(), gates, u), (x, gates, u.tolist()), (x, gates, u, bias.tolist())):
        with pytest.raises(TypeError, match="gated_linear: .* must be a torch.Tensor"):
            glai.gated_linear(*bad)
    with pytest.raises(TypeError, match="gated_linear: gates must be PackedGates, got Tensor"):
        glai.gated_linear(x, bits, u)
