"""selector_gates against its float64 reference: exact but where a pre-activation is within rounding of zero."""

import pytest
import torch
from torch.nn.functional import linear

from glai_native.gates import packing
from glai_native.ops import oracle as ref
from ops.oracle import check_gates
from ops.oracle import draw_selector as draw

# (N, D, H): zero, one, around a word, around a vector, more than one block of rows, of features, of units.
EDGES = [
    (0, 3, 4),
    (3, 0, 4),
    (3, 4, 0),
    (1, 1, 1),
    (31, 31, 31),
    (32, 32, 32),
    (33, 33, 33),
    (5, 7, 65),
    (257, 50, 97),
    (300, 784, 130),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", EDGES, ids=str)
def test_matches_reference(isa, shape, dtype):
    x, weight, bias = draw(*shape, dtype)
    for w in (weight, weight.T.contiguous().T):
        check_gates(packing.selector_gates(x, w, bias), x, w, bias)
        check_gates(packing.selector_gates(x, w), x, w, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_that_are_exact(isa, dtype):
    """Small integers: zeros are many, and off."""
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randint(-2, 3, size, generator=generator).to(dtype) for size in ((100, 9), (70, 9), (70,))
    )
    assert (linear(x, weight, bias) == 0).any()
    assert torch.equal(
        packing.selector_gates(x, weight, bias).unpack(), ref.selector_gates_ref(x, weight, bias)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_special_values(isa, dtype):
    infinity, nan = float("inf"), float("nan")
    tiny = torch.finfo(dtype).smallest_normal / 4
    x = torch.tensor([[1.0], [-1.0], [infinity], [nan]], dtype=dtype)
    weight = torch.tensor([[nan], [infinity], [-infinity], [tiny], [-tiny], [0.0]], dtype=dtype)
    expected = [[False, True, False, True, False, False], [False, False, True, False, True, False]]
    expected += [[False, True, False, True, False, False], [False] * 6]
    assert packing.selector_gates(x, weight).unpack().tolist() == expected


def test_strided_inputs(isa):
    x, weight, bias = draw(80, 90, 100)
    inputs = {
        "slices": (x[5:60, 3:40], weight[10:80, 3:40], bias[10:80]),
        "steps": (x[::2, ::2], weight[::2, ::2], bias[::2]),
        "transposed": (x[:, :80].T, weight[:, :80], bias),
        "expanded": (x[:1].expand(40, 90), weight[:1].expand(35, 90), bias[:1].expand(35)),
        "one unit": (x[:, ::5], weight[3:4, ::5], bias[3:4]),
        "one feature": (x[:, 3:4], weight[:, 3:4], bias),
    }
    for view in inputs.values():
        check_gates(packing.selector_gates(*view), *view)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_bits_for_any_threads_and_any_batch(isa, threads, dtype):
    """Pre-activations of rounding alone, so that another order of sums would show."""
    generator = torch.Generator().manual_seed(1)
    half = torch.randn((600, 300), generator=generator, dtype=dtype)
    x = torch.cat([half, half.flip(1)], dim=1)
    weight = torch.randn((130, 300), generator=generator, dtype=dtype)
    weight = torch.cat([weight, -weight.flip(1)], dim=1)
    threads(1)
    whole = packing.selector_gates(x, weight).words
    threads(2)
    assert torch.equal(packing.selector_gates(x, weight).words, whole)
    for rows in (slice(0, 1), slice(3, 10), slice(255, 258), slice(1, 600)):
        assert torch.equal(packing.selector_gates(x[rows], weight).words, whole[rows])


def test_refusals():
    x, weight, bias = draw(3, 4, 5)
    for call, sentence in (
        (
            lambda: packing.selector_gates(x, weight[:, :3]),
            r"weight must be float32 \[H, D=4\], got float32 \[5, 3\]",
        ),
        (lambda: packing.selector_gates(x, weight.double()), "weight must be float32"),
        (
            lambda: packing.selector_gates(x, weight, bias[:4]),
            r"bias must be float32 \[H=5\], got float32 \[4\]",
        ),
        (lambda: packing.selector_gates(x.half(), weight), "x must be float32 or float64"),
        (
            lambda: packing.selector_gates(x[0], weight),
            r"x must be float32 or float64 \[N, D\], got float32 \[4\]",
        ),
        (lambda: packing.selector_gates(x, weight[0]), r"weight must be float32 \[H, D=4\]"),
    ):
        with pytest.raises(ValueError, match=f"selector_gates: {sentence}"):
            call()
    for bad in ((x.tolist(), weight), (x, weight.tolist()), (x, weight, bias.tolist())):
        with pytest.raises(TypeError, match="selector_gates: .* must be a torch.Tensor"):
            packing.selector_gates(*bad)


def test_selectors_that_train_are_read_as_values():
    x, weight, bias = (t.requires_grad_() for t in draw(3, 4, 5))
    check_gates(packing.selector_gates(x, weight, bias), x.detach(), weight.detach(), bias.detach())
