"""An estimator of units: what the last hidden layer gives, and z, flow to the outputs by trained weights."""

import pytest
import torch
from torch import nn

import glai_native as glai
from conftest import make_mlp
from glai_native.machine.files import TensorFile
from model.test_model_files import rewrite_header, set_metadata


def unit_model(*sizes, x=None, dtype=torch.float64, seed=0):
    """A model of units with random numbers, as after training."""
    selector = glai.PathSelector(
        make_mlp(*sizes, dtype=dtype, seed=seed), None if x is None else glai.InputProjection.fit(x)
    )
    estimator = glai.PathEstimator.of_units(selector)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in estimator.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return glai.GLAI(selector, estimator)


@pytest.mark.parametrize("sizes", [(6, 33, 4), (6, 1, 3), (6, 5, 3, 4), (6, 32, 2, 31, 2)])
@pytest.mark.parametrize("projected", [False, True])
def test_exact_emulation(sizes, projected, samples):
    """The network's own output at the network's own size, float64, relative 1e-10, and its gradient."""
    x = samples.double()
    mlp = make_mlp(*sizes, dtype=torch.float64, seed=1)
    for layer in mlp:  # large biases, so that they matter
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.bias)
    selector = glai.PathSelector(mlp, glai.InputProjection.fit(x) if projected else None)
    model = glai.GLAI(selector, glai.PathEstimator.from_selector(selector, directions="units"))
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    found, expected = model(mine), mlp(selector.project(theirs))
    assert float((found - expected).detach().abs().max() / expected.detach().abs().max()) < 1e-10
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-10, atol=1e-10)
    h = mlp[:-1](selector.project(x))
    dy = 2 * expected.detach()
    weight = model.estimator.weight.grad[0]
    torch.testing.assert_close(weight[: sizes[-2]], h.detach().T @ dy)
    torch.testing.assert_close(weight[sizes[-2] :], selector.project(x).T @ dy)
    torch.testing.assert_close(model.estimator.bias.grad[0], dy.sum(0))
    assert model.estimator.trained_parameters == (sizes[-2] + 6 + 1) * sizes[-1]
    assert model.estimator.frozen_parameters == 0


def test_of_no_samples_and_of_nan(samples):
    model = unit_model(6, 5, 3, dtype=torch.float32)
    assert model(samples[:0]).shape == (0, 3)
    x = samples.clone()
    x[1, 2] = torch.nan
    found = model(x).isnan().all(1)
    assert found.tolist() == [row == 1 for row in range(len(x))]


def test_files(tmp_path, samples):
    model = unit_model(6, 5, 4, 3, x=samples, dtype=torch.float32)
    model.class_labels = ["a", "b", "c"]
    model.save(tmp_path)
    loaded = glai.GLAI.load(tmp_path)
    assert torch.equal(loaded(samples), model(samples))
    assert loaded.estimator.kind == "units"
    assert loaded.estimator.n_units == 4
    assert "n_units=4" in repr(loaded)
    assert loaded.predict(samples).tolist() == model.predict(samples).tolist()
    assert loaded.predict_proba(samples).shape == (len(samples), 3)
    path = tmp_path / "estimator.safetensors"
    assert TensorFile(path, "glai-estimator", newest=3).metadata["n_units"] == "4"
    rewrite_header(path, set_metadata("n_units", "10"))
    with pytest.raises(ValueError, match="n_units"):
        glai.GLAI.load(tmp_path)


def test_outputs_are_added_and_merged(samples):
    first, second = (unit_model(6, 5, 3, dtype=torch.float64) for _ in range(2))
    before = first(samples.double()).detach()
    for model, label in ((first, "new"), (second, "other")):
        model.class_labels = ["a", "b", "c"]
        model.add_classes([label])
        model.estimator.samples_seen.fill_(10)
        model.estimator.on_counts.fill_(3)
    torch.testing.assert_close(first(samples.double())[:, :3], before)
    merged = glai.merge([first, second])
    assert merged.class_labels == ["a", "b", "c", "new", "other"]
    assert merged.estimator.n_units == 5
    torch.testing.assert_close(merged(samples.double())[:, :3], before)
    paths = glai.GLAI(first.selector, glai.PathEstimator(6, 6, 4, dtype=torch.float64))
    paths.class_labels = first.class_labels
    with pytest.raises(ValueError, match="of one kind, model 0 has units and model 1 has full paths"):
        glai.merge([first, paths])


def test_refuses(samples):
    model = unit_model(6, 5, 3, dtype=torch.float32)
    selector, estimator = model.selector, model.estimator
    with pytest.raises(ValueError, match="must be of P=1 path"):
        glai.PathEstimator(2, 11, 3, n_units=5)
    with pytest.raises(ValueError, match="must be of P=1 path"):
        glai.PathEstimator(1, 5, 3, n_units=5)
    with pytest.raises(ValueError, match="'units' or None, got 'unit'"):
        glai.PathEstimator.from_selector(selector, directions="unit")
    with pytest.raises(ValueError, match="out_features must be given"):
        glai.PathEstimator.of_units(glai.PathSelector.from_layers(selector.projection, selector.hidden))
    with pytest.raises(ValueError, match=r"estimator must be \[P=1, D=11, C\]"):
        glai.GLAI(selector, glai.PathEstimator(1, 12, 3, n_units=6))
    with pytest.raises(ValueError, match="gates must be None, or of the path that is always on, got P=6"):
        model(samples, selector.gates(samples))
    with pytest.raises(ValueError, match=r"unit features must be \[N, D=11\]"):
        estimator(samples)
    with pytest.raises(ValueError, match="got P=6"):
        estimator(glai.unit_features(selector, samples), selector.gates(samples))
    with pytest.raises(ValueError, match="z must be float32"):
        glai.unit_features(selector, samples.double())
