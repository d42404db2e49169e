"""Paths by number, and the gates of those that are kept."""

import itertools

import pytest
import torch

import glai_native as glai
from glai_native.gates.paths import all_paths, kept_path_gates, paths_of_units, units_of_paths

WIDTHS = [(9,), (5, 4), (4, 3, 2), (33,), (3, 33)]


@pytest.mark.parametrize("widths", WIDTHS)
def test_paths_by_number(widths):
    units = units_of_paths(all_paths(widths), widths)
    assert list(zip(*(u.tolist() for u in units), strict=True)) == list(
        itertools.product(*(range(width + 1) for width in widths))
    )
    assert torch.equal(paths_of_units(units, widths), all_paths(widths))


@pytest.mark.parametrize("n", [0, 1, 31, 33])
@pytest.mark.parametrize("widths", WIDTHS)
def test_gates_of_kept_paths(widths, n, monkeypatch):
    monkeypatch.setattr("glai_native.gates.paths.UNPACKED_GATES", 100)
    g = torch.Generator().manual_seed(n)
    layers = [glai.pack_gates(torch.rand((n, width), generator=g) > 0.4) for width in widths]
    gates = glai.path_gates(layers)
    kept = torch.cat([torch.rand(gates.n_gates - 1, generator=g) > 0.5, torch.tensor([True])]).nonzero()[:, 0]
    chosen = kept_path_gates(layers, kept)
    assert torch.equal(chosen.unpack(), gates.unpack()[:, kept])
    assert chosen.n_gates == len(kept)
