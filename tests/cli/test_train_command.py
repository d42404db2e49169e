"""``glai train``: tables, JSON, a model that loads, and one sentence where something is wrong."""

import json

import numpy as np
import pytest

import glai_native as glai
from glai_native.cli.main import main


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
    assert main([*arguments, "--solver", solver, "--test-share", "0.25", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert solver in ("auto", report["solver"])
    assert report["test"] > 0.5
    assert (report["data"]["train"], report["data"]["test"], report["task"]) == (180, 60, "classification")
    assert report["structure"]["paths"] == 9
    assert glai.GLAI.load(out).structure_id == report["structure"]["structure_id"]
    assert main([*arguments]) == 2
    assert "must be a new or an empty folder" in capsys.readouterr().err


def test_tables(archive, capsys):
    assert main(["train", str(archive), "--out", str(archive.parent / "m"), "--hidden", "4", "4"]) == 0
    output = capsys.readouterr().out
    for words in ("linear softmax", "GLAI (dual)", "25 paths", "saved in"):
        assert words in output


def test_all_samples_are_trained_on_unless_asked_otherwise(archive, capsys):
    folder, x = archive.parent, np.load(archive)
    np.savez(folder / "other.npz", x=x["x"][:30], y=x["y"][:30])
    common = ["train", str(archive), "--hidden", "4", "--structure-epochs", "1", "--json", "--out"]
    for options, train, test in ((), 240, 0), (["--test", str(folder / "other.npz")], 240, 30):
        assert main([*common, str(folder / f"m{test}"), *options]) == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["data"]["train"], report["data"]["test"]) == (train, test)
        assert (report["test"] is None) == (test == 0)
        assert report["validation"] > 0.5
    np.savez(folder / "parts.npz", x_train=x["x"], y_train=x["y"], x_test=x["x"], y_test=x["y"])
    assert main(["train", str(folder / "parts.npz"), "--out", str(folder / "no"), "--test-share", "0.5"]) == 2
    assert (
        "comes in train and test, and --test and --test-share are of data without" in capsys.readouterr().err
    )


def test_nothing_held_out_is_null(tmp_path, capsys):
    x = np.eye(4)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=[0, 1, 0, 1], x_test=x, y_test=[0, 1, 0, 1])
    arguments = ["train", str(tmp_path / "d.npz"), "--out", str(tmp_path / "m"), "--hidden", "2", "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["validation"] is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"y": np.full(240, np.nan)}, "y must be finite values, got [nan] in row 0"),
        ({"y": np.array([b"a", b"b"] * 120)}, "y must be class labels, numbers or text, got |S1"),
        ({"x": np.zeros((200, 5))}, "x and y must be equally long, got 200 and 240"),
        ({"x": np.ones((240, 5)) * 1j}, "d.npz: x must be real numbers, got complex128"),
        ({"y": np.zeros(240)}, "at least 2 classes"),
        (
            {"y": np.array([None] * 240)},
            "d.npz: y cannot be read (Object arrays cannot be loaded when allow_pickle=False); text wants a str dtype",
        ),
    ],
)
def test_bad_data(archive, change, sentence, capsys):
    arrays = dict(np.load(archive)) | change
    np.savez(archive, **arrays)
    assert main(["train", str(archive), "--out", str(archive.parent / "m")]) == 2
    assert sentence in capsys.readouterr().err


