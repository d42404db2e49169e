"""No size, stride or overlap takes a native call past the memory that it is given: refused in a sentence, or right."""

import math

import numpy as np
import pytest
import torch

import glai_native as glai
import glai_native._native as _native

RUN = {"threads": 1, "stream": 0}
PRODUCT = {"form": None, "precision": None, "cuda": None}
VAST = 2**61
MOST = 2**31 - 1


def words(n, p):
    return torch.zeros((n, -(-p // 32)), dtype=torch.int32)


def no_values(*shape, dtype=torch.float32):
    return torch.empty(0, dtype=dtype).as_strided(shape, [0] * len(shape))


@pytest.mark.parametrize(
    ("n_gates", "sentence"),
    [
        (2**63 - 1, "n_gates must be less than 2\\*\\*31, got 9223372036854775807"),
        (2**62, "n_gates must be less than 2\\*\\*31"),
        (2**31, "n_gates must be less than 2\\*\\*31, got 2147483648"),
        (MOST, "words must be int32"),
        (-1, "n_gates must be >= 0, got -1"),
        (-(2**63), "n_gates must be >= 0"),
        (2**63, "n_gates must fit 64 bits"),
        (-(2**100), "n_gates must fit 64 bits"),
    ],
)
def test_no_number_of_gates_is_beyond_its_words(n_gates, sentence):
    one = words(1000, 1)
    calls = (
        lambda: glai.PackedGates(one, n_gates),
        lambda: _native.unpack_gates(one, n_gates, torch.zeros((1000, 1), dtype=torch.bool), **RUN),
        lambda: _native.gate_counts(one, n_gates, torch.zeros(1, dtype=torch.int64), **RUN),
        lambda: _native.explain_form("gated_matmul", one, n_gates, 3, 3),
    )
    for call in calls:
        with pytest.raises(ValueError, match=sentence.replace("words", r"(gates\.)?words")) as error:
            call()
        assert "\n" not in str(error.value)


def test_products_of_sizes_do_not_overflow():
    most = no_values(0, -(-MOST // 32), dtype=torch.int32)
    with pytest.raises(
        ValueError, match="path_gates: n_gates must be less than 2\\*\\*31, got 4611686016279904256"
    ):
        _native.path_gates(most, MOST, most, MOST, most, **RUN)
    with pytest.raises(ValueError, match=r"out must be float32 \[P\*\(D\+1\)=4611686016279904256"):
        _native.path_gram(
            x=no_values(0, MOST),
            words=most,
            n_gates=MOST,
            sample_weight=None,
            features=no_values(0, MOST + 1),
            weighted=None,
            out=torch.zeros(1, 1),
            cuda=None,
            **RUN,
        )
    for d, c in ((VAST, 1), (1, 2**31), (-1, 3), (3, -(2**63))):
        with pytest.raises(ValueError, match=r"explain_form: [dc] must be (less than|>= 0)"):
            _native.explain_form("gated_matmul", words(3, 5), 5, d, c)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_plans_of_the_largest_sizes_are_plans(dtype):
    y = no_values(VAST, 0, dtype=dtype)
    for form in (None, "compaction", "subset_sums"):
        _, slices, memory = _native.plan_cuda_product("gated_matmul", y, MOST, MOST, False, None, form)
        assert slices >= 1
        assert memory >= 0
    wide = no_values(0, MOST, dtype=dtype)
    with pytest.raises(ValueError, match="their sums fit no memory"):
        _native.plan_cuda_product("gated_matmul", wide, MOST, MOST, False, None, "reference")
    assert _native.plan_cuda_weight_grad(torch.zeros((1, 5), dtype=dtype).expand(2**60, 5), MOST, MOST) >= 1
    for n in (0, 1, 2**31, 2**63 - 1):
        why = _native.explain_cuda_form(n, MOST, MOST, MOST, True, (0.5, 0.1))
        assert all(
            math.isfinite(why[form]) and why[form] >= 0 for form in ("dense", "compaction", "reference")
        )
    for wrong in ({"n": -1}, {"p": 2**31}, {"depth": VAST}, {"columns": -1}):
        given = {"n": 1, "p": 1, "depth": 1, "columns": 1, "tensor_cores": False, "estimate": None}
        with pytest.raises(ValueError, match=f"explain_cuda_form: {next(iter(wrong))} must be"):
            _native.explain_cuda_form(**given | wrong)
    with pytest.raises(ValueError, match=r"y must be float32, .* \[N, C\], got float32 \[3\]"):
        _native.plan_cuda_product("gated_matmul", torch.zeros(3), 1, 1, False, None, None)


def test_nothing_to_write_takes_no_time():
    """Beside a size of zero any size is one that a tensor can have, and no loop may run over it."""
    bits, none = no_values(VAST, 0, dtype=torch.bool), no_values(VAST, 0, dtype=torch.int32)
    x, empty = no_values(VAST, 0), torch.zeros(0)
    _native.pack_gates(bits, none, **RUN)
    _native.unpack_gates(none, 0, bits, **RUN)
    _native.path_gates(none, 0, none, 0, none, **RUN)
    _native.gate_counts(none, 0, torch.zeros(0, dtype=torch.int64), **RUN)
    _native.selector_gates(x, torch.zeros(0, 0), None, none, False, **RUN)
    _native.gated_linear(x, none, 0, torch.zeros(0, 0), empty, x, False, **RUN)
    _native.apply_gates(x, none, 0, x.clone(), **RUN)
    _native.gated_matmul(x, none, 0, torch.zeros(0, 0, 0), None, no_values(VAST, 0), **PRODUCT, **RUN)
    _native.gated_matmul_input_grad(x, none, 0, torch.zeros(0, 0, 0), no_values(VAST, 0), **PRODUCT, **RUN)
    _native.gated_matmul_weight_grad(
        x, none, 0, x, torch.zeros(0, 0, 0), torch.zeros(0, 0), False, **PRODUCT, **RUN
    )
    _native.path_kernel(x, [none], torch.zeros(0, 0), [words(0, 0)], [0], no_values(VAST, 0), False, **RUN)
    _native.model_output(
        x=x, hidden_weights=[torch.zeros(0, 0)], hidden_biases=[empty], weight=torch.zeros(1, 0, 0),
        bias=torch.zeros(1, 0), y=no_values(VAST, 0), threads=1,
    )  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("along", [False, True])
def test_a_model_writes_its_outputs_alone(isa, along, dtype):
    torch.manual_seed(0)
    n, d, h, c = 5, 4, 3, 7
    new = lambda *shape: torch.randn(shape, dtype=dtype)  # noqa: E731
    given = {"x": new(n, d), "hidden_weights": [new(h, d)], "hidden_biases": [new(h)], "threads": 1}
    given |= (
        {"weight": new(h + 1, d), "bias": new(h + 1)}
        if along
        else {"weight": new(h + 1, d, c), "bias": new(h + 1, c)}
    )
    if along:
        given |= {"directions": new(h + 1, c), "constant_weight": new(d, c), "constant_bias": new(c)}
    y = new(n, c)
    _native.model_output(**given, y=y)
    wide = torch.full((n, c + 4), torch.nan, dtype=dtype)
    _native.model_output(**given, y=wide[:, 2 : 2 + c])
    assert torch.equal(wide[:, 2 : 2 + c], y)
    assert wide[:, :2].isnan().all()
    assert wide[:, 2 + c :].isnan().all()
    for name in set(given) - {"threads", "hidden_weights", "hidden_biases"}:
        memory = torch.zeros(1000, dtype=dtype)
        shared = memory[: given[name].numel()].view(given[name].shape)
        with pytest.raises(ValueError, match=f"y must not share memory with {name}"):
            _native.model_output(**given | {name: shared}, y=memory[: n * c].view(n, c))


def operands(n=6, p=40, d=5, c=4):
    generator = torch.Generator().manual_seed(1)
    new = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    gates = glai.pack_gates(torch.rand((n, p), generator=generator) < 0.5)
    run = {"threads": 1, "stream": 0}
    product = {"words": gates.words, "n_gates": p, "form": None, "precision": None, "cuda": None} | run
    plain = {"words": gates.words, "n_gates": p} | run
    unit = glai.pack_gates(torch.rand((n, 3), generator=generator) < 0.5)
    return {
        _native.pack_gates: ({"bits": new(n, p), "words": words(n, p)} | run, ["words"]),
        _native.gate_counts: (plain | {"counts": torch.zeros(p, dtype=torch.int64)}, ["counts"]),
        _native.gate_hamming: (
            {"words_a": gates.words, "words_b": words(n, p), "n_gates": p, "distance": torch.zeros(n).long()} | run,
            ["distance"],
        ),
        _native.path_gates: (
            {"unit_words": unit.words, "n_units": 3, "inner_words": gates.words, "n_inner": p}
            | {"words": words(n, 4 * p)}
            | run,
            ["words"],
        ),
        _native.selector_gates: (
            {"x": new(n, d), "weight": new(p, d), "bias": new(p), "words": words(n, p), "tf32": False} | run,
            ["words"],
        ),
        _native.gated_linear: (
            plain | {"x": new(n, d), "u": new(p, d), "bias": new(p), "y": new(n, p), "tf32": False},
            ["y"],
        ),
        _native.apply_gates: (plain | {"values": new(n, p), "out": new(n, p)}, ["out"]),
        _native.gated_matmul: (
            product | {"x": new(n, d), "weight": new(p, d, c), "bias": new(p, c), "y": new(n, c)},
            ["y"],
        ),
        _native.gated_matmul_input_grad: (
            product | {"dy": new(n, c), "weight": new(p, d, c), "dx": new(n, d)},
            ["dx"],
        ),
        _native.gated_matmul_weight_grad: (
            product
            | {"x": new(n, d), "dy": new(n, c), "dw": new(p, d, c), "db": new(p, c), "accumulate": False},
            ["dw", "db"],
        ),
        _native.path_gram: (
            plain
            | {"x": new(n, d), "sample_weight": new(n), "features": new(n, d + 1), "weighted": new(n, d + 1)}
            | {"out": new(p * (d + 1), p * (d + 1)), "cuda": None},
            ["out", "features", "weighted"],
        ),
    }  # fmt: skip


def tensors_of(given):
    return {name: value for name, value in given.items() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize("op", list(operands()), ids=lambda op: op.__name__)
def test_what_is_written_lies_apart(op):
    given, written = operands()[op]
    op(**given)
    for name in written:
        for other in set(tensors_of(given)) - {name}:
            arena = torch.zeros(1 << 18, dtype=torch.int64)
            shared = {
                one: arena.view(given[one].dtype)[: given[one].numel()].view(given[one].shape)
                for one in (name, other)
            }
            with pytest.raises(ValueError, match=f"{op.__name__}: .* must not share memory with") as error:
                op(**given | shared)
            assert "\n" not in str(error.value)
            assert not arena.any()


@pytest.mark.parametrize("op", list(operands()), ids=lambda op: op.__name__)
def test_numbers_between_two_numbers_places_are_refused(op):
    given, _ = operands()[op]
    for name, tensor in tensors_of(given).items():
        memory = np.zeros(tensor.numel() * tensor.itemsize + 8, dtype=np.uint8)[1:]
        numbers = memory[: tensor.numel() * tensor.itemsize].view(str(tensor.dtype).removeprefix("torch."))
        with pytest.raises(ValueError, match=r"must begin at a multiple of its numbers' size, pass a copy"):
            op(**given | {name: torch.from_numpy(numbers).view(tensor.shape)})


def test_columns_of_one_buffer_lie_apart():
    """Slices of rows begin before each other's end and share nothing."""
    x, gates, weight = torch.randn(6, 5), glai.pack_gates(torch.ones(6, 3)), torch.randn(3, 5, 4)
    buffer = torch.zeros(6, 9)
    buffer[:, :5] = x
    given = {"words": gates.words, "n_gates": 3, "weight": weight, "bias": None, **PRODUCT, **RUN}
    _native.gated_matmul(x=buffer[:, :5], y=buffer[:, 5:], **given)
    assert torch.equal(buffer[:, 5:], glai.gated_matmul(x, gates, weight))
    assert torch.equal(buffer[:, :5], x)
    with pytest.raises(ValueError, match="y must not share memory with x"):
        _native.gated_matmul(x=buffer[:, :5], y=buffer[:, 4:8], **given)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"threads": "1"}, "gated_matmul: threads must be an int, got str"),
        ({"stream": 1.5}, "gated_matmul: stream must be an int, got float"),
        ({"n_gates": None}, "gated_matmul: n_gates must be an int, got NoneType"),
        ({"form": 3}, "gated_matmul: form must be None or a str, got int"),
        ({"precision": 3}, "gated_matmul: precision must be None or a str, got int"),
        ({"cuda": 3}, "gated_matmul: cuda must be None or a CudaProduct, got int"),
        ({"x": None}, "gated_matmul: x must be a torch.Tensor, got NoneType"),
    ],
)
def test_other_types_are_one_sentence(wrong, sentence):
    given, _ = operands()[_native.gated_matmul]
    with pytest.raises(TypeError) as error:
        _native.gated_matmul(**given | wrong)
    assert str(error.value) == sentence


@pytest.mark.parametrize("threads", [-1, 0, 2**31, 2**62])
def test_any_number_of_threads_is_one(threads):
    given, _ = operands()[_native.gated_matmul]
    _native.gated_matmul(**given)
    expected = given["y"].clone()
    _native.gated_matmul(**given | {"threads": threads})
    assert torch.equal(given["y"], expected)
