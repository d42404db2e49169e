"""Measures of patterns from packed bits, against the same from plain tensors."""

import itertools

import pytest
import torch

import glai_native as glai
from conftest import make_mlp
from glai_native.gates.patterns import count_gates, layer_agreement, oui, pattern_sizes


def bits_of(n, *widths, density=0.5, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.rand((n, width), generator=g) < density for width in widths]


@pytest.mark.parametrize("n", [2, 3, 31, 33])
@pytest.mark.parametrize("widths", [(1,), (32,), (33, 5), (4, 31, 2)])
def test_oui_over_all_pairs(n, widths):
    layers = bits_of(n, *widths, density=0.3)
    expected = torch.stack(
        [
            (2 * (bits[i] != bits[j]).double().mean()).clamp(max=1)
            for bits in layers
            for i, j in itertools.combinations(range(n), 2)
        ]
    ).mean()
    assert oui([glai.pack_gates(bits) for bits in layers], max_shifts=40) == pytest.approx(float(expected))


def test_oui_of_spaced_pairs_is_near_that_of_all():
    layers = [glai.pack_gates(bits) for bits in bits_of(600, 40, 9, density=0.1)]
    assert oui(layers) == pytest.approx(oui(layers, max_shifts=599), abs=0.01)


@pytest.mark.parametrize("n", [5, 34, 600])
def test_oui_is_of_samples_in_any_order(n):
    bits = [layer.sort(dim=0).values for layer in bits_of(n, 40, 9, density=0.3)]  # neighbours alike
    layers = [glai.pack_gates(layer) for layer in bits]
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    assert oui([layer[order] for layer in layers]) == oui(layers)
    assert oui(layers) == pytest.approx(oui(layers, max_shifts=n), abs=0.02)


def test_oui_at_its_ends():
    same = glai.pack_gates(torch.ones((9, 5)).bool())
    assert oui([same]) == 0.0
    assert oui([glai.pack_gates(torch.eye(4)), glai.pack_gates(torch.eye(4))]) == 1.0  # two of four differ
    assert oui([glai.pack_gates(torch.eye(4)), same[:4]]) == 0.5
    assert oui([same[:1]]) != oui([same[:1]])  # NaN: one sample is no pair
    assert oui([]) != oui([])


def test_the_monitor_reports_it():
    monitor = glai.StructureMonitor()
    layers = [glai.pack_gates(bits) for bits in bits_of(50, 7, 3)]
    monitor.update(layers)
    monitor.update(layers)
    assert monitor.history[0].oui == oui(layers)


@pytest.mark.parametrize("widths", [(3,), (33, 2), (1, 40)])
@pytest.mark.parametrize("n", [0, 1, 200])
def test_pattern_sizes(n, widths):
    layers = bits_of(n, *widths, density=0.02)
    expected = torch.cat(layers, dim=1).unique(dim=0, return_counts=True)[1].sort(descending=True).values
    sizes = pattern_sizes([glai.pack_gates(bits) for bits in layers])
    assert torch.equal(sizes, expected if n else sizes[:0])
    assert int(sizes.sum()) == n


@pytest.mark.parametrize("widths", [(5,), (4, 3)])
def test_count_gates(widths, monkeypatch):
    monkeypatch.setattr("glai_native.gates.patterns.COUNTED_GATES", 50)
    selector = glai.PathSelector(make_mlp(6, *widths, 2))
    x = torch.randn(33, 6)
    counts = count_gates(selector, selector.unit_gates(x))
    assert counts.samples == 33
    assert torch.equal(counts.paths, selector.gates(x).unpack().sum(0))
    for found, layer in zip(counts.units, selector.unit_gates(x), strict=True):
        assert torch.equal(found, layer.unpack().sum(0))


@pytest.mark.parametrize(("width", "other"), [(5, 5), (33, 31), (3, 8)])
def test_agreement_is_the_best_over_all_pairings(width, other, monkeypatch):
    monkeypatch.setattr("glai_native.gates.patterns.MATCHED_ROWS", 7)
    (a,), (b,) = bits_of(40, width), bits_of(40, other, seed=1)
    found = layer_agreement(glai.pack_gates(a), glai.pack_gates(b))
    assert found.pairs == min(width, other)
    equal = (a.unsqueeze(2) == b.unsqueeze(1)).double().mean(0)  # [width, other]
    if max(width, other) <= 8:
        few, many = sorted((equal, equal.T), key=len)[0], range(max(width, other))
        best = max(
            few[range(len(few)), list(columns)].mean() for columns in itertools.permutations(many, len(few))
        )
        assert found.matched == pytest.approx(float(best))
    if width == other:
        assert found.numbered == pytest.approx(float((a == b).double().mean()))
        assert found.matched >= found.numbered
    else:
        assert found.numbered is None


def test_agreement_of_shuffled_units_is_one():
    (a,) = bits_of(50, 70)
    shuffled = a[:, torch.randperm(70)]
    assert layer_agreement(glai.pack_gates(a), glai.pack_gates(shuffled)).matched == 1.0


def test_agreement_refuses_other_samples():
    (a,), (b,) = bits_of(5, 3), bits_of(4, 3)
    with pytest.raises(ValueError, match="got N=5 and N=4"):
        layer_agreement(glai.pack_gates(a), glai.pack_gates(b))
