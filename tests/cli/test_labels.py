"""The command line and the learners agree on labels, whoever made the model."""

import json

import numpy as np
import pytest
from sklearn.datasets import load_digits, make_regression

import glai_native as glai
from glai_native.cli.main import main


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return (x[:500] / 16).astype(np.float32), y[:500]


def run(capsys, *arguments):
    status = main([str(one) for one in arguments])
    output = capsys.readouterr()
    assert status in (0, 2)
    return json.loads(output.out) if status == 0 else output.err


@pytest.fixture
def folder(tmp_path, digits):
    x, y = digits
    learner = glai.GLAIClassifier((8,), structure_epochs=3, solver="statistics").fit(x[:400], y[:400] + 1)
    learner.save(tmp_path / "m")
    np.savez(tmp_path / "new.npz", x=x[400:], y=y[400:] + 1)
    return tmp_path


def increment(capsys, folder, data="new.npz", *more):
    arguments = ["--structure", folder / "m", "--increment", "--out", folder / "o", "--test-share", 0.25]
    arguments += ["--json", *more]
    return run(capsys, "train", folder / data, *arguments)


def test_a_learner_s_model_is_increased_by_label(folder, digits, capsys):
    report = increment(capsys, folder)
    assert report["data"]["classes"] == 10
    assert report["test"] > 0.8
    learner = glai.GLAIClassifier.load(folder / "o")
    assert learner.classes_.tolist() == list(range(1, 11))
    assert learner.score(digits[0], digits[1] + 1) > 0.85
    described = run(capsys, "inspect", folder / "o", "--json")
    assert described["classes"] == list(range(1, 11))
    pruned = run(capsys, "prune", folder / "o", "--data", folder / "new.npz", "-o", folder / "p", "--json")
    assert pruned["before"]["accuracy_data"] > 0.8
    assert glai.GLAI.load(folder / "p").class_labels == list(range(1, 11))


def test_a_new_label_that_sorts_first(folder, digits, capsys):
    x, y = digits
    np.savez(folder / "first.npz", x=x[400:], y=np.where(y[400:] == 4, -7, y[400:] + 1))
    assert increment(capsys, folder, "first.npz")["data"]["classes"] == 11
    assert glai.GLAI.load(folder / "o").class_labels == [-7, *range(1, 11)]


def test_outputs_without_labels_are_never_shifted(folder, digits, capsys):
    model = glai.GLAI.load(folder / "m")
    model.class_labels = None
    model.save(folder / "m")
    error = increment(capsys, folder)
    assert "outputs have no labels, and new has labels that are not their indices 0 to 9, such as 10" in error
    assert "model.class_labels = [...]" in error
    assert not (folder / "o").exists()
    x, y = digits
    np.savez(folder / "indices.npz", x=x[400:], y=y[400:])
    assert increment(capsys, folder, "indices.npz")["test"] > 0.8
    assert glai.GLAI.load(folder / "o").class_labels == list(range(10))


@pytest.mark.parametrize("convert", [lambda y: y.astype(str), lambda y: y.astype(float), lambda y: y > 4])
def test_another_type_of_label(folder, digits, capsys, convert):
    x, y = digits
    np.savez(folder / "other.npz", x=x[400:], y=convert(y[400:]))
    error = increment(capsys, folder, "other.npz")
    assert "must hold labels of type int like the model's (1, 2, 3, 4, 5, 6, 7, 8, …), got " in error
    assert error.strip().count("\n") == 0


def test_a_regressor_s_model_is_refused_in_words(folder, capsys):
    x, y = make_regression(200, 64, random_state=0)
    glai.GLAIRegressor((8,), structure_epochs=3, solver="statistics").fit(x, y).save(folder / "r")
    for more in ([], ["--increment"]):
        arguments = ["train", folder / "new.npz", "--structure", folder / "r", "--out", folder / "o", *more]
        error = run(capsys, *arguments, "--task", "classification")
        assert "--task must be regression, as of the model of --structure, got classification" in error
    np.savez(folder / "texts.npz", x=x, y=np.full(200, "a"))
    error = run(capsys, "prune", folder / "r", "--data", folder / "texts.npz", "-o", folder / "p")
    assert "'a' is not a number, and values are asked for" in error
    described = run(capsys, "inspect", folder / "r", "--json")
    assert described["classes"] is None
    assert described["values"]["centre"] == [pytest.approx(y.mean())]


def test_a_folder_is_not_merged_with_itself(folder, digits, capsys):
    glai.GLAI.load(folder / "m").save(folder / "copy")
    for other in (folder / "m", folder / "new" / ".." / "m", folder / "copy"):
        (folder / "new").mkdir(exist_ok=True)
        error = run(capsys, "merge", folder / "m", other, "-o", folder / "o")
        assert "must be models of different samples, got one twice; its samples would count twice" in error


def test_merging_by_label(folder, digits, capsys):
    x, _ = digits
    learner = glai.GLAIClassifier.load(folder / "m")
    learner.retrain(x[:50], np.full(50, 0), increment=True)
    learner.save(folder / "zero")
    report = run(capsys, "merge", folder / "m", folder / "zero", "-o", folder / "o", "--json")
    assert report["classes"] == list(range(11))
    loaded = glai.GLAIClassifier.load(folder / "o")
    assert loaded.classes_.tolist() == list(range(11))
