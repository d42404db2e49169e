"""glai.fit: every solver behind one call, the choice, its reason, and what is refused."""

import math

import pytest
import torch

import glai_native as glai

D, C = 4, 3


def make_data(n=1000, seed=0):
    """Rings: no linear model separates them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, D, generator=generator)
    radius = x[:, :2].norm(dim=1)
    return x, (radius > 0.9).long() + (radius > 1.6).long()


@pytest.fixture(scope="module")
def selector():
    torch.manual_seed(0)
    mlp = torch.nn.Sequential(torch.nn.Linear(D, 24), torch.nn.ReLU(), torch.nn.Linear(24, C))
    x, y = make_data()
    return glai.train_structure(mlp, x, y, progress=False, monitor=glai.StructureMonitor(max_epochs=6))


@pytest.mark.parametrize("solver", ["dual", "sgd", "statistics"])
def test_every_solver_beats_the_linear_model_and_says_so(selector, solver, capsys):
    x, y = make_data()
    options = {"epochs": 30, "learning_rate": 1e-2} if solver == "sgd" else {}
    result = glai.fit(selector, x, y, solver=solver, **options)
    assert result.solver == solver
    assert result.reason.startswith(f"{solver}: as asked; better than the linear model without gates")
    assert result.reason in capsys.readouterr().err
    assert result.score > result.linear_score + 2 * result.standard_error
    assert set(result.seconds) == {"linear", solver}
    x_test, y_test = make_data(seed=1)
    assert float((result.model(x_test).argmax(1) == y_test).double().mean()) > 0.65
    assert result.model.structure_id == selector.structure_id
    assert int(result.model.estimator.samples_seen) == (900 if solver == "sgd" else 1000)
    assert bool(result.history) == (solver == "sgd")


def test_a_linear_problem_is_said_to_be_one(selector):
    x, _ = make_data()
    noise = torch.randn(len(x), generator=torch.Generator().manual_seed(2))
    y = (x[:, 0] + 0.5 * noise > 0).long()
    result = glai.fit(selector, x, y, solver="sgd", progress=False)
    assert "the linear model without gates is as good within one standard error" in result.reason


def test_a_model_is_trained_in_place_and_its_structure_is_not_touched(selector):
    x, y = make_data()
    model = glai.GLAI(selector, glai.PathEstimator(selector.n_paths, D, C))
    structure = {
        name: tensor.clone() for name, tensor in selector.state_dict().items() if name != "_extra_state"
    }
    weight = model.estimator.weight
    for solver in ("sgd", "dual", "statistics"):
        before = weight.detach().clone()
        assert glai.fit(model, x, y, solver=solver, progress=False).model is model
        assert model.estimator.weight is weight
        assert not torch.equal(weight, before)
    assert all(torch.equal(selector.state_dict()[name], tensor) for name, tensor in structure.items())


def test_values_weights_and_given_gates(selector):
    x, _ = make_data()
    values = torch.stack([x[:, 0].abs(), x[:, 1] * 2], dim=1)
    weight = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    gates = selector.gates(x)
    for solver in ("dual", "sgd", "statistics"):
        options = {"learning_rate": 1e-2} if solver == "sgd" else {}
        result = glai.fit(selector, x, values, gates, solver, sample_weight=weight, progress=False, **options)
        assert result.score > result.linear_score  # minus the squared error


def test_validation_given_or_none(selector):
    x, y = make_data()
    result = glai.fit(selector, x, y, solver="sgd", validation=make_data(100, 5), progress=False, epochs=3)
    assert int(result.model.estimator.samples_seen) == 1000
    assert not math.isnan(result.score)
    result = glai.fit(selector, x, y, solver="sgd", validation=0, progress=False, epochs=3)
    assert len(result.history) == 3
    assert math.isnan(result.score)


def test_chunks_of_a_stream_bring_new_classes(selector):
    x, y = make_data()
    order = y.argsort(stable=True)
    chunks = [(x[ids], y[ids]) for ids in order.split(100)]
    result = glai.fit(selector, iter(chunks), progress=False, l2=1.0)
    assert result.solver == "statistics"
    assert "never forgotten" in result.reason
    joint = glai.PathStatistics(selector.n_paths, D, C)
    joint.update(selector.project(x), selector.gates(x), y)
    whole = joint.solve(1.0)
    ours = result.model.estimator
    assert ours.out_features == C
    assert (ours.weight - whole.weight).abs().max() < 1e-5 * whole.weight.abs().max()
    # A class with one sample, and fewer samples than classes
    few = glai.fit(selector, x[:2], torch.tensor([0, 4]), progress=False)
    assert few.model.estimator.out_features == 5


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        ({}, {"solver": "newton"}, "solver must be one of auto, dual, sgd, statistics, got 'newton'"),
        ({"y": None}, {}, "y must be given with x as one tensor"),
        ({"x": []}, {}, "x must be a torch.Tensor where y is given, got list"),
        ({"y": torch.full((1000,), -1)}, {}, "fit: y must be class indices"),
        ({"x": torch.full((1000, D), torch.inf)}, {}, "fit: x must be finite"),
        ({"x": torch.zeros(1000, D + 1)}, {}, r"x must be \[N, D=4\]"),
        ({"x": torch.zeros(0, D), "y": torch.zeros(0).long()}, {}, "at least one sample"),
        ({}, {"validation": 1.0}, r"validation must be a share in \[0, 1\)"),
        ({}, {"validation": None}, r"validation must be a share in \[0, 1\) or \(x, y\), got NoneType"),
        ({}, {"validation": (1,)}, r"validation must be a share in \[0, 1\) or \(x, y\), got 1 of them"),
        ({}, {"validation": 0.9999}, "validation must leave a sample to train on, got 0.9999 of N=1000"),
        ({}, {"seed": -1}, r"seed must be an int in \[0, 2\*\*32\), got -1"),
        ({}, {"solver": "sgd", "epochs": None}, "epochs must be an int >= 1, got None"),
        ({}, {"solver": "sgd", "batch_size": None}, "batch_size must be an int >= 1, got None"),
        ({"y": torch.zeros(1000)}, {}, r"y must be values \[N=1000, C=1\]"),
        ({}, {"sample_weight": torch.ones(3)}, r"sample_weight must be \[N=1000\], got \[3\]"),
        (
            {"gates": glai.pack_gates(torch.ones(1000, 5))},
            {},
            "gates must be of N=1000 samples and P=25 paths, got N=1000 and P=5",
        ),
        ({}, {"wrong": 1}, "solver 'sgd' has the options loss, .* got 'wrong'"),
    ],
)
def test_refuses(selector, arguments, options, sentence):
    x, y = make_data()
    with pytest.raises((ValueError, TypeError), match=sentence):
        glai.fit(selector, **({"x": x, "y": y} | arguments), progress=False, **options)


def test_refuses_a_stream_of_nothing_and_other_solvers_for_one(selector):
    with pytest.raises(ValueError, match="at least one chunk"):
        glai.fit(selector, iter([]), progress=False)
    with pytest.raises(ValueError, match="chunks are for the statistics, got solver='sgd'"):
        glai.fit(selector, iter([]), solver="sgd", progress=False)
    with pytest.raises(TypeError, match="model must be a GLAI or a PathSelector, got Linear"):
        glai.fit(torch.nn.Linear(2, 2), *make_data())


def test_what_cannot_be_compared_or_is_worse_is_said(selector):
    x, y = make_data()
    few = glai.fit(selector, x[:30], y[:30], progress=False)
    assert "3 held-out samples are too few to compare" in few.reason
    model = glai.GLAI(selector, glai.PathEstimator(selector.n_paths, D, C))
    y = (x[:, 0] > 0).long()
    poor = glai.fit(model, x, y, solver="sgd", epochs=1, learning_rate=1e-7, progress=False)
    assert "WORSE than the linear model" in poor.reason


def test_statistics_of_many_unknowns_choose_l2_by_the_held_out_samples(selector, monkeypatch):
    x, y = make_data()
    monkeypatch.setattr("glai_native.solvers.statistics.solving.GCV_UNKNOWNS", 10)
    result = glai.fit(selector, x, y, solver="statistics", progress=False)
    assert result.score > result.linear_score


def test_few_samples_are_not_given_up_on_after_a_few_steps(selector):
    """An epoch of theirs is eight steps: five without a better one would be no training."""
    x, y = make_data(90)
    result = glai.fit(selector, x, y, solver="sgd", progress=False)
    assert 8 * len(result.history) > 200
    assert result.score >= result.linear_score
