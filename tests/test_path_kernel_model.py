"""The dual closed form, held to float64 solutions over path features that are written out."""

import warnings

import pytest
import torch

import glai_native as glai
from conftest import make_mlp


def two_layers(dtype=torch.float32):
    x = torch.randn(80, 6, generator=torch.Generator().manual_seed(3)) * 3 + 1
    return glai.PathSelector(make_mlp(6, 33, 5, 4, dtype=dtype), glai.InputProjection.fit(x.to(dtype)))


def data(n=70, n_classes=4, seed=5):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator) * 3 + 1
    return x, torch.randint(n_classes, (n,), generator=generator)


def path_features(selector, x):
    """``[N, P·(D+1)]`` in float64: what the model never forms."""
    z = torch.nn.functional.pad(selector.project(x).double(), (0, 1), value=1.0)
    return (selector.gates(x).unpack().double().unsqueeze(2) * z.unsqueeze(1)).flatten(1)


def ridge(features, targets, l2, weight=None):
    weight = torch.ones(len(features)).double() if weight is None else weight.double()
    gram = features.T @ (features * weight.unsqueeze(1)) + l2 * torch.eye(features.shape[1]).double()
    return torch.linalg.solve(gram, features.T @ (targets * weight.unsqueeze(1)))


def one_hot(y, n_classes=4):
    return torch.nn.functional.one_hot(y, n_classes).double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fit_is_ridge_over_all_paths(dtype):
    selector = two_layers(dtype)
    x, y = data()
    x = x.to(dtype)
    new, _ = data(31, seed=6)
    model = glai.PathKernelModel(selector).fit(x, y, l2=20.0)
    w = ridge(path_features(selector, x), one_hot(y), 20.0)
    scores = model.predict(new.to(dtype))
    expected = path_features(selector, new.to(dtype)) @ w
    assert scores.dtype == dtype
    torch.testing.assert_close(
        scores.double(), expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-12
    )
