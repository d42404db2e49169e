"""glai learn reads large data in chunks, to the digest of the data read whole, and goes on after a kill."""

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

import glai_native as glai
from glai_native.cli.main import main
from glai_native.cli.train import exact_streaming
from glai_native.data import streaming

KILLED = """
import os, signal, sys
from glai_native.cli.main import main
from glai_native.data import streaming
from glai_native.solvers.exact import accumulating
streaming.ROWS = 50
saved, write = [], accumulating.write_files
def write_and_die(contents):
    write(contents)
    saved.append(1)
    if len(saved) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
accumulating.write_files = write_and_die
main(sys.argv[1:])
"""
D, N = 5, 400
COLUMNS = [f"column {i}" for i in range(D)]


def samples(seed, classes):
    generator = np.random.default_rng(seed)
    x, y = generator.standard_normal((N, D)).astype(np.float32), generator.integers(0, classes, N)
    return x, y, np.array([f"{seed} {i}" for i in range(N)])


def write(folder, kind, x, y, ids):
    parts = {"_train": slice(300), "_test": slice(300, None)}
    if kind == "npz":
        np.savez(folder / "new.npz", x=x, y=y, id=ids)
        return folder / "new.npz"
    if kind == "parts":
        arrays = {"x": x, "y": y, "id": ids}
        named = {f"{name}{part}": each[rows] for name, each in arrays.items() for part, rows in parts.items()}
        np.savez(folder / "new.npz", **named)
        return folder / "new.npz"
    if kind == "npy":
        (folder / "new").mkdir()
        for name, each in (("x", x), ("y", y), ("id", ids)):
            np.save(folder / f"new/{name}.npy", each)
        return folder / "new"
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(x, columns=COLUMNS)
    frame["target"], frame["id"], frame["more"] = y, ids, 7
    frame.to_csv(folder / "new.csv", index=False)
    return folder / "new.csv"


@pytest.fixture
def in_chunks(monkeypatch):
    monkeypatch.setattr(streaming, "ROWS", 50)

    def switch(on):
        monkeypatch.setattr(exact_streaming, "STREAMED_BYTES", 0 if on else 1 << 30)

    return switch


def run(capsys, *arguments):
    assert main([*map(str, arguments), "--json"]) == 0
    said = capsys.readouterr()
    return json.loads(said.out), said.err


@pytest.fixture
def model(tmp_path):
    return made(tmp_path, samples(0, 3)[0], samples(0, 3)[1], glai.ExactClassifier)


def made(folder, x, y, kind, **told):
    learner = kind(9, random_state=0, **told).fit(x, y, ids=np.array([f"first {i}" for i in range(len(y))]))
    learner.save(folder / "model")
    return folder / "model"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("npz", ()),
        ("npz", ("--part", "test", "--test-share", "0.3", "--seed", "4")),
        ("npy", ()),
        ("parts", ("--part", "all")),
        ("parts", ()),
    ],
)
def test_chunks_leave_the_digest_of_all_at_once(model, tmp_path, in_chunks, capsys, kind, options):
    data = write(tmp_path, kind, *samples(1, 5))  # of which two classes are new
    said = []
    for streamed in (False, True):
        in_chunks(streamed)
        figures, _ = run(capsys, "learn", model, data, *options, "--out", tmp_path / f"{streamed}")
        said.append({k: v for k, v in figures.items() if "seconds" not in k and k != "folder"})
    assert said[0] == said[1]
    assert said[0]["new_classes"] == 2
    whole, streamed = (glai.ExactClassifier.load(tmp_path / name) for name in ("False", "True"))
    assert whole.get_params() == streamed.get_params()
    np.testing.assert_array_equal(whole.predict(samples(2, 5)[0]), streamed.predict(samples(2, 5)[0]))


