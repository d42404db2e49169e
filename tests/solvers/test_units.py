"""Units by every solver that has them: sums and ridge, the native loop, the choice between them."""

import pytest
import torch

import glai_native as glai
from conftest import make_mlp
from glai_native.solvers import choice
from glai_native.solvers.sgd import arguments, native

N, D, H, C = 200, 7, 9, 4


@pytest.fixture
def selector():
    return glai.PathSelector(make_mlp(D, 5, H, C), glai.InputProjection.fit(data()[0]))


def data(n=N, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, D, generator=generator) + 1
    return x, (3 * x[:, 0].sin() * x[:, 1] + x[:, 2]).abs().long() % C


def rings(n, seed=0):
    """Classes that no linear model separates."""
    x, _ = data(n, seed)
    radius = (x[:, :2] - 1).norm(dim=1)
    return x, (radius > 0.7).long() + (radius > 1.2).long() + (radius > 1.7).long()


def dense_ridge(phi, targets, l2):
    gram = phi.T @ phi + l2 * torch.eye(phi.shape[1], dtype=phi.dtype)
    return torch.linalg.solve(gram, phi.T @ targets)


def numbers_of(estimator):
    return torch.cat([estimator.weight[0], estimator.bias]).detach()


def test_statistics_are_ridge_on_unit_features(selector, tmp_path):
    selector = selector.double()
    x, y = data()
    x = x.double()
    features = glai.unit_features(selector, selector.project(x))
    phi = torch.cat([features, torch.ones(N, 1, dtype=torch.float64)], dim=1)
    targets = torch.nn.functional.one_hot(y, C).double()
    statistics = glai.PathStatistics.of_units(selector, C - 1)
    few = y < C - 1
    statistics.update(features[few], None, y[few])
    statistics.add_outputs(1)
    other = glai.PathStatistics.of_units(selector, C)
    other.update(features[~few], None, y[~few])
    statistics.merge(other)
    expected = dense_ridge(phi, targets, 0.3)
    found = statistics.solve(0.3)
    torch.testing.assert_close(numbers_of(found), expected, rtol=1e-9, atol=1e-9)
    assert found.kind == "units"
    assert found.structure_id == selector.structure_id
    statistics.save(tmp_path / "sums")
    again = glai.PathStatistics.load(tmp_path / "sums")
    assert again.n_units == H
    assert torch.equal(numbers_of(again.solve(0.3)), numbers_of(found))
    again.downdate(features[:50], None, y[:50])
    expected = dense_ridge(phi[50:], targets[50:], 0.3)
    torch.testing.assert_close(numbers_of(again.solve(0.3)), expected, rtol=1e-8, atol=1e-8)
    gcv = statistics.solve("gcv", progress=False)
    loo = statistics.solve("loo", data=[(features, None, y)], progress=False)
    assert gcv.provenance["l2"] > 0
    assert loo.provenance["l2"] > 0
    summed = glai.PathStatistics.of_units(selector, C)
    project = lambda raw: glai.unit_features(selector, selector.project(raw))  # noqa: E731
    glai.accumulate(summed, x, None, y, project=project, chunk=64, progress=False)
    torch.testing.assert_close(summed.solve(0.3).weight, found.weight, rtol=1e-9, atol=1e-9)


def test_statistics_refuse(selector):
    x, y = data()
    statistics = glai.PathStatistics.of_units(selector, C)
    z = selector.project(x)
    with pytest.raises(ValueError, match="of units, got those of paths"):
        statistics.merge(glai.PathStatistics(1, H + D, C, structure_id=selector.structure_id))
    statistics.update(glai.unit_features(selector, z), None, y)
    with pytest.raises(ValueError, match="directions must be None"):
        statistics.solve(1.0, torch.zeros(1, C))
    with pytest.raises(ValueError, match=r"gates must be path gates \[N, P=60\], got None"):
        glai.PathStatistics(60, D, C).update(z, None, y)
    with pytest.raises(ValueError, match="must be of P=1 path"):
        glai.PathStatistics(2, H + D, C, n_units=H)


