"""glai learn reads large data in chunks, to the digest of the data read whole, and goes on after a kill."""

import json
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
import glai_native as glai
from glai_native.cli.main import main
from glai_native.data import streaming
from glai_native.solvers.exact import accumulating

def end():
    os.kill(os.getpid(), signal.SIGKILL)
def write_and_end(contents):
    write(contents)
    saved.append(1)
    if len(saved) == 3:
        end()
def save_and_end(*told, **more):
    if when == "saved":
        save(*told, **more)
    end()

streaming.ROWS, when = 50, sys.argv[1]
saved, write, save = [], accumulating.write_files, glai.ExactClassifier.save
if when == "adding":
    accumulating.write_files = write_and_end
else:
    glai.ExactClassifier.save = save_and_end
main(sys.argv[2:])
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


def killed(when, *told):
    """Run a command that is killed at the third save of its sums, before the model is saved, or after."""
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, when, *map(str, told)], capture_output=True, text=True
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr


@pytest.mark.parametrize("when", ["adding", "learnt", "saved"])
def test_killed_and_resumed(model, tmp_path, in_chunks, capsys, when):
    data = write(tmp_path, "npz", *samples(1, 5))
    in_chunks(False)
    whole, _ = run(capsys, "learn", model, data, "--out", tmp_path / "whole")
    told = ["learn", str(model), str(data)]
    killed(when, *told, "--checkpoint", "1e-9")
    (left,) = tmp_path.glob("model.checkpoint-*")
    assert (0 < glai.IntegerStatistics.load(left).n_samples < N) == (when == "adding")
    assert main([*told, "--checkpoint", "1"]) == 2
    asked = "--resume removes it" if when == "saved" else "--resume goes on with it"
    assert asked in capsys.readouterr().err
    resumed, errors = run(capsys, *told, "--resume")
    assert (resumed["digest"], resumed["learnt"]) == (whole["digest"], 0 if when == "saved" else N)
    assert ("nothing is left to learn" in errors) == (when == "saved")
    assert not list(tmp_path.glob("model.checkpoint-*"))
    assert main([*told, "--resume"]) == 2
    assert "nothing to resume: there is no" in capsys.readouterr().err
    assert glai.ExactClassifier.load(model).digest() == whole["digest"]


def test_what_a_run_left_is_told(model, tmp_path, capsys):
    data = write(tmp_path, "npz", *samples(1, 5))
    killed("adding", "learn", model, data, "--checkpoint", "1e-9")
    (left,) = tmp_path.glob("model.checkpoint-*")
    _, errors = run(capsys, "learn", model, data)
    assert f"{left}: is left of a glai learn that was ended" in errors
    _, errors = run(capsys, "forget", model, data)
    assert f"{left}: is left of a glai learn that was ended" in errors


def test_what_cannot_be_read_in_chunks_is_read_whole(tmp_path, in_chunks, capsys):
    in_chunks(True)
    x, y, ids = samples(0, 3)
    model = made(tmp_path, x, y.astype(str), glai.ExactClassifier)
    np.savez(tmp_path / "fortran.npz", x=np.asfortranarray(x), y=y.astype(str))
    run(capsys, "learn", model, tmp_path / "fortran.npz", "--out", tmp_path / "a")
    assert main(["learn", str(model), str(tmp_path / "fortran.npz"), "--checkpoint", "9"]) == 2
    assert "C's order" in capsys.readouterr().err
    np.savez(tmp_path / "no.npz", x_train=x, y_train=y.astype(str), x_test=x)
    run(capsys, "learn", model, tmp_path / "no.npz", "--out", tmp_path / "b")
    named = {
        "x_train": x,
        "y_train": y.astype(str),
        "id_train": ids,
        "x_test": x[:9],
        "y_test": y[:9].astype(str),
    }
    np.savez(tmp_path / "ids.npz", **named)
    run(capsys, "learn", model, tmp_path / "ids.npz", "--part", "all", "--out", tmp_path / "c")
    kept = glai.ExactClassifier.load(tmp_path / "c").statistics_.ledger.ids.tolist()
    assert kept.count("") == len(x) + 9  # as read whole: where one part has none, neither has any
    assert main(["learn", str(model), str(tmp_path / "ids.npz"), "--label", "y"]) == 2
    assert "--label is of tables" in capsys.readouterr().err


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
