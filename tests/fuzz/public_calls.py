"""Calls of what users call, with layouts of any kind: strided, transposed, repeated; ``out=`` and ``accumulate=``."""

import torch

import glai_native as glai
import glai_native._native as _native
from fuzz.call import Call, Draw
from fuzz.product_calls import FORMS
from glai_native.ops import oracle as ref
from ops.oracle import (
    check_forward,
    check_gram,
    check_input_grad,
    check_kernel,
    check_linear,
    check_weight_grad,
)


def strided(draw: Draw, *shape: int) -> torch.Tensor:
    """An input of any strides."""
    strides = [draw.rng.choice((0, 1, 2, 5, 40)) for _ in shape]
    return draw.memory.read(draw.rng, shape, tuple(strides), draw.dtype)


def packed_gates(draw: Draw) -> Call:
    p = draw.n_gates()
    words, bits = draw.gates(p)

    def holds(gates: glai.PackedGates) -> None:
        assert torch.equal(gates.unpack(), bits)
        assert torch.equal(gates.counts(), bits.sum(0))

    return Call("glai.PackedGates", glai.PackedGates, {"words": words, "n_gates": p}, holds=holds)


def pack_gates(draw: Draw) -> Call:
    bits = strided(draw, draw.n, draw.n_gates())

    def holds(gates: glai.PackedGates) -> None:
        assert torch.equal(gates.unpack(), bits > 0)

    return Call("glai.pack_gates", glai.pack_gates, {"bits": bits}, holds=holds)


def path_gates(draw: Draw) -> Call:
    layers = [packed(draw) for _ in range(draw.rng.choice((1, 2)))]

    def holds(gates: glai.PackedGates) -> None:
        assert torch.equal(gates.unpack(), ref.path_gates_ref([bits for _, bits in layers]))

    return Call("glai.path_gates", glai.path_gates, {"layers": [g for g, _ in layers]}, holds=holds)


def packed(draw: Draw, p: int | None = None, n: int | None = None):
    p = draw.n_gates() if p is None else p
    words, bits = draw.gates(p, n)
    return glai.PackedGates(words, p), bits


def gated_matmul(draw: Draw) -> Call:
    d, c, form = draw.size(), draw.size(), draw.rng.choice(FORMS)
    gates, bits = packed(draw)
    x, weight = strided(draw, draw.n, d), strided(draw, gates.n_gates, d, c)
    bias = draw.maybe(lambda: strided(draw, gates.n_gates, c))
    taken = form or _native.explain_form("gated_matmul", gates.words, gates.n_gates, d, c)["form"]
    given = {"x": x, "gates": gates, "weight": weight, "bias": bias, "form": form}
    return Call(
        "glai.gated_matmul",
        glai.gated_matmul,
        given,
        holds=lambda y: check_forward(y, x, bits, weight, bias, taken),
    )


def gated_linear(draw: Draw) -> Call:
    d = draw.size()
    gates, bits = packed(draw)
    x, u = strided(draw, draw.n, d), strided(draw, gates.n_gates, d)
    bias = draw.maybe(lambda: strided(draw, gates.n_gates))
    given = {"x": x, "gates": gates, "u": u, "bias": bias}
    return Call(
        "glai.gated_linear", glai.gated_linear, given, holds=lambda h: check_linear(h, x, bits, u, bias)
    )


def input_grad(draw: Draw) -> Call:
    d, c = draw.size(), draw.size()
    gates, bits = packed(draw)
    dy, weight = strided(draw, draw.n, c), strided(draw, gates.n_gates, d, c)
    op = "gated_matmul_input_grad"
    taken = _native.explain_form(op, gates.words, gates.n_gates, d, c)["form"]
    given = {"dy": dy, "gates": gates, "weight": weight}
    return Call(
        "glai." + op,
        glai.gated_matmul_input_grad,
        given,
        holds=lambda dx: check_input_grad(dx, dy, bits, weight, taken),
    )


def weight_grad(draw: Draw) -> Call:
    d, c = draw.size(), draw.size()
    gates, bits = packed(draw)
    x, dy = strided(draw, draw.n, d), strided(draw, draw.n, c)
    out = draw.maybe(lambda: draw.rows(gates.n_gates, d, c))
    accumulate = out is not None and draw.rng.random() < 0.5
    before = draw.started(out) if accumulate else None
    given = {"x": x, "gates": gates, "dy": dy, "out": out, "accumulate": accumulate}
    return Call(
        "glai.gated_matmul_weight_grad",
        glai.gated_matmul_weight_grad,
        given,
        ("out",),
        lambda dw: check_weight_grad(dw, x, bits, dy, before),
    )


def path_kernel(draw: Draw) -> Call:
    d, nb, draw.n = draw.size(), draw.rng.choice((0, 1, 7, 33)), min(draw.n, 300)
    units = [draw.n_gates() for _ in range(draw.rng.choice((1, 2)))]
    layers_a, symmetric = [packed(draw, h) for h in units], draw.rng.random() < 0.5
    xa, xb, layers_b = strided(draw, draw.n, d), None, None
    if not symmetric:
        xb, layers_b = strided(draw, nb, d), [packed(draw, h, nb) for h in units]
    out = draw.maybe(lambda: draw.rows(draw.n, draw.n if symmetric else nb))

    def holds(kernel: torch.Tensor) -> None:
        a = [bits for _, bits in layers_a]
        check_kernel(kernel, xa, a, *((xa, a) if symmetric else (xb, [bits for _, bits in layers_b])))

    given = {"xa": xa, "layers_a": [g for g, _ in layers_a], "xb": xb, "out": out}
    given["layers_b"] = None if symmetric else [g for g, _ in layers_b]
    return Call("glai.path_kernel", glai.path_kernel, given, ("out",), holds)


def path_gram(draw: Draw) -> Call:
    d = min(draw.size(), 65)
    gates, bits = packed(draw, draw.rng.choice((0, 1, 3, 6)))
    x, weight = strided(draw, draw.n, d), draw.maybe(lambda: strided(draw, draw.n))
    size = gates.n_gates * (d + 1)
    out = draw.maybe(lambda: draw.rows(size, size))
    before = None if out is None else draw.started(out)

    def holds(gram: torch.Tensor) -> None:
        check_gram(gram.triu(), x, bits, weight, None if before is None else before.triu())

    given = {"x": x, "gates": gates, "sample_weight": weight, "out": out}
    return Call("glai.path_gram", glai.path_gram, given, ("out",), holds)


CALLS = (
    packed_gates,
    pack_gates,
    path_gates,
    gated_matmul,
    gated_linear,
    input_grad,
    weight_grad,
    path_kernel,
    path_gram,
)