@pytest.mark.parametrize("solver", ["auto", "sgd", "statistics"])
def test_fit(selector, solver, tmp_path):
    selector = glai.PathSelector(make_mlp(D, 40, C), glai.InputProjection.fit(data()[0]))
    x, y = rings(2000)
    model = glai.GLAI(selector, glai.PathEstimator.of_units(selector, C))
    result = glai.fit(model, x, y, solver=solver, progress=False)
    assert solver in ("auto", result.solver)
    assert result.model is model
    assert result.score > result.linear_score + 0.05
    if solver == "auto":
        assert "sgd of units" in result.reason
        assert "statistics of units" in result.reason
    if solver == "statistics":
        more, labels = rings(300, seed=1)
        glai.retrain(model, more, labels, increment=True, progress=False)
        assert model.statistics.n_samples == 2300
        phi = glai.unit_features(selector, selector.project(torch.cat([x, more]))).double()
        phi = torch.cat([phi, torch.ones(2300, 1, dtype=torch.float64)], dim=1)
        targets = torch.nn.functional.one_hot(torch.cat([y, labels]), C).double()
        expected = dense_ridge(phi, targets, model.estimator.provenance["l2"])
        torch.testing.assert_close(numbers_of(model.estimator).double(), expected, rtol=1e-4, atol=1e-5)
        model.save(tmp_path)
        assert glai.GLAI.load(tmp_path).statistics.n_units == 40
    assert float((torch.from_numpy(model.predict(x)) == y).double().mean()) > 0.45


def test_fit_refuses(selector):
    x, y = data()
    model = glai.GLAI(selector, glai.PathEstimator.of_units(selector, C))
    with pytest.raises(ValueError, match="a model of units computes them from x"):
        glai.fit(model, x, y, selector.gates(x), progress=False)
    with pytest.raises(ValueError, match="solver 'dual' is for full paths, the model has units"):
        glai.fit(model, x, y, solver="dual", progress=False)


def test_a_gram_of_paths_that_is_too_large_is_one_of_units(selector, monkeypatch):
    monkeypatch.setattr(choice, "FULL_PATH_UNKNOWNS", 400)
    x, y = data(600)
    assert glai.fit(selector, x, y, solver="statistics", progress=False).model.estimator.kind == "units"
    chunks = [(x[:300], y[:300]), (x[300:], y[300:])]
    assert glai.fit(selector, chunks, progress=False).model.estimator.kind == "units"
    monkeypatch.setattr(choice, "FULL_PATH_UNKNOWNS", 1000)
    assert glai.fit(selector, x, y, solver="statistics", progress=False).model.estimator.kind == "full paths"


def test_features_that_are_not_kept_train_alike(selector, monkeypatch):
    x, y = data(300)
    found = []
    for kept in (1 << 30, 0):
        monkeypatch.setattr(arguments, "UNIT_FEATURES_BYTES", kept)
        monkeypatch.setattr(native, "SPAN_BYTES", 1)
        model = glai.GLAI(selector, glai.PathEstimator.of_units(selector, C))
        glai.fit(model, x, y, solver="sgd", batch_size=32, epochs=3, progress=False)
        found.append(numbers_of(model.estimator))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)


def test_the_native_loop_is_that_of_one_path(selector):
    x, y = data()
    features = glai.unit_features(selector, selector.project(x))
    estimator = glai.PathEstimator.of_units(selector, C)
    path = glai.PathEstimator(1, H + D, C)
    on = glai.pack_gates(torch.ones(N, 1, dtype=torch.bool))
    for one, gates in ((estimator, None), (path, on)):
        glai.train_estimator(
            one, features, gates, y, epochs=2, batch_size=32, validation=(features, gates, y), progress=False
        )
    assert torch.equal(numbers_of(estimator), numbers_of(path))
