"""Calls of the functions on gates, and of what explains and plans."""

import torch

import glai_native._native as _native
from accuracy import EPS
from fuzz.call import Call, Draw
from glai_native.ops import oracle as ref


def check_words(draw: Draw) -> Call:
    p = draw.n_gates()
    return Call(
        "check_words",
        _native.check_words,
        {"words": draw.gates(p)[0], "n_gates": p},
        owner="PackedGates",
    )


def pack_gates(draw: Draw) -> Call:
    p = draw.n_gates()
    dtype = draw.rng.choice((torch.bool, draw.dtype))
    bits, words = draw.matrix(draw.n, p, dtype=dtype), draw.packed(draw.n, -(-p // 32), dtype=torch.int32)

    def holds(_) -> None:
        assert torch.equal(words, ref.pack_gates_ref(bits))

    given = {"bits": bits, "words": words, **draw.execution()}
    return Call("pack_gates", _native.pack_gates, given, ("words",), holds)


def unpack_gates(draw: Draw) -> Call:
    p = draw.n_gates()
    words, expected = draw.gates(p)
    bits = draw.packed(draw.n, p, dtype=torch.bool)

    def holds(_) -> None:
        assert torch.equal(bits, expected)

    given = {"words": words, "n_gates": p, "bits": bits, **draw.execution()}
    return Call("unpack_gates", _native.unpack_gates, given, ("bits",), holds)


def gate_counts(draw: Draw) -> Call:
    p = draw.n_gates()
    words, bits = draw.gates(p)
    counts = draw.packed(p, dtype=torch.int64)

    def holds(_) -> None:
        assert torch.equal(counts, ref.gate_counts_ref(bits))

    given = {"words": words, "n_gates": p, "counts": counts, **draw.execution()}
    return Call("gate_counts", _native.gate_counts, given, ("counts",), holds)


def gate_hamming(draw: Draw) -> Call:
    p = draw.n_gates()
    (words_a, a), (words_b, b) = draw.gates(p), draw.gates(p)
    distance = draw.packed(draw.n, dtype=torch.int64)

    def holds(_) -> None:
        assert torch.equal(distance, ref.gate_hamming_ref(a, b))

    given = {"words_a": words_a, "words_b": words_b, "n_gates": p, "distance": distance}
    return Call("gate_hamming", _native.gate_hamming, given | draw.execution(), ("distance",), holds)


def path_gates(draw: Draw) -> Call:
    n_units, n_inner = draw.n_gates(), draw.n_gates()
    (unit_words, units), (inner_words, inner) = draw.gates(n_units), draw.gates(n_inner)
    paths = (n_units + 1) * n_inner
    words = draw.packed(draw.n, -(-paths // 32), dtype=torch.int32)

    def holds(_) -> None:
        on = torch.cat([units, units.new_ones((draw.n, 1))], dim=1)
        expected = (on.unsqueeze(2) & inner.unsqueeze(1)).flatten(1)
        assert torch.equal(words, ref.pack_gates_ref(expected))

    given = {"unit_words": unit_words, "n_units": n_units, "inner_words": inner_words, "n_inner": n_inner}
    return Call(
        "path_gates", _native.path_gates, given | {"words": words} | draw.execution(), ("words",), holds
    )


def selector_gates(draw: Draw) -> Call:
    d, h = draw.size(), draw.n_gates()
    x, weight = draw.matrix(draw.n, d), draw.either(h, d)
    bias = draw.maybe(lambda: draw.matrix(h))
    words = draw.packed(draw.n, -(-h // 32), dtype=torch.int32)

    def holds(_) -> None:
        certain, bits = firing(x, weight, bias)
        got = ref.unpack_gates_ref(words, h)
        assert torch.equal(got & certain, bits & certain)
        assert torch.equal(ref.pack_gates_ref(got), words)  # padding bits are zero

    given = {"x": x, "weight": weight, "bias": bias, "words": words, "tf32": False}
    return Call("selector_gates", _native.selector_gates, given | draw.execution(), ("words",), holds)


def firing(x, weight, bias):
    """Which units fire, and for which that is beyond rounding."""
    eps = EPS[x.dtype]
    x, weight = x.double(), weight.double()
    bias = torch.zeros(len(weight), dtype=torch.float64) if bias is None else bias.double()
    value = x @ weight.T + bias
    bound = eps * (8 + (x.shape[1] + 1) ** 0.5) * (x.abs() @ weight.abs().T + bias.abs())
    return value.abs() > bound, value > 0


def explain_form(draw: Draw) -> Call:
    p = draw.n_gates()
    op = draw.rng.choice(("gated_matmul", "gated_matmul_input_grad", "gated_matmul_weight_grad"))
    given = {"op": op, "words": draw.gates(p)[0], "n_gates": p, "d": draw.size(), "c": draw.size()}
    return Call("explain_form", _native.explain_form, given)


def huge(draw: Draw) -> int:
    return draw.rng.choice((0, 1, 33, 4096, 2**31 - 1))


def explain_cuda_form(draw: Draw) -> Call:
    given = {"n": draw.rng.choice((0, 1, 4096, 2**31, 2**62)), "p": huge(draw), "depth": huge(draw)}
    given |= {"columns": huge(draw), "tensor_cores": draw.rng.random() < 0.5}
    given["estimate"] = draw.rng.choice((None, (0.5, 0.2), (0.0, 0.0), (float("nan"), -1.0)))
    return Call("explain_cuda_form", _native.explain_cuda_form, given)


def plan_cuda_product(draw: Draw) -> Call:
    given = {"op": "gated_matmul", "y": draw.rows(draw.n, draw.size()), "n_gates": huge(draw)}
    given |= {"depth": huge(draw), "tf32": False, "estimate": None, "form": None}
    return Call("plan_cuda_product", _native.plan_cuda_product, given, owner="gated_matmul")


def plan_cuda_weight_grad(draw: Draw) -> Call:
    given = {"x": draw.matrix(draw.n, draw.size()), "n_gates": huge(draw), "columns": huge(draw)}
    return Call(
        "plan_cuda_weight_grad", _native.plan_cuda_weight_grad, given, owner="gated_matmul_weight_grad"
    )


CALLS = (
    check_words,
    pack_gates,
    unpack_gates,
    gate_counts,
    gate_hamming,
    path_gates,
    selector_gates,
    explain_form,
    explain_cuda_form,
    plan_cuda_product,
    plan_cuda_weight_grad,
)
