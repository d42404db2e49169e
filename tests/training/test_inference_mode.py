"""What is made or trained in inference mode can be trained afterwards, and gates captured in it are read."""

import pytest
import torch
from torch.nn.functional import cross_entropy

import glai_native as glai
from conftest import make_mlp

X = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()


def train(model):
    before = [p.detach().clone() for p in model.estimator.parameters()]
    optimizer = torch.optim.Adam(model.estimator.parameters())
    cross_entropy(model(X), Y).backward()
    optimizer.step()
    assert not all(torch.equal(a, b) for a, b in zip(before, model.estimator.parameters(), strict=True))


@pytest.mark.parametrize("solver", ["sgd", "statistics", "dual"])
def test_learners_fit_the_same(solver):
    model = glai.GLAIClassifier((8,), solver=solver, random_state=0)
    expected = model.fit(X.numpy(), Y.numpy()).predict_proba(X.numpy())
    with torch.inference_mode():
        model.fit(X.numpy(), Y.numpy())
        got = model.predict_proba(X.numpy())
    assert (got == expected).all()
    train(model.model_)
    model.retrain(X.numpy(), Y.numpy())


@pytest.mark.parametrize("solver", ["sgd", "statistics", "dual"])
@pytest.mark.parametrize("centred", [True, False])
def test_fit_the_same(solver, centred):
    def fitted():
        x = X + 0  # made in the mode
        network = make_mlp(6, 8, 3)
        selector = glai.PathSelector(network, glai.InputProjection.fit(x) if centred else None)
        return glai.fit(selector, x, Y + 0, solver=solver, progress=False).model

    expected = fitted()(X)
    with torch.inference_mode():
        model = fitted()
        again = glai.retrain(model, X + 0, Y + 0, progress=False).model
    assert torch.equal(fitted()(X), expected)
    for one in (model, again):
        train(one)
        glai.retrain(one, X, Y, progress=False)


def test_structures_and_sums():
    sums = glai.PathStatistics(9, 6, 3)
    with torch.inference_mode():
        selector = glai.train_structure(make_mlp(6, 8, 3), X + 0, Y + 0, progress=False)
        z = selector.project(X)
        sums.update(z, selector.gates_of(z), Y)
    sums.update(z, selector.gates_of(z), Y)
    sums.downdate(z, selector.gates_of(z), Y)
    model = glai.GLAI(selector, sums.solve(1.0, dtype=torch.float32))
    train(model)


def test_models_made_or_loaded_there(tmp_path):
    with torch.inference_mode():
        selector = glai.PathSelector(make_mlp(6, 8, 3))
        model = glai.GLAI(selector, glai.PathEstimator.from_selector(selector))
        model.save(tmp_path / "model")
        loaded = glai.GLAI.load(tmp_path / "model")
    for one in (model, loaded):
        train(one)


@pytest.mark.parametrize("directed", [False, True])
def test_gates_captured_there(directed):
    selector = glai.PathSelector(make_mlp(6, 8, 3))
    directions = glai.output_directions(selector) if directed else None
    estimator = glai.PathEstimator.from_selector(selector, directions)
    with torch.inference_mode():
        gates = selector.gates(X)
    cross_entropy(estimator(X, gates), Y).backward()
    assert all(parameter.grad is not None for parameter in estimator.parameters())
