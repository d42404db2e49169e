"""Heads of many features and classes, by ``replace_mlp`` and ``fit`` at their defaults."""

import pytest
import torch

import glai_native as glai
from conftest import make_mlp
from glai_native.solvers.sgd.solving import UNITS_RATE, rate_of_features


@pytest.fixture(autouse=True)
def one_thread(threads):
    """Shapes are too small for more."""
    threads(1)


def clusters(n, features, classes, modes, seed):
    """Classes of Gaussian clusters within 12 dimensions; of one cluster each, a linear model suffices."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(12, features, generator=generator) / 12**0.5
    centres = 2 * torch.randn(modes * classes, 12, generator=generator)
    generator.manual_seed(seed)
    cluster = torch.randint(modes * classes, (n,), generator=generator)
    latent = centres[cluster] + 0.4 * torch.randn(n, 12, generator=generator)
    return latent @ basis + 0.1 * torch.randn(n, features, generator=generator) + 0.2, cluster % classes


def accuracy(model, x, y):
    with torch.no_grad():
        return float((model(x).argmax(1) == y).double().mean())


@pytest.mark.parametrize(("features", "classes"), [(768, 77), (1280, 30)])
@pytest.mark.parametrize("modes", [1, 3])
def test_an_untrained_head_beats_the_linear_model_or_says_that_it_suffices(features, classes, modes):
    network = torch.nn.Sequential(torch.nn.Flatten(), *make_mlp(features, 64, classes))
    head = glai.replace_mlp(network)
    assert head.estimator.kind == "units"
    x, y = clusters(2400, features, classes, modes, seed=1)
    result = glai.fit(head, x, y, progress=False)
    found = accuracy(network, *clusters(1000, features, classes, modes, seed=2))
    assert abs(found - result.score) < 0.06
    assert result.score > result.linear_score - 2 * result.standard_error
    if modes == 1:
        assert "the linear model without gates is as good within one standard error" in result.reason
        assert found > 0.95
    else:
        assert "better than the linear model without gates" in result.reason
        assert result.score > result.linear_score + 0.1


@pytest.mark.slow
def test_a_thousand_classes():
    x, y = clusters(3000, 768, 1000, 1, seed=1)
    head = glai.replace_mlp(make_mlp(768, 32, 1000), "")
    before = torch.nn.functional.cross_entropy(head(x).detach(), y)
    result = glai.fit(head, x, y, epochs=20, progress=False)
    assert result.history[-1].loss < 0.5 * before
    assert "diverged" not in result.reason
    assert accuracy(head, *clusters(1000, 768, 1000, 1, seed=2)) > 0.5


def test_numbers_that_have_seen_the_held_out_samples_are_doubted():
    """Labels are noise, which the network has by heart."""
    x, y = (torch.randn(600, 20), torch.arange(600) % 3)
    network = make_mlp(20, 256, 3)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    untrained = make_mlp(20, 256, 3)
    doubted = "if it was trained on those, they flatter it: pass validation=(x, y) of others"
    for one, others, expected in (
        (network, None, True),
        (network, (torch.randn(100, 20), torch.arange(100) % 3), False),
        (untrained, None, False),
    ):
        head = glai.replace_mlp(torch.nn.Sequential(*one), "", directions="units")
        validation = 0.1 if others is None else others
        said = glai.fit(head, x, y, solver="sgd", epochs=1, validation=validation, progress=False).reason
        assert (doubted in said) == expected, said


def test_the_rate_falls_with_features():
    assert rate_of_features(UNITS_RATE, 16) == rate_of_features(UNITS_RATE, 100) == UNITS_RATE
    assert rate_of_features(UNITS_RATE, 1000) == UNITS_RATE / 10
