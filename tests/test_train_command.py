"""``glai train``: tables, JSON, a model that loads, and one sentence where something is wrong."""

import json

import numpy as np
import pytest

import glai_native as glai
from glai_native.cli import main


@pytest.fixture
def archive(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(240) % 3
    x = rng.normal(size=(240, 5)) + y[:, None]
    np.savez(tmp_path / "d.npz", x=x, y=np.array(["a", "b", "c"])[y])
    return tmp_path / "d.npz"


@pytest.mark.parametrize("solver", ["auto", "sgd", "statistics"])
def test_trains_and_saves(archive, solver, capsys):
    out = archive.parent / "model"
    arguments = ["train", str(archive), "--out", str(out), "--hidden", "8", "--structure-epochs", "3"]
    assert main([*arguments, "--solver", solver, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["solver"] == {"auto": "dual"}.get(solver, solver)
    assert report["test"] > 0.5
    assert report["structure"]["paths"] == 9
    assert glai.GLAI.load(out).structure_id == report["structure"]["structure_id"]
    assert main([*arguments]) == 2
    assert "must be a new or an empty folder" in capsys.readouterr().err


def test_tables(archive, capsys):
    assert main(["train", str(archive), "--out", str(archive.parent / "m"), "--hidden", "4", "4"]) == 0
    output = capsys.readouterr().out
    for words in ("linear softmax", "GLAI (dual)", "25 paths", "saved in"):
        assert words in output


def test_nothing_held_out_is_null(tmp_path, capsys):
    x = np.eye(4)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=[0, 1, 0, 1], x_test=x, y_test=[0, 1, 0, 1])
    arguments = ["train", str(tmp_path / "d.npz"), "--out", str(tmp_path / "m"), "--hidden", "2", "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["validation"] is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"y": np.linspace(0, 1, 240)}, "y must be class labels, got numbers like 0.00418"),
        ({"y": np.array([b"a", b"b"] * 120)}, "y must be class labels, numbers or text, got |S1"),
        ({"x": np.zeros((200, 5))}, "x and y must be equally long, at least 4 samples, got 200 and 240"),
        ({"x": np.ones((240, 5)) * 1j}, "d: train x must be real numbers, got complex128"),
        ({"y": np.zeros(240)}, "at least 2 classes"),
        ({"y": np.array([None] * 240)}, "text labels want a str dtype"),
    ],
)
def test_bad_data(archive, change, sentence, capsys):
    arrays = dict(np.load(archive)) | change
    np.savez(archive, **arrays)
    assert main(["train", str(archive), "--out", str(archive.parent / "m")]) == 2
    assert sentence in capsys.readouterr().err


def test_bad_options(archive, capsys):
    common = ["train", str(archive), "--out", str(archive.parent / "m")]
    assert main([*common, "--solver", "sgd", "--l2", "1"]) == 2
    assert "solver 'sgd' has the options loss, epochs" in capsys.readouterr().err
    (archive.parent / "t.npz").write_text("hello")
    assert main(["train", str(archive.parent / "t.npz"), "--out", str(archive.parent / "m")]) == 2
    assert "is no .npz archive" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*common, "--components", "abc"])
    assert "invalid components value: 'abc'" in capsys.readouterr().err
    assert not (archive.parent / "m").exists()


def test_a_training_that_diverged_says_so(archive, capsys):
    arguments = [
        "train",
        str(archive),
        "--hidden",
        "4",
        "--structure-epochs",
        "2",
        "--solver",
        "sgd",
        "--json",
    ]
    assert main([*arguments, "--out", str(archive.parent / "a"), "--learning-rate", "1e30"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert "no epoch improved on the start" in report["reason"]
    assert "the training diverged" in report["reason"]
    assert main([*arguments, "--out", str(archive.parent / "b")]) == 0
    assert "no epoch improved" not in json.loads(capsys.readouterr().out)["reason"]
    assert main([*arguments, "--out", str(archive.parent / "c"), "--learning-rate", "1e38"]) == 2
    assert "pass a smaller --learning-rate than 1e+38" in capsys.readouterr().err
    assert not (archive.parent / "c").exists()


def test_energy_of_the_phases_and_of_the_mlp(archive, capsys):
    pytest.importorskip("codecarbon")
    common = ["train", str(archive), "--hidden", "8", "--structure-epochs", "3", "--out"]
    assert main([*common, str(archive.parent / "m"), "--energy", "--country", "ESP", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [phase["phase"] for phase in report["energy"]] == ["structure", "estimator", "MLP"]
    assert all(phase["joules"] > 0 and phase["how"] for phase in report["energy"])
    assert report["mlp"]["test"] > 0.5
    assert main([*common, str(archive.parent / "n"), "--country", "ESP"]) == 2
    assert "--country needs --energy" in capsys.readouterr().err
    assert main([*common, str(archive.parent / "n"), "--energy", "--country", "XX"]) == 2
    assert "three-letter ISO code" in capsys.readouterr().err
