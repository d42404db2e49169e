"""Calls of the gated products, their gradients, and the path matrices."""

import torch

import glai_native._native as _native
from fuzz.call import Call, Draw
from glai_native.ops import oracle as ref
from ops.oracle import (
    check_bias_grad,
    check_forward,
    check_gram,
    check_input_grad,
    check_kernel,
    check_linear,
    check_weight_grad,
)

FORMS = (None, None, None, "compaction", "subset_sums", "reference")


def gated_linear(draw: Draw) -> Call:
    p, d = draw.n_gates(), draw.size()
    words, bits = draw.gates(p)
    x, u, bias = draw.matrix(draw.n, d), draw.either(p, d), draw.maybe(lambda: draw.matrix(p))
    y = draw.rows(draw.n, p)
    given = {"x": x, "words": words, "n_gates": p, "u": u, "bias": bias, "y": y, "tf32": False}
    return Call(
        "gated_linear",
        _native.gated_linear,
        given | draw.execution(),
        ("y",),
        lambda _: check_linear(y, x, bits, u, bias),
    )


def apply_gates(draw: Draw) -> Call:
    p = draw.n_gates()
    words, bits = draw.gates(p)
    values, out = draw.matrix(draw.n, p), draw.rows(draw.n, p)

    def holds(_) -> None:
        assert torch.equal(out, ref.apply_gates_ref(values, bits))

    given = {"values": values, "words": words, "n_gates": p, "out": out, **draw.execution()}
    return Call("apply_gates", _native.apply_gates, given, ("out",), holds)


def gated_matmul(draw: Draw) -> Call:
    p, d, c, form = draw.n_gates(), draw.size(), draw.size(), draw.rng.choice(FORMS)
    words, bits = draw.gates(p)
    x, weight, bias = draw.matrix(draw.n, d), draw.either(p, d, c), draw.maybe(lambda: draw.matrix(p, c))
    y, precision = draw.rows(draw.n, c), precision_of(draw)
    taken = form or _native.explain_form("gated_matmul", words, p, d, c)["form"]

    def holds(_) -> None:
        if precision != "bf16":
            check_forward(y, x, bits, weight, bias, taken)
        assert torch.isfinite(y).all()

    given = {"x": x, "words": words, "n_gates": p, "weight": weight, "bias": bias, "y": y}
    given |= {"form": form, "precision": precision, "cuda": None, **draw.execution()}
    return Call("gated_matmul", _native.gated_matmul, given, ("y",), holds)


def precision_of(draw: Draw) -> str | None:
    return draw.rng.choice((None, None, "fp32", "bf16")) if draw.dtype == torch.float32 else None


def gated_matmul_input_grad(draw: Draw) -> Call:
    p, d, c, form = draw.n_gates(), draw.size(), draw.size(), draw.rng.choice(FORMS)
    words, bits = draw.gates(p)
    dy, weight, dx = draw.matrix(draw.n, c), draw.either(p, d, c), draw.rows(draw.n, d)
    precision = precision_of(draw)
    taken = form or _native.explain_form("gated_matmul_input_grad", words, p, d, c)["form"]

    def holds(_) -> None:
        if precision != "bf16":
            check_input_grad(dx, dy, bits, weight, taken)
        assert torch.isfinite(dx).all()

    given = {"dy": dy, "words": words, "n_gates": p, "weight": weight, "dx": dx, "form": form}
    given |= {"precision": precision, "cuda": None, **draw.execution()}
    return Call("gated_matmul_input_grad", _native.gated_matmul_input_grad, given, ("dx",), holds)


def gated_matmul_weight_grad(draw: Draw) -> Call:
    p, d, c = draw.n_gates(), draw.size(), draw.size()
    words, bits = draw.gates(p)
    x, dy, dw = draw.matrix(draw.n, d), draw.matrix(draw.n, c), draw.rows(p, d, c)
    accumulate, precision = draw.rng.random() < 0.3, precision_of(draw)
    db = draw.maybe(lambda: draw.rows(p, c))
    before = draw.started(dw) if accumulate else None
    bias_before = draw.started(db) if accumulate and db is not None else 0.0

    def holds(_) -> None:
        if precision != "bf16":
            check_weight_grad(dw, x, bits, dy, before)
            if db is not None and not accumulate:
                check_bias_grad(db, bits, dy)
        assert torch.isfinite(dw).all()
        assert db is None or torch.isfinite(db - bias_before).all()

    given = {"x": x, "words": words, "n_gates": p, "dy": dy, "dw": dw, "db": db, "accumulate": accumulate}
    given |= {"form": draw.rng.choice(FORMS[:-1]), "precision": precision, "cuda": None, **draw.execution()}
    return Call("gated_matmul_weight_grad", _native.gated_matmul_weight_grad, given, ("dw", "db"), holds)


def path_kernel(draw: Draw) -> Call:
    d, nb, draw.n = draw.size(), draw.rng.choice((0, 1, 7, 31, 33)), min(draw.n, 300)
    units = [draw.n_gates() for _ in range(draw.rng.choice((1, 1, 2, 3)))]
    symmetric = draw.rng.random() < 0.4
    xa = draw.matrix(draw.n, d)
    layers_a = [draw.gates(h) for h in units]
    xb, layers_b = (None, []) if symmetric else (draw.matrix(nb, d), [draw.gates(h, nb) for h in units])
    out = draw.rows(draw.n, draw.n if symmetric else nb)

    def holds(_) -> None:
        a = [bits for _, bits in layers_a]
        b = (xa, a) if symmetric else (xb, [bits for _, bits in layers_b])
        check_kernel(out, xa, a, *b)

    given = {"xa": xa, "words_a": [words for words, _ in layers_a], "xb": xb}
    given |= {"words_b": [words for words, _ in layers_b], "n_units": units, "out": out, "tf32": False}
    return Call("path_kernel", _native.path_kernel, given | draw.execution(), ("out",), holds)


def path_gram(draw: Draw) -> Call:
    p, d = draw.rng.choice((0, 1, 2, 3, 5, 6, 9)), min(draw.size(), 65)
    words, bits = draw.gates(p)
    x, weight = draw.matrix(draw.n, d), draw.maybe(lambda: draw.matrix(draw.n))
    features = draw.rows(draw.n, d + 1)
    weighted = None
    if weight is not None:
        strides = features.stride()
        weighted = draw.memory.write(draw.rng, tuple(features.shape), strides, draw.dtype)
    out = draw.rows(p * (d + 1), p * (d + 1))
    before = draw.started(out)

    def holds(_) -> None:
        upper = torch.ones_like(out, dtype=torch.bool).triu()
        assert torch.equal(out[~upper], before[~upper])
        check_gram(out.triu(), x, bits, weight, before.triu())

    given = {"x": x, "words": words, "n_gates": p, "sample_weight": weight, "features": features}
    given |= {"weighted": weighted, "out": out, "cuda": None, **draw.execution()}
    return Call("path_gram", _native.path_gram, given, ("features", "weighted", "out"), holds)


CALLS = (
    gated_linear,
    apply_gates,
    gated_matmul,
    gated_matmul,
    gated_matmul_input_grad,
    gated_matmul_weight_grad,
    gated_matmul_weight_grad,
    path_kernel,
    path_gram,
)
