"""Pruning and growing of models whose paths have output directions."""

import pytest
import torch

import glai_native as glai
from conftest import make_mlp, set_constant_units
from glai_native.cli.structures.inspection import model_sizes
from glai_native.estimator.directions import output_directions


@pytest.fixture
def x():
    return torch.randn(60, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64) + 1


def make_model(widths, x, own):
    """Random u and beta; ``own``: along the network's output weights, so that paths share directions."""
    mlp = set_constant_units(make_mlp(x.shape[1], *widths, 3, dtype=torch.float64))
    selector = glai.PathSelector(mlp, glai.InputProjection.fit(x))
    directions = output_directions(selector)
    if not own:
        directions[:-1] = torch.randn_like(directions[:-1])
    estimator = glai.PathEstimator(selector.n_paths, x.shape[1], 3, directions, dtype=torch.float64)
    with torch.no_grad():
        for parameter in estimator.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(0))
        estimator.u[-1], estimator.beta[-1] = 0, 0
    estimator.record(selector.gates(x), torch.arange(len(x)) % 3)
    return glai.GLAI(selector, estimator)


def difference(after, before, x):
    with torch.no_grad():
        expected = before(x)
        return float((after(x) - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("widths", [(9,), (5, 4), (4, 3, 2)])
def test_prune_keeps_the_output(tmp_path, x, widths, own):
    model = make_model(widths, x, own)
    gates = model.selector.unit_gates(x)
    pruned = glai.prune(model, gates)
    assert difference(pruned, model, x) <= 1e-10
    counts = pruned.selector.gates(x).counts()
    assert counts.min() > 0
    if len(widths) == 1:
        assert (counts == 60).sum() == 1
    assert model_sizes(pruned)["bytes"] < model_sizes(model)["bytes"]
    assert not pruned.estimator.u[-1].any()
    assert torch.equal(counts, pruned.estimator.on_counts.sum(1))
    pruned.save(tmp_path)
    assert torch.equal(glai.GLAI.load(tmp_path)(x), pruned(x))


def test_more_is_folded_where_directions_are_equal(x):
    paths = []
    for own in (False, True):
        model = make_model((5, 4), x, own)
        paths.append(glai.prune(model, model.selector.unit_gates(x)).selector.n_paths)
    assert paths[1] < paths[0]


@pytest.mark.parametrize("widths", [(9,), (5, 4)])
def test_prune_by_share_leaves_the_mean_in_the_constant_path(x, widths):
    model = make_model(widths, x, own=True)
    gates = model.selector.unit_gates(x)
    exact, one = glai.prune(model, gates), glai.prune(model, gates, keep=1e-9)
    on = exact.selector.gates(x).unpack().double().mean(0)
    e = exact.estimator
    expected = e.constant_weight + (on * e.u.T) @ e.directions
    torch.testing.assert_close(one.estimator.constant_weight, expected)
    torch.testing.assert_close(one.estimator.constant_bias, e.constant_bias + (on * e.beta) @ e.directions)
    half = glai.prune(model, gates, keep=0.5)
    assert half.selector.n_paths == -(-exact.selector.n_paths // 2)
    worth = (e.u.square().sum(1) + e.beta.square()).sqrt() * e.directions.norm(dim=1) * (on * (1 - on)).sqrt()
    left = worth[:-1].topk(half.selector.n_paths - 1).indices.sort().values
    assert torch.equal(half.estimator.u[:-1], e.u[left])
    assert torch.equal(half.estimator.directions[:-1], e.directions[left])


@pytest.mark.parametrize(("widths", "layer"), [((5,), 0), ((5, 4), 0), ((5, 4), 1)])
def test_grow_keeps_the_output_and_gives_new_paths_directions(x, widths, layer):
    model = make_model(widths, x, own=True)
    grown = glai.grow(model, layer, 40, seed=2)
    assert difference(grown, model, x) <= 1e-10
    assert grown.estimator.directions_id == glai.grow(model, layer, 40, seed=2).estimator.directions_id
    assert (grown.estimator.directions[:-1].norm(dim=1) > 0).all()
    grown(x).square().sum().backward()
    on = grown.selector.gates(x).counts()[:-1] > 0
    assert (grown.estimator.u.grad[:-1].abs().sum(1) > 0).equal(on)
    again = glai.prune(grown, grown.selector.unit_gates(x), min_norm=1e-300)
    assert difference(again, model, x) <= 1e-10
    assert again.selector.n_paths < model.selector.n_paths