def test_bad_options(archive, capsys):
    common = ["train", str(archive), "--out", str(archive.parent / "m")]
    (archive.parent / "t.npz").write_text("hello")
    assert main(["train", str(archive.parent / "t.npz"), "--out", str(archive.parent / "m")]) == 2
    assert "is no .npz archive" in capsys.readouterr().err
    for options, sentence in (
        (["--components", "abc"], "argument --components: must be an integer >= 1, all or auto, got 'abc'"),
        (["--components", "0"], "argument --components: must be an integer >= 1, all or auto, got 0"),
        (["--l2", "abc"], "argument --l2: must be a finite number >= 0 or gcv or held-out, got 'abc'"),
        (["--l2", "-1"], "argument --l2: must be a finite number >= 0 or gcv or held-out, got -1"),
        (["--learning-rate", "nan"], "argument --learning-rate: must be a finite number > 0, got nan"),
        (["--epochs", "x"], "argument --epochs: must be an integer >= 1, got 'x'"),
        (["--seed", "x"], "argument --seed: must be an integer in [0, 2^32), got 'x'"),
    ):
        with pytest.raises(SystemExit):
            main([*common, *options])
        assert sentence in capsys.readouterr().err
    assert not (archive.parent / "m").exists()


@pytest.fixture
def no_work(monkeypatch):
    """Training a structure is an error."""

    def work(*arguments, **named):
        raise AssertionError("the structure was trained")

    monkeypatch.setattr("glai_native.cli.train.run.train_selector", work)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["--epochs", "5", "--solver", "dual"],
            "--epochs is not an option of solver dual: pass --solver sgd",
        ),
        (
            ["--learning-rate", "1", "--solver", "statistics"],
            "--learning-rate is not an option of solver statistics: pass --solver sgd",
        ),
        (
            ["--l2", "1", "--solver", "sgd"],
            "--l2 is not an option of solver sgd: pass --solver dual or --solver statistics",
        ),
    ],
)
def test_options_of_another_solver_are_refused_before_the_work(archive, no_work, options, sentence, capsys):
    assert main(["train", str(archive), "--out", str(archive.parent / "m"), *options]) == 2
    assert capsys.readouterr().err == f"glai train: {sentence}\n"


def test_increments_are_checked_before_the_work(archive, capsys):
    model, more = archive.parent / "model", archive.parent / "more"
    arguments = ["train", str(archive), "--hidden", "4", "--structure-epochs", "2", "--solver", "statistics"]
    assert main([*arguments, "--out", str(model)]) == 0
    increment = ["train", str(archive), "--structure", str(model), "--increment", "--out", str(more)]
    capsys.readouterr()
    assert main([*increment, "--epochs", "5"]) == 2
    assert "--epochs is not an option of an exact increment: pass --solver sgd" in capsys.readouterr().err
    (model / "statistics.safetensors").unlink()
    assert main(increment) == 2
    assert f"--increment needs a model with statistics, which {model} has not" in capsys.readouterr().err


def test_an_out_that_cannot_be_written_is_refused_before_the_work(archive, no_work, monkeypatch, capsys):
    monkeypatch.chdir(archive.parent)
    (archive.parent / "ro").mkdir()
    (archive.parent / "file").touch()
    assert main(["train", str(archive), "--out", "file/model"]) == 2
    assert "file/model: must be a new or an empty folder, file is a file" in capsys.readouterr().err
    monkeypatch.setattr("os.access", lambda path, mode: str(path) != "ro")  # root may write anywhere
    for out in ("ro", "ro/out", "ro/more/out"):
        assert main(["train", str(archive), "--out", out]) == 2
        assert f"{out}: cannot be written, folder ro is not writable" in capsys.readouterr().err


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
        "--test-share",
        "0.25",
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
    told = ["--energy", "--country", "ESP", "--test-share", "0.25", "--json"]
    assert main([*common, str(archive.parent / "m"), *told]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [phase["phase"] for phase in report["energy"]] == ["structure", "estimator", "MLP"]
    assert all(phase["joules"] > 0 and phase["how"] for phase in report["energy"])
    assert report["mlp"]["test"] > 0.5
    assert main([*common, str(archive.parent / "n"), "--country", "ESP"]) == 2
    assert "--country needs --energy" in capsys.readouterr().err
    assert main([*common, str(archive.parent / "n"), "--energy", "--country", "XX"]) == 2
    assert "three-letter ISO code" in capsys.readouterr().err
