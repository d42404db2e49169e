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
    assert status == 0, output.err
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


def test_a_table_s_columns_and_label_stay_with_the_model(shelf, tmp_path, capsys):
    pandas = pytest.importorskip("pandas")
    x, y = make_data(0)
    frame = pandas.DataFrame(x, columns=list("abcde")).assign(kind=y, id=[f"s{i}" for i in range(90)])
    frame.to_csv(tmp_path / "d.csv", index=False)
    told = ("--hidden", "4", "--structure-epochs", "3", "--solver", "statistics", "--label", "kind")
    run(capsys, "train", tmp_path / "d.csv", "--out", tmp_path / "m", *told)
    run(capsys, "grow", tmp_path / "m", "--units", 1, "--out", tmp_path / "grown")
    frame[[*"edcba", "kind", "id"]].to_csv(tmp_path / "mixed.csv", index=False)
    frame[["id", *"cdeba"]].to_csv(tmp_path / "unknown.csv", index=False)
    frame[["a", "b", "kind"]].to_csv(tmp_path / "few.csv", index=False)
    for model in ("m", "grown"):
        figures = run(capsys, "evaluate", tmp_path / model, tmp_path / "mixed.csv")
        assert (
            figures["accuracy"]
            == run(capsys, "evaluate", tmp_path / model, shelf / "classes.npz")["accuracy"]
        )
    run(capsys, "predict", tmp_path / "m", tmp_path / "unknown.csv", "--out", tmp_path / "a.jsonl", "--proba")
    first = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])
    assert (first["id"], list(first)[1:]) == ("s0", ["label", "p(ant)", "p(bee)", "p(cat)"])
    assert "got none called 'c', 'd', 'e'" in refused(
        capsys, "evaluate", tmp_path / "m", tmp_path / "few.csv"
    )
    error = refused(capsys, "evaluate", tmp_path / "m", tmp_path / "unknown.csv")
    assert (
        "unknown.csv: --label must name the label's column: none is called label, y, target, class" in error
    )


def test_what_cannot_be_predicted(shelf, tmp_path, capsys):
    model, data = shelf / "sgd", shelf / "classes.npz"
    for out, sentence in (("a.txt", "FILE must end in .csv"), ("no/a.csv", "there is no folder")):
        assert f"--out: {sentence}" in refused(capsys, "predict", model, data, "--out", tmp_path / out)
    error = refused(capsys, "predict", model, data, "--out", tmp_path / "a.npy", "--proba")
    assert "--proba needs a file of several columns" in error
    np.savez(tmp_path / "wide.npz", x=np.zeros((3, 6)))
    error = refused(capsys, "predict", model, tmp_path / "wide.npz", "--out", tmp_path / "a.csv")
    assert "wide.npz: x must be [N >= 1, D=5] like the model's samples, got [3, 6]" in error
    np.savez(tmp_path / "other.npz", x=np.zeros((3, 5)), y=np.array(["ant", "dog", "bee"]))
    assert "got 'dog' besides" in refused(capsys, "evaluate", model, tmp_path / "other.npz")
    assert "no such folder" in refused(capsys, "evaluate", tmp_path / "nowhere", data)
    assert not (tmp_path / "a.csv").exists()
