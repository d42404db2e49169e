"""What torch's default dtype and device are changes no number: each tensor says what it is, and where."""

import json

import numpy as np
import pytest
import torch

import glai_native as glai
from glai_native.cli.main import main
from glai_native.structure.network import relu_network
from glai_native.training.exact import choosing

RNG = np.random.default_rng(0)
X = RNG.normal(size=(150, 5))
LABELS = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
VALUES = X @ RNG.normal(size=(5, 2))
x, y, values = torch.from_numpy(X).float(), torch.from_numpy(LABELS), torch.from_numpy(VALUES).float()


def network(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return relu_network([5, 12, 3])


@pytest.fixture(params=["float64", "bfloat16", "float16", "meta"])
def default(request):
    """Sets torch's default dtype, or a device that holds no values; puts them back when it is called, and at the end.

    The device ``meta`` stands in for a GPU: who makes a tensor there by mistake cannot go on.
    """

    def restore():
        torch.set_default_dtype(torch.float32)
        torch.set_default_device("cpu")

    if request.param == "meta":
        torch.set_default_device("meta")
    else:
        torch.set_default_dtype(getattr(torch, request.param))
    test = request.node.callspec.params | {"default": None}  # which it is, whatever the default
    restore.test = request.node.originalname, *map(str, test.values())
    yield restore
    restore()
    torch.set_default_device(None)


EXPECTED = {}  # of each test's work under torch's own defaults, which is done once for all of the others


def same(default, work):
    """Whether the work gives the same bits under the other default and under torch's own."""
    found = work()
    default()
    if default.test not in EXPECTED:
        EXPECTED[default.test] = work()
    expected = EXPECTED[default.test]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, torch.Tensor):
            one, other = one.detach().numpy(), other.detach().numpy()
        assert np.array_equal(one, other)
        assert np.asarray(one).dtype == np.asarray(other).dtype


@pytest.mark.parametrize("solver", ["dual", "sgd", "statistics"])
def test_learners(default, solver):
    def work():
        classifier = glai.GLAIClassifier((8,), solver=solver, structure_epochs=3).fit(X, LABELS)
        regressor = glai.GLAIRegressor((8,), solver=solver, structure_epochs=3).fit(X, VALUES)
        found = [classifier.predict_proba(X), regressor.predict(X)]
        return [
            *found,
            classifier.retrain(X, LABELS).predict_proba(X),
            regressor.retrain(X, VALUES).predict(X),
        ]

    same(default, work)


def test_learning_by_chunks(default):
    def work():
        learner = glai.GLAIClassifier((8,), structure_epochs=3).partial_fit(X[:100], LABELS[:100])
        return [learner.predict_proba(X), learner.partial_fit(X[100:], LABELS[100:]).predict_proba(X)]

    same(default, work)


def test_exact_learners(default, monkeypatch):
    monkeypatch.setattr(choosing, "FEWEST_ROWS", len(X))

    def work():
        classifier, regressor = glai.ExactClassifier(8).fit(X, LABELS), glai.ExactRegressor(8).fit(X, VALUES)
        assert "held out" in classifier.structure_reason_
        told = [model.structure_reason_ + model.digest() for model in (classifier, regressor)]
        return [*told, classifier.predict_proba(X), regressor.predict(X)]

    same(default, work)


@pytest.mark.parametrize("directions", [False, True])
def test_models(default, directions, tmp_path):
    folders = iter(range(99))

    def work():
        selector = glai.train_structure(network(), x, y, progress=False)
        along = glai.output_directions(selector, 3, seed=1) if directions else None
        model = glai.GLAI(selector, glai.PathEstimator.from_selector(selector, along))
        found = [model(x), selector(x)]
        solver = "sgd" if directions else "statistics"
        glai.fit(model, x, y, solver=solver, progress=False)
        folder = tmp_path / str(next(folders))
        model.save(folder)
        loaded = glai.GLAI.load(folder)
        loaded.add_outputs(1)
        found += [model(x), loaded(x), glai.merge([model, glai.GLAI.load(folder)])(x)]
        found += [glai.grow(model, 0, 3)(x), glai.prune(model, selector.unit_gates(x), keep=0.5)(x)]
        if not directions:
            found.append(glai.merge([model, glai.GLAI.load(folder)], "statistics")(x))
            glai.retrain(model, x, y, increment=True, progress=False)
            found.append(model(x))
        return found

    same(default, work)


def test_projections_kernels_and_chunks(default):
    def work():
        wide = torch.from_numpy(np.random.default_rng(1).normal(size=(30, 2100)).astype(np.float32))
        projections = [glai.InputProjection.fit(x), glai.InputProjection.fit(x, 2)]
        projections += [glai.InputProjection.fit(x, explained_variance=0.9)]
        found = [projection(x) for projection in projections] + [glai.InputProjection.fit(wide, 2)(wide)]
        selector = glai.PathSelector(network(), projections[0])
        kernel = glai.PathKernelModel(selector).fit(x, y)
        chunks = ((x[rows], values[rows]) for rows in (slice(0, 70), slice(70, 150)))
        fitted = glai.fit(selector, chunks, progress=False).model
        return [
            *found,
            kernel.predict(x),
            kernel.to_estimator()(selector.project(x), selector.gates(x)),
            fitted(x),
        ]

    same(default, work)


def test_heads_and_stores(default, tmp_path):
    folders = iter(range(99))

    def work():
        module = torch.nn.Sequential(*network())
        glai.replace_mlp(module)
        selector = glai.PathSelector(network())
        store = glai.GateStore.create(tmp_path / str(next(folders)), selector)
        store.append(selector.unit_gates(x))
        store = glai.GateStore.open(store.folder)
        dataset = glai.GateDataset(store, selector.project(x), y)
        found = [module(x), store.batch(range(20)).unpack()]
        found += [dataset[ids][0].unpack() for ids in ([1, 2, 3], 5, slice(3, 9))]
        found += [part[0].unpack() for part in dataset.__getitems__([4, 6])]
        monitor = glai.StructureMonitor(max_epochs=3)
        glai.train_structure(network(), x, y, monitor=monitor, progress=False)
        figures = [[epoch.flip_rate, epoch.loss, epoch.oui] for epoch in monitor.history]
        return [*found, figures, [gates.density() for gates in selector.unit_gates(x)]]

    same(default, work)


def test_the_command_line(default, tmp_path, capsys):
    np.savez(tmp_path / "data.npz", x=X, y=LABELS)
    data, folders = str(tmp_path / "data.npz"), iter(range(99))

    def run(*arguments):
        assert main([*arguments, "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    def work():
        first, *further = (str(tmp_path / f"model-{next(folders)}") for _ in range(5))
        train = run(
            "train", data, "-o", first, "--solver", "statistics", "--hidden", "8", "--structure-epochs", "3"
        )
        run("train", data, "-o", further[0], "--structure", first, "--increment")
        run("merge", first, further[0], "-o", further[1])
        run("prune", first, "--data", data, "--keep", "0.5", "-o", further[2])
        run("grow", first, "--units", "3", "-o", further[3])
        inspected = run("inspect", first, further[3], "--data", data)
        found = [[train["test"], train["validation"]], inspected["agreement"]]
        return [*found, *(glai.GLAI.load(folder)(x) for folder in (first, *further))]

    same(default, work)
