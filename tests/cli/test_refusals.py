"""What a command cannot do it says before the work, in the words of the command line."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

import glai_native as glai
from conftest import make_mlp
from glai_native.cli.arguments import by_option
from glai_native.cli.main import main


@pytest.fixture
def archive(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    np.savez(tmp_path / "strx.npz", x=rng.normal(size=(60, 5)) + y[:, None], y=y)
    return tmp_path / "strx.npz"


@pytest.fixture
def model(tmp_path):
    selector = glai.PathSelector(make_mlp(5, 8, 3))
    model = glai.GLAI(selector, glai.PathEstimator.from_selector(selector))
    model.save(tmp_path / "model")
    return tmp_path / "model"


def refused(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.fixture
def no_training(monkeypatch):
    def work(*_, **__):
        raise AssertionError("the work has begun")

    monkeypatch.setattr("glai_native.cli.train.run.train_selector", work)


@pytest.mark.usefixtures("no_training")
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no /proc")
@pytest.mark.parametrize("out", ["/proc/x", "/proc/x/y/z", "/proc/self/model"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(archive, capsys, out):
    assert f"{out}: cannot be written, folder /proc" in refused(capsys, "train", archive, "-o", out)


@pytest.mark.usefixtures("no_training")
def test_other_places_that_are_no_folder(archive, tmp_path, model, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert "file is a file" in refused(capsys, "train", archive, "-o", tmp_path / "file")
    assert "link is a link to nothing" in refused(capsys, "train", archive, "-o", tmp_path / "link" / "m")
    assert "File name too long" in refused(capsys, "train", archive, "-o", tmp_path / ("m" * 300))
    for command in (
        ("grow", model, "--units", 2),
        ("merge", model, model),
        ("prune", model, "--data", archive),
    ):
        assert "file is a file" in refused(capsys, *command, "-o", tmp_path / "file")
    (tmp_path / "a.png").mkdir()
    drawn = ("inspect", model, "--data", archive, "--plot", tmp_path / "a.png")
    assert "FILE must be a file, got the folder" in refused(capsys, *drawn)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "file", "link", "model", "strx.npz"]


def test_options_are_named_as_they_were_typed(archive, model, tmp_path, capsys):
    out = tmp_path / "out"
    error = refused(capsys, "train", archive, "-o", out, "--components", 50)
    assert error.startswith("glai train: --components must be an int in [1, ")
    error = refused(capsys, "prune", model, "--data", archive, "-o", out, "--keep", 2)
    assert error == "glai prune: --keep must be in (0, 1], got 2.0\n"
    error = refused(capsys, "prune", model, "--data", archive, "-o", out, "--min-norm", -1)
    assert error == "glai prune: --min-norm must be >= 0, got -1.0\n"
    error = refused(capsys, "grow", model, "--units", 2, "--layer", 7, "-o", out)
    assert error == "glai grow: --layer must be in [0, L=1), got 7\n"
    assert not out.exists()


@pytest.mark.parametrize("widths", [(9,), (8,), (8, 8)])
def test_a_store_of_another_structure_is_named(model, tmp_path, capsys, widths):
    other = glai.PathSelector(make_mlp(5, *widths, 3, seed=1))
    store = glai.GateStore.create(tmp_path / "gates", other)
    store.append(other.unit_gates(torch.randn(10, 5)))
    error = refused(capsys, "prune", model, "--store", store.folder, "-o", tmp_path / "out")
    mine = glai.GLAI.load(model).structure_id
    assert (
        f"gates must be of structure_id {mine[:12]}… like the model, got {other.structure_id[:12]}…" in error
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"x": np.full((60, 5), "red")},
            "strx.npz: x must be numbers, got .*red.* in row 0, column 0 of dtype <U3",
        ),
        (
            {"x": np.array([[0.0] * 5] * 59 + [[0, np.nan, 0, 0, 0]])},
            "strx.npz: x must be .* got NaN in row 59, column 1",
        ),
        ({"y": np.zeros(60)}, "strx.npz: train must have at least 2 classes"),
        ({"x": np.zeros((7, 5))}, "strx.npz: x and y must be equally long"),
    ],
)
def test_data_are_named_by_their_file(archive, change, sentence, tmp_path, capsys):
    np.savez(archive, **(dict(np.load(archive)) | change))
    error = refused(capsys, "train", archive, "-o", tmp_path / "out")
    assert error.startswith(f"glai train: {tmp_path}/strx.npz: ")
    assert re.search(sentence, error)


@pytest.mark.parametrize("solver", ["sgd", "statistics", "dual"])
def test_a_log_holds_no_blank_lines(archive, tmp_path, solver):
    program = f"""if True:
        import sys
        sys.path[:0] = {sys.path!r}
        from glai_native.cli.main import main
        sys.exit(main(["train", {str(archive)!r}, "-o", {str(tmp_path / "out")!r}, "--solver", {solver!r}, "--json"]))
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=True
    )
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"{solver}: ")


def test_nobody_hears_from_who_was_not_asked(tmp_path, capsys):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 5)), np.arange(60) % 3
    np.savez(tmp_path / "d.npz", x=x, y=y)
    np.savez(tmp_path / "other.npz", x=x + 1, y=y)
    for name, told in (
        ("exact", ("--exact", "--units", 8, "--l2", "held-out", "--structure", "random")),
        ("statistics", ("--hidden", 4, "--solver", "statistics")),
    ):
        command = ("train", tmp_path / "d.npz", *told, "--out", tmp_path / name, "--json")
        assert main([str(one) for one in command]) == 0
    capsys.readouterr()
    there = re.escape(f"{tmp_path}/other.npz: the samples must be among ")
    for name in ("exact", "statistics"):
        error = refused(capsys, "forget", tmp_path / name, tmp_path / "other.npz")
        assert re.match(f"glai forget: {there}", error)
    other = glai.ExactClassifier(8, structure=glai.ExactClassifier.load(tmp_path / "exact").features_)
    other.fit(x[:30] + 2, y[:30]).save(tmp_path / "other")
    error = refused(capsys, "merge", tmp_path / "exact", tmp_path / "other", "-o", tmp_path / "m")
    assert error.startswith("glai merge: l2='held-out' needs sums over held-out samples, got none")
    assert "held_out=" not in error


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("downdate: the samples must be there", "the samples must be there"),
        ("ExactClassifier: X must be numbers", "X must be numbers"),
        ("PathKernelModel.learn: at least 3 GB are needed", "at least 3 GB are needed"),
        ("fit: learning_rate must be > 0", "--learning-rate must be > 0"),
        ("model: must be a folder", "model: must be a folder"),
        ("data.csv: x must be numbers", "data.csv: x must be numbers"),
    ],
)
def test_who_says_so_is_left_out(sentence, said):
    assert by_option(sentence) == said
