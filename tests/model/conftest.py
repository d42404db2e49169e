"""Models of random path weights, and samples for them."""

import pytest
import torch

import glai_native as glai
from conftest import make_mlp, set_constant_units


@pytest.fixture
def x():
    return torch.randn(60, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64) + 1


def make_model(widths, x, seed=0, constant=True):
    """A model of random path weights; ``constant`` makes one unit of each layer never on and one always on."""
    mlp = make_mlp(x.shape[1], *widths, 3, dtype=x.dtype, seed=seed)
    if constant:
        set_constant_units(mlp)
    selector = glai.PathSelector(mlp, glai.InputProjection.fit(x))
    estimator = glai.PathEstimator(selector.n_paths, x.shape[1], 3, dtype=x.dtype)
    with torch.no_grad():
        for parameter in estimator.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(seed))
    model = glai.GLAI(selector, estimator)
    estimator.record(selector.gates(x), torch.arange(len(x)) % 3)
    return model


def assert_same_output(after, before, x):
    with torch.no_grad():
        expected = before(x)
        assert float((after(x) - expected).abs().max()) <= 1e-10 * float(expected.abs().max())