def test_columns_of_a_table_keep_their_order(tmp_path, in_chunks, capsys):
    pandas = pytest.importorskip("pandas")
    x, y, _ids = samples(0, 3)
    frame = pandas.DataFrame(x, columns=COLUMNS)
    frame["target"] = y
    frame.to_csv(tmp_path / "first.csv", index=False)
    in_chunks(False)
    model = tmp_path / "model"
    run(capsys, "train", tmp_path / "first.csv", "--exact", "--units", 9, "--label", "target", "--out", model)
    write(tmp_path, "csv", *samples(1, 3))
    frame = pandas.read_csv(tmp_path / "new.csv")
    frame[frame.columns[::-1]].to_csv(tmp_path / "new.csv", index=False)
    said = []
    for streamed in (False, True):
        in_chunks(streamed)
        figures, errors = run(capsys, "learn", model, tmp_path / "new.csv", "--out", tmp_path / f"{streamed}")
        said.append((figures["digest"], figures["learnt"], figures["ids_used_twice"]))
        assert "left out, since the model was not trained on it: 'more'" in errors
    assert said[0] == said[1]


def test_values(tmp_path, in_chunks, capsys):
    x, y, _ = samples(0, 3)
    model = made(tmp_path, x, y + 0.5, glai.ExactRegressor, step=1e-3, centre=0.0)
    data = write(tmp_path, "npz", x * 2, y * 1.5, samples(1, 3)[2])
    digests = []
    for streamed in (False, True):
        in_chunks(streamed)
        digests.append(run(capsys, "learn", model, data, "--out", tmp_path / f"{streamed}")[0]["digest"])
    assert digests[0] == digests[1]


def test_killed_and_resumed(model, tmp_path, in_chunks, capsys):
    data = write(tmp_path, "npz", *samples(1, 5))
    in_chunks(False)
    whole, _ = run(capsys, "learn", model, data, "--out", tmp_path / "whole")
    told = ["learn", str(model), str(data)]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *told, "--checkpoint", "1e-9"], capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (checkpoint,) = tmp_path.glob("model.checkpoint-*")
    assert 0 < glai.IntegerStatistics.load(checkpoint).n_samples < N
    shutil.copy(checkpoint, tmp_path / "kept")
    assert main([*told, "--checkpoint", "1"]) == 2
    assert "holds the sums of a run that was ended; --resume goes on with it" in capsys.readouterr().err
    resumed, _ = run(capsys, *told, "--resume")
    assert (resumed["digest"], resumed["learnt"]) == (whole["digest"], N)
    assert not checkpoint.exists()
    # Killed once more, after the model was saved: what it holds already is not learnt again.
    shutil.copy(tmp_path / "kept", checkpoint)
    assert main([*told, "--resume"]) == 2
    assert "nothing to resume: there is no" in capsys.readouterr().err
    assert glai.ExactClassifier.load(model).digest() == whole["digest"]


def test_what_is_wrong_is_said_and_the_model_stays(model, tmp_path, in_chunks, capsys):
    x, y, ids = samples(1, 3)
    before = glai.ExactClassifier.load(model).digest()
    in_chunks(True)
    x[333, 2] = np.nan
    data = write(tmp_path, "npz", x, y, ids)
    texts = tmp_path / "texts.npz"
    np.savez(texts, x=x, y=y.astype(str))
    np.savez(tmp_path / "wide.npz", x=np.zeros((9, 6)), y=y[:9])
    glai.GLAIClassifier((3,), solver="sgd", structure_epochs=1, epochs=1).fit(samples(0, 3)[0], y).save(
        tmp_path / "weights"
    )
    held = made(tmp_path / "held", samples(0, 3)[0], y, glai.ExactClassifier, l2="held-out")
    for arguments, sentence in (
        ([model, data], f"{data}: x must be finite numbers in float32, got NaN in row 33"),
        ([model, texts], "must hold labels of type int like the model's"),
        ([model, tmp_path / "wide.npz"], "x must be [N >= 1, D=5] like the model's samples, got [9, 6]"),
        ([model, data, "--resume"], "nothing to resume: there is no"),
        ([model, "digits", "--checkpoint", "9"], "need data in a file or folder"),
        (
            [tmp_path / "weights", data, "--checkpoint", "9"],
            "are of models of exact sums, got a model of kind",
        ),
        ([held, data, "--checkpoint", "9"], "are not options of --l2 held-out"),
    ):
        assert main(["learn", *map(str, arguments)]) == 2
        assert sentence in capsys.readouterr().err, sentence
    assert glai.ExactClassifier.load(model).digest() == before
