"""Gates packed, counted, made of units and of paths, on the executor and on a GPU."""

import pytest
import torch

import glai_native as glai
from conftest import make_mlp
from glai_native.gates import packing
from glai_native.ops import oracle as ref
from ops.oracle import check_gates, draw_selector
from simt.shapes import SELECTOR_SHAPES


@pytest.mark.parametrize("p", [0, 1, 31, 32, 33, 100])
@pytest.mark.parametrize("n", [0, 1, 31, 33, 300])
def test_gate_bits(place, n, p):
    generator = torch.Generator().manual_seed(n + p)
    values = torch.randn((n, 2 * p), generator=generator)
    bits, other = values[:, :p] > 0, values[:, p:] > 0.3
    for source in (bits, values[:, :p], values[:, :p].double(), values[:, :p].half()):
        gates = glai.pack_gates(place(source))
        assert torch.equal(gates.words.cpu(), ref.pack_gates_ref(bits))
    assert torch.equal(gates.unpack().cpu(), bits)
    assert torch.equal(gates.counts().cpu(), bits.sum(0))
    assert torch.equal(gates.hamming(glai.pack_gates(place(other))).cpu(), (bits != other).sum(1))


@pytest.mark.parametrize("units", [(0,), (5,), (31,), (33,), (7, 0, 3), (40, 2)])
def test_path_gates(place, units):
    generator = torch.Generator().manual_seed(0)
    layers = [torch.rand((37, h), generator=generator) < 0.5 for h in units]
    paths = glai.path_gates([glai.pack_gates(place(layer)) for layer in layers])
    assert torch.equal(paths.unpack().cpu(), ref.path_gates_ref(layers))


@pytest.mark.parametrize("shape", SELECTOR_SHAPES, ids=str)
def test_selector_gates(place, arithmetic, shape):
    dtype, rounding = arithmetic
    x, weight, bias = draw_selector(*shape, dtype)
    views = [(x, weight, bias), (x, weight.T.contiguous().T, bias), (x[::3, 1:], weight[1:, 1:], bias[1:])]
    for x, weight, bias in views:
        check_gates(packing.selector_gates(place(x), place(weight), place(bias)), x, weight, bias, **rounding)
        check_gates(packing.selector_gates(place(x), place(weight)), x, weight, None, **rounding)


def test_selector_gates_of_exact_sums(place, arithmetic):
    """Small integers, exact in every type: zeros are many, and off."""
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randint(-2, 3, size, generator=generator).to(arithmetic[0])
        for size in ((140, 9), (70, 9), (70,))
    )
    expected = ref.selector_gates_ref(x.double(), weight.double(), bias.double())
    x[5] = float("nan")
    expected[5] = False
    assert torch.equal(packing.selector_gates(place(x), place(weight), place(bias)).unpack().cpu(), expected)
    alone = packing.selector_gates(place(x[77:78]), place(weight), place(bias))
    assert torch.equal(alone.unpack().cpu(), expected[77:78])


@pytest.mark.parametrize("sizes", [(6, 33, 3), (6, 40, 35, 3)])
def test_units_of_a_selector(place, sizes):
    x = torch.randn((300, 6), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mlp = make_mlp(*sizes, dtype=torch.float64)
    *earlier, last = [layer for layer in mlp if isinstance(layer, torch.nn.Linear)][:-1]
    gates = place(glai.PathSelector(mlp)).unit_gates(place(x))
    activation = x
    for layer in earlier:
        activation = layer(activation).relu()
    check_gates(gates[-1], activation.detach(), last.weight.detach(), last.bias.detach())
    whole = ref.path_gates_ref([layer.unpack().cpu() for layer in gates])
    assert torch.equal(glai.path_gates(gates).unpack().cpu(), whole)
