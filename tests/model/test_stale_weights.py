"""Weights that are no longer of their statistics say so, and samples that are not there are not taken out."""

import copy
import warnings

import pytest
import torch

import glai_native as glai
from conftest import make_mlp


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(240) % 3
    x = torch.randn(240, 4, generator=generator, dtype=torch.float64)
    return x + torch.eye(3, 4, dtype=torch.float64)[y] * 2, y


@pytest.fixture
def model(data):
    selector = glai.PathSelector(make_mlp(4, 6, 3, dtype=torch.float64), glai.InputProjection.fit(data[0]))
    return glai.fit(selector, *data, solver="statistics", l2=0.5, progress=False).model


def taken_out(model, x, y):
    z = model.selector.project(x)
    model.statistics.downdate(z, model.selector.gates(x), y)


def test_samples_taken_out_make_the_weights_stale(model, data, tmp_path):
    x, y = data
    model.save(tmp_path / "m")
    before = copy.deepcopy(model.estimator)
    with warnings.catch_warnings(action="error"):
        model(x)
    taken_out(model, x[:26], y[:26])
    assert model.is_stale
    with pytest.warns(UserWarning, match=r"changed since the weights were solved .* model.solve\(\)"):
        model(x)
    with pytest.raises(ValueError, match=r"GLAI.save: the statistics have changed .* model.solve\(\)"):
        model.save(tmp_path / "m")
    assert glai.GLAI.load(tmp_path / "m").statistics.n_samples == 240
    model.solve(0.5)
    assert not model.is_stale
    once = glai.fit(model.selector, x[26:], y[26:], solver="statistics", l2=0.5, progress=False).model
    torch.testing.assert_close(model.estimator.weight, once.estimator.weight, rtol=0, atol=1e-9)
    assert not torch.equal(model.estimator.weight, before.weight)
    model.save(tmp_path / "m")
    loaded = glai.GLAI.load(tmp_path / "m")
    assert loaded.statistics.n_samples == 214
    assert not loaded.is_stale
    taken_out(loaded, x[26:30], y[26:30])
    assert loaded.is_stale


def test_what_changes_both_leaves_nothing_stale(model):
    model.class_labels = ["b", "c", "d"]
    model.add_classes(["a"])
    model.permute_outputs(torch.tensor([3, 2, 1, 0]))
    assert not model.is_stale
    assert not copy.deepcopy(model).is_stale


def test_solve_keeps_labels_and_share(model, data):
    x, y = data
    model.class_labels = ["b", "c", "d"]
    share = model.estimator.provenance["l2"] / model.estimator.provenance["mean_diagonal"]
    taken_out(model, x[:26], y[:26])
    model.solve()
    made = model.estimator.provenance
    assert made["l2"] / made["mean_diagonal"] == pytest.approx(share)
    assert model.class_labels == ["b", "c", "d"]
    assert int(model.estimator.samples_seen) == 214
    model.statistics = None
    with pytest.raises(ValueError, match="the model has no statistics"):
        model.solve()


@pytest.mark.parametrize("n", [1, 26, 120, 239])
def test_taken_out_twice(model, data, n):
    """Few samples of many features: what is left shows that there were no others like them."""
    x, y = data[0][:n], data[1][:n]
    few = glai.PathStatistics(7, 4, 3)
    selector = model.selector
    rows = min(n + 4, 240)
    z, gates = selector.project(data[0]), selector.gates(data[0])
    few.update(z[:rows], gates[:rows], data[1][:rows])
    few.downdate(selector.project(x), selector.gates(x), y)
    state = few.to_bytes()
    with pytest.raises(ValueError, match="downdate: the samples must be among "):
        few.downdate(selector.project(x), selector.gates(x), y)
    assert few.to_bytes() == state


def test_other_targets_are_not_there(model, data):
    x, _ = data
    selector = model.selector
    z, gates = selector.project(x), selector.gates(x)
    values = torch.randn(240, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    statistics = glai.PathStatistics(7, 4, 2)
    statistics.update(z, gates, values)
    with pytest.raises(ValueError, match="downdate: the samples must be among"):
        statistics.downdate(z[:200], gates[:200], values[:200] * 3)
    statistics.downdate(z[:200], gates[:200], values[:200])
    statistics.downdate(z[200:], gates[200:], values[200:])
    assert statistics.n_samples == 0
    assert not any(bool(sums.any()) for sums in statistics.sums().values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_but_a_few_can_be_taken_out(model, data, dtype):
    x, y = data
    selector = model.selector
    z, gates = selector.project(x).to(dtype), selector.gates(x)
    statistics = glai.PathStatistics(7, 4, 3, dtype)
    for _ in range(20):
        statistics.update(z, gates, y)
    for _ in range(19):
        statistics.downdate(z, gates, y)
    statistics.downdate(z[3:], gates[3:], y[3:])
    assert statistics.n_samples == 3
    statistics.downdate(z[:3], gates[:3], y[:3])
    assert statistics.n_samples == 0
