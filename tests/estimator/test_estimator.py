import copy

import pytest
import torch
from torch import nn

import glai_native as glai
from conftest import make_mlp


@pytest.mark.parametrize(
    "sizes", [(6, 1, 3), (6, 33, 4), (6, 7, 9, 4), (6, 1, 1, 2), (6, 5, 4, 3, 2), (6, 3, 2, 3, 2, 2)]
)
@pytest.mark.parametrize("projected", [False, True])
def test_exact_emulation(sizes, projected, samples):
    """The strongest test there is: the network's own output, float64, relative 1e-10."""
    x = samples.double()
    mlp = make_mlp(*sizes, dtype=torch.float64, seed=1)
    for layer in mlp:  # large biases, so that they matter
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.bias)
    selector = glai.PathSelector(mlp, glai.InputProjection.fit(x) if projected else None)
    model = glai.GLAI(selector, glai.PathEstimator.from_selector(selector))
    expected = mlp(selector.project(x)).detach()
    assert float((model(x).detach() - expected).abs().max() / expected.abs().max()) < 1e-10
    torch.testing.assert_close(model(x, selector.gates(x)), model(x))


def test_emulation_of_a_bias_free_network(samples):
    mlp = nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 2, bias=False))
    selector = glai.PathSelector(mlp)
    estimator = glai.PathEstimator.from_selector(selector)
    torch.testing.assert_close(estimator(samples, selector.gates(samples)), mlp(samples))


def test_zero_paths_of_two_layers():
    """Nothing flows from a unit into an always-on unit."""
    selector = glai.PathSelector(make_mlp(3, 2, 4, 5))
    estimator = glai.PathEstimator.from_selector(selector)
    weight = estimator.weight.detach().view(3, 5, 3, 5)
    bias = estimator.bias.detach().view(3, 5, 5)
    assert bool((weight[:2, 4] == 0).all())
    assert bool((bias[:2, 4] == 0).all())
    assert bool((weight[2] == 0).all())  # paths that start in the always-on unit carry a constant only
    torch.testing.assert_close(bias[2, 4], selector.output[1])


def test_starts_at_zero_and_trains():
    estimator = glai.PathEstimator(5, 3, 2)
    gates = glai.pack_gates(torch.ones(7, 5, dtype=torch.bool))
    z = torch.randn(7, 3)
    y = estimator(z, gates)
    assert torch.equal(y, torch.zeros(7, 2))
    (y - 1).square().sum().backward()
    assert all(bool(parameter.grad.abs().sum() > 0) for parameter in estimator.parameters())
    assert "n_paths=5, in_features=3, out_features=2" in repr(estimator)


def test_record(selector, samples):
    estimator = glai.PathEstimator.from_selector(selector)
    gates = selector.gates(samples)
    targets = torch.arange(40) % 3
    estimator.record(gates, targets)
    estimator.record(gates[:5])
    assert int(estimator.samples_seen) == 45
    bits = gates.unpack()
    expected = torch.stack([bits[targets == c].sum(0) for c in range(4)], dim=1)
    assert torch.equal(estimator.on_counts, expected)


def test_record_refuses(selector, samples):
    estimator = glai.PathEstimator.from_selector(selector)
    gates = selector.gates(samples)
    with pytest.raises(ValueError, match="gates must have P=34 paths, got P=33"):
        estimator.record(selector.unit_gates(samples)[0])
    with pytest.raises(ValueError, match=r"class indices \[N=40\] or values .* got int64 \[39\]"):
        estimator.record(gates, torch.zeros(39, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"class indices \[N=40\], got torch.float32"):
        estimator.record(gates, torch.zeros(40))
    with pytest.raises(ValueError, match=r"targets must be class indices in \[0, C=4\), got 0 to 4"):
        estimator.record(gates, torch.arange(40) % 5)
    assert int(estimator.samples_seen) == 0


def test_estimator_refuses(monkeypatch):
    with pytest.raises(ValueError, match="n_paths must be >= 1, got 0"):
        glai.PathEstimator(0, 3, 2)
    with pytest.raises(
        MemoryError, match=r"weight \[P=135005697, D=100000, C=1000\] takes 54,002,278.8 GB and"
    ):
        glai.PathEstimator(513**3, 100000, 1000)
    with monkeypatch.context() as patch:
        patch.setattr("glai_native.machine.memory.free_memory", lambda device: 5 * 12 * 7 * 2 - 1)
        with pytest.raises(MemoryError, match=r"weight, computed in float64, \[P=5, D=7, C=2\] takes"):
            glai.PathEstimator.from_selector(glai.PathSelector(make_mlp(7, 4, 2)))
    with pytest.raises(ValueError, match="dtype must be"):
        glai.PathEstimator(2, 3, 2, dtype=torch.float16)


def test_model_refuses_what_does_not_belong_together(selector):
    estimator = glai.PathEstimator.from_selector(selector)
    with pytest.raises(TypeError, match="got PathEstimator and PathSelector"):
        glai.GLAI(estimator, selector)
    other = glai.PathSelector(make_mlp(6, 33, 4, seed=9))
    with pytest.raises(ValueError, match="estimator must have structure_id"):
        glai.GLAI(other, estimator)
    with pytest.raises(ValueError, match=r"estimator must be \[P=34, D=6, C\], got \[33, 6, 4\]"):
        glai.GLAI(selector, glai.PathEstimator(33, 6, 4))
    assert glai.GLAI(selector, glai.PathEstimator(34, 6, 4)).estimator.structure_id == selector.structure_id


def test_estimator_copies_and_moves_like_any_module(selector, samples):
    model = glai.GLAI(selector, glai.PathEstimator.from_selector(selector))
    clone = copy.deepcopy(model)
    clone.load_state_dict(model.state_dict())
    assert torch.equal(clone(samples), model(samples))
    wide = copy.deepcopy(model).double()
    torch.testing.assert_close(wide(samples.double()).float(), model(samples))
    assert wide.structure_id == model.structure_id


def test_a_state_of_another_structure_is_refused(selector):
    other = glai.PathSelector(make_mlp(6, 33, 4, seed=9))
    before = selector.state_dict()["hidden_weight_0"].clone()
    with pytest.raises(ValueError, match="PathSelector: the state must be of structure_id"):
        selector.load_state_dict(
            glai.PathSelector(make_mlp(6, 33, 4, seed=9), selector.projection).state_dict()
        )
    assert torch.equal(selector.hidden_weight_0, before)
    mine, theirs = (glai.PathEstimator.from_selector(s) for s in (selector, other))
    with pytest.raises(ValueError, match="PathEstimator: the state must be of structure_id"):
        mine.load_state_dict(theirs.state_dict())
    blank = glai.PathEstimator(34, 6, 4)
    blank.load_state_dict(theirs.state_dict())
    assert blank.structure_id == other.structure_id
    model = glai.GLAI(selector, mine)
    parts = {k: v for k, v in glai.GLAI(other, theirs).state_dict().items() if k != "selector.hidden_bias_0"}
    with pytest.raises(
        ValueError, match="a state of structure_id .*, must hold all of a model of the same sizes"
    ):
        model.load_state_dict(parts, strict=False)
