"""Growing: the output stays, and what grows out of a pruned structure is a structure like any other."""

import math

import pytest
import torch

import glai_native as glai
from glai_native.gates.paths import all_paths, units_of_paths
from model.conftest import assert_same_output, make_model


@pytest.mark.parametrize(("widths", "layer"), [((5,), 0), ((5, 4), 0), ((5, 4), 1), ((4, 3, 2), 1)])
@pytest.mark.parametrize("n_units", [1, 31])
def test_grow_keeps_the_output(tmp_path, x, widths, layer, n_units):
    model = make_model(widths, x)
    grown = glai.grow(model, layer, n_units, seed=3)
    expected = [width + n_units * (i == layer) for i, width in enumerate(widths)]
    assert list(grown.selector.widths) == expected
    assert grown.selector.kept_paths is None
    assert grown.estimator.n_paths == math.prod(width + 1 for width in expected)
    assert_same_output(grown, model, x)
    for before, after in zip(model.selector.unit_gates(x), grown.selector.unit_gates(x), strict=True):
        assert torch.equal(after.unpack()[:, : before.n_gates], before.unpack())
    assert grown.selector.parent_id == model.structure_id != grown.structure_id
    assert torch.equal(grown.estimator.on_counts.sum(0), model.estimator.on_counts.sum(0))
    new = grown.selector.unit_gates(x)[layer].unpack()[:, widths[layer] :]
    assert n_units == 1 or 0 < float(new.double().mean()) < 1
    grown.save(tmp_path)
    loaded = glai.GLAI.load(tmp_path)
    assert torch.equal(loaded(x), grown(x))
    assert loaded.selector.parent_id == model.structure_id


def test_grow_repeats_by_its_seed(x):
    model = make_model((5, 4), x)
    ids = [glai.grow(model, 1, 3, seed).structure_id for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]


def test_growing_beyond_memory_is_refused_before_it_is_begun(x, monkeypatch):
    model = make_model((6, 4), x)
    with pytest.raises(
        MemoryError, match=r"units in layer 1, P=7,000,000,000,000,035 paths, .* add fewer units"
    ):
        glai.grow(model, 1, 10**15)
    pruned = glai.prune(model, model.selector.unit_gates(x), keep=0.5)
    grown = glai.grow(pruned, 0, 3)
    monkeypatch.setattr("glai_native.machine.memory.free_memory", lambda device: 0)
    with pytest.raises(
        MemoryError, match=rf"a model of 9 units in layer 0, P={grown.selector.n_paths} paths, .* takes"
    ):
        glai.grow(pruned, 0, 3)


@pytest.mark.parametrize("layer", [0, 1])
def test_a_pruned_structure_grows_and_is_pruned_again(x, layer):
    parent = make_model((5, 4), x)
    model = glai.prune(parent, parent.selector.unit_gates(x), keep=0.5)
    grown = glai.grow(model, layer, 7)
    assert_same_output(grown, model, x)
    units = units_of_paths(model.selector.kept_paths, model.selector.widths)
    through = int((units[layer] == model.selector.widths[layer]).sum())
    assert grown.selector.n_paths == model.selector.n_paths + 7 * through
    again = glai.prune(grown, grown.selector.unit_gates(x), min_norm=1e-300)  # new paths have no weight
    assert again.selector.n_paths == model.selector.n_paths
    assert_same_output(again, model, x)


def test_grown_paths_train(x):
    grown = glai.grow(make_model((5, 4), x), 0, 6)
    grown(x).square().sum().backward()
    units = units_of_paths(all_paths(grown.selector.widths), grown.selector.widths)
    new = (units[0] >= 5) & (units[0] < 11)
    on = grown.selector.gates(x).counts() > 0
    gradient = grown.estimator.weight.grad.abs().sum((1, 2))
    assert (gradient[new & on] > 0).all()
    assert (gradient[~on] == 0).all()


def test_grow_refuses(x):
    model = make_model((5, 4), x)
    for bad, sentence in (
        ((2, 1), r"layer must be in \[0, L=2\), got 2"),
        ((-1, 1), "layer must be in"),
        ((0, 0), "n_units must be >= 1, got 0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            glai.grow(model, *bad)
