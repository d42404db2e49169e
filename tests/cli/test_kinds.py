"""Every command takes every kind of model, or says in one sentence why not and what to do."""

import csv
import json

import numpy as np
import pytest

import glai_native as glai
from glai_native.cli.main import main

CLASSIFIERS = ("sgd", "statistics", "dual", "kernel", "learner", "chunks", "unlabelled")
REGRESSORS = ("regressor", "regressor chunks")
KINDS = CLASSIFIERS + REGRESSORS


def make_data(seed, labels=True):
    rng = np.random.default_rng(seed)
    y = np.arange(90) % 3
    x = (rng.normal(size=(90, 5)) / 2 + 2 * np.eye(5)[y]).astype(np.float32)
    return x, np.array(["ant", "bee", "cat"])[y] if labels else x @ np.arange(5) + 3


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A folder of each kind, and data that belong to it."""
    shelf = tmp_path_factory.mktemp("kinds")
    x, y = make_data(0)
    _, values = make_data(0, labels=False)
    np.savez(shelf / "classes.npz", x=x, y=y, id=np.arange(90) + 1000)
    np.savez(shelf / "indices.npz", x=x, y=np.unique(y, return_inverse=True)[1])
    np.savez(shelf / "values.npz", x=x, y=values)
    train = [
        "train",
        str(shelf / "classes.npz"),
        "--hidden",
        "4",
        "--structure-epochs",
        "3",
        "--json",
        "--out",
    ]
    for solver in ("sgd", "statistics", "dual"):
        assert main([*train, str(shelf / solver), "--solver", solver]) == 0
    model = glai.GLAI.load(shelf / "statistics")
    classes, indices = np.unique(y, return_inverse=True)
    kernel = glai.PathKernelModel(model.selector).fit(*map(glai_tensor, (x, indices)))
    kernel.class_labels = classes.tolist()
    with pytest.warns(UserWarning, match="contains training data"):
        kernel.save(shelf / "kernel")
    tell = {"hidden_layer_sizes": (4,), "structure_epochs": 3}
    glai.GLAIClassifier(solver="statistics", **tell).fit(x, y).save(shelf / "learner")
    glai.GLAIClassifier(**tell).partial_fit(x, y).save(shelf / "chunks")
    glai.GLAIRegressor(solver="statistics", **tell).fit(x, values).save(shelf / "regressor")
    glai.GLAIRegressor(**tell).partial_fit(x, values).save(shelf / "regressor chunks")
    model.class_labels = None
    model.save(shelf / "unlabelled")
    return shelf


def glai_tensor(array):
    from glai_native.data.arrays import array_tensor

    return array_tensor(array)


def data_of(shelf, kind):
    return shelf / {"unlabelled": "indices.npz"}.get(
        kind, "values.npz" if kind in REGRESSORS else "classes.npz"
    )


def run(capsys, *arguments):
    capsys.readouterr()
    status = main([str(one) for one in (*arguments, "--json")])
    output = capsys.readouterr()
    assert (status, output.err) == (0, "")
    return json.loads(output.out)


def refused(capsys, *arguments):
    capsys.readouterr()
    assert main([str(one) for one in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize("kind", KINDS)
def test_predict_and_evaluate(shelf, tmp_path, kind, capsys):
    data = data_of(shelf, kind)
    figures = run(capsys, "evaluate", shelf / kind, data)
    y = np.load(data)["y"]
    out = tmp_path / "a.csv"
    said = run(capsys, "predict", shelf / kind, data, "--out", out)
    assert (figures["part"], figures["samples"], said["samples"]) == ("all", 90, 90)
    with out.open() as file:
        rows = list(csv.DictReader(file))
    if kind in REGRESSORS:
        found = np.array([float(row["value"]) for row in rows])
        assert figures["rmse"] == pytest.approx(np.sqrt(((found - y) ** 2).mean()))
        assert figures["r2"] > 0.9
        learner = glai.GLAIRegressor.load(shelf / kind)
        np.testing.assert_array_equal(found, learner.predict(np.load(data)["x"]))
        assert "--proba needs a model of classes" in refused(
            capsys, "predict", shelf / kind, data, "--out", out, "--proba"
        )
        return
    found = np.array([row["label"] for row in rows])
    assert figures["accuracy"] == (found == y.astype(str)).mean() > 0.9
    assert [one["samples"] for one in figures["per_class"]] == [30, 30, 30]
    run(capsys, "predict", shelf / kind, data, "--out", tmp_path / "a.npz", "--proba")
    arrays = np.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(arrays["label"].astype(str), found)
    true = arrays["proba"][np.arange(90), np.searchsorted(arrays["classes"], y)]
    assert figures["log_loss"] == pytest.approx(-np.log(true).mean())
    if data.name == "classes.npz":
        assert (
            [row["id"] for row in rows]
            == [str(i) for i in arrays["id"]]
            == [str(1000 + i) for i in range(90)]
        )
    assert main(["evaluate", str(shelf / kind), str(data)]) == 0
    assert "per" not in capsys.readouterr().err
