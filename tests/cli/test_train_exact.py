"""glai train --exact reads large data in chunks, to the digest of the data read whole, and goes on after a kill."""

import gzip
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
from glai_native.data.preparing import drawn

N, D = 700, 6
KILLED = """
import os, signal, sys
from glai_native.cli.main import main
from glai_native.data import streaming
from glai_native.solvers.exact import accumulating
streaming.ROWS = 100
saved, write = [], accumulating.write_files
def write_and_die(contents):
    write(contents)
    saved.append(1)
    if len(saved) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
accumulating.write_files = write_and_die
main(sys.argv[1:])
"""

IN_RANKS = """
import json, os, sys
import torch.distributed as dist
from torch.distributed import rendezvous
from glai_native.cli.main import main
from glai_native.cli.train import exact_streaming
from glai_native.data import streaming
from glai_native.solvers.exact import accumulating

streaming.ROWS = 100
store, rank, size = next(rendezvous("env://"))
write, saved, left = accumulating.write_files, [], []
def fail_at_the_third(contents):
    write(contents)
    saved.append(1)
    if len(saved) == 3:
        raise OSError("no more room")
for number, (streamed, fails, arguments) in enumerate(json.load(open("runs.json"))):
    exact_streaming.STREAMED_BYTES = 0 if streamed else 1 << 30
    accumulating.write_files = fail_at_the_third if fails and rank else write
    run = dist.PrefixStore(str(number), store)  # or a group would meet the keys of the one before
    sys.modules["torch.distributed.rendezvous"].rendezvous = lambda url: iter([(run, rank, size)])
    try:
        left.append(main(arguments))
    except SystemExit as end:
        left.append(end.code)
json.dump(left, open(f"left-{rank}.json", "w"))
"""


@pytest.fixture(scope="module")
def samples():
    generator = np.random.default_rng(0)
    x = generator.standard_normal((N, D)).astype(np.float32)
    return x, (x @ generator.standard_normal((D, 3))).argmax(1), x @ generator.standard_normal(D)


@pytest.fixture(scope="module")
def compared():
    """Samples enough to compare units by, and classes that trained ones find more of."""
    x = np.random.default_rng(1).standard_normal((1400, D)).astype(np.float32)
    return x, (x[:, 0] * x[:, 1] > 0).astype(int)


@pytest.fixture
def in_chunks(monkeypatch):
    monkeypatch.setattr(streaming, "ROWS", 100)

    def switch(on):
        monkeypatch.setattr(exact_streaming, "STREAMED_BYTES", 0 if on else 1 << 30)

    return switch


def train(capsys, *arguments):
    assert main(["train", *map(str, arguments), "--exact", "--units", "12", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    return {name: value for name, value in figures.items() if not name.startswith(("seconds", "folder"))}


def write(folder, kind, x, y):
    ids = np.array([f"sample {i}" for i in range(len(x))])
    if kind == "npz":
        np.savez_compressed(folder / "data.npz", x=x, y=y, id=ids)
        return folder / "data.npz"
    if kind in ("npy", "parts"):
        (folder / "data").mkdir()
        parts = {"": slice(None)} if kind == "npy" else {"_train": slice(500), "_test": slice(500, None)}
        for suffix, rows in parts.items():
            np.save(folder / f"data/x{suffix}.npy", x[rows])
            np.save(folder / f"data/y{suffix}.npy", y[rows])
            np.save(folder / f"data/id{suffix}.npy", ids[rows])
        return folder / "data"
    if kind == "idx":
        (folder / "data").mkdir()
        pixels = (x.reshape(N, 2, 3) * 30 + 128).clip(0, 255).astype(np.uint8)
        for stem, rows, opener in (("train", slice(500), gzip.open), ("t10k", slice(500, None), open)):
            for name, values in (("images-idx3", pixels[rows]), ("labels-idx1", y[rows].astype(np.uint8))):
                end = ".gz" if opener is gzip.open else ""
                head = np.array([0x800 + values.ndim, *values.shape], dtype=">u4").tobytes()
                with opener(folder / f"data/{stem}-{name}-ubyte{end}", "wb") as file:
                    file.write(head + values.tobytes())
        return folder / "data"
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(x, columns=[f"column {i}" for i in range(D)])
    frame["target"], frame["id"] = y, ids
    path = folder / f"data.{kind}"
    if kind == "csv":
        frame.to_csv(path, index=False)
    else:
        pytest.importorskip("pyarrow")
        frame.to_parquet(path)
    return path


TESTED = ("--test-share", 0.25)
TOLD = {"npz": TESTED, "npy": TESTED, "parts": (), "idx": ()}
TOLD |= dict.fromkeys(("csv", "parquet"), (*TESTED, "--no-preparation"))


@pytest.mark.parametrize("kind", TOLD)
def test_chunks_are_the_data(samples, tmp_path, in_chunks, capsys, kind):
    data = write(tmp_path, kind, samples[0], samples[1])
    found = []
    for on in (False, True):
        in_chunks(on)
        found.append(train(capsys, data, *TOLD[kind], "--out", tmp_path / str(on)))
    assert found[1]["accuracy"] > 0.7
    assert found[1]["log_loss"] == pytest.approx(found[0]["log_loss"], rel=1e-5)
    found[1]["log_loss"] = found[0]["log_loss"]
    assert found[1] == found[0]
    models = [glai.ExactClassifier.load(tmp_path / str(on)) for on in (False, True)]
    assert models[1].get_params() == models[0].get_params()
    assert (models[1].statistics_.ledger.ids is None) == (kind == "idx")


def test_other_ways(samples, tmp_path, in_chunks, capsys):
    x, classes, values = samples
    far = write(tmp_path, "npz", x, values + 1e6)
    (tmp_path / "classes").mkdir()
    data = write(tmp_path / "classes", "npy", x, classes)
    for name, path, told in (
        ("values", far, ()),
        ("covariance", data, ("--structure", "covariance")),
        ("held-out", data, ("--l2", "held-out")),
        ("trained", data, ("--structure", "trained")),
    ):
        found = []
        for on in (False, True):
            in_chunks(on)
            found.append(train(capsys, path, *told, *TESTED, "--out", tmp_path / f"{name}{on}"))
        if name == "trained":  # on the first chunk
            assert found[1]["accuracy"] > 0.7
        else:
            assert found[1]["digest"] == found[0]["digest"]
        if name == "values":
            assert found[1]["r2"] == pytest.approx(found[0]["r2"], rel=1e-9)
            assert found[1]["r2"] > 0.8
            models = [glai.ExactRegressor.load(tmp_path / f"values{on}") for on in (False, True)]
            assert models[1].get_params() == models[0].get_params()


@pytest.mark.parametrize("kind", ["npz", "npy", "parquet"])
def test_units_are_chosen_by_chunks_as_by_the_data(compared, tmp_path, in_chunks, capsys, kind):
    data = write(tmp_path, kind, *compared)
    found = []
    for on in (False, True):
        in_chunks(on)
        found.append(train(capsys, data, *TOLD[kind], "--out", tmp_path / str(on)))
    assert found[1]["digest"] == found[0]["digest"]
    assert found[1]["structure_reason"] == found[0]["structure_reason"]
    assert found[0]["structure_reason"].startswith("trained units: on 210 samples held out ")
    x, y = compared
    if kind == "npz":  # all are learnt: what fit makes of them
        found = train(capsys, data, "--out", tmp_path / "all")
        assert found["digest"] == glai.ExactClassifier(12).fit(x, y).digest()
    assert main(["inspect", str(tmp_path / "True"), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["structure"] == "trained"
    assert described["structure_reason"].startswith("trained units: on 210 samples held out ")
    told = train(capsys, data, "--structure", "random", "--out", tmp_path / "random")
    assert (told["structure"], told["structure_reason"]) == ("random", "random units, as told")
    assert glai.ExactClassifier.load(tmp_path / "random").features_.seed == 0


def test_chunks_are_prepared_as_the_model_of_the_structure_does(samples, tmp_path, in_chunks, capsys):
    pandas = pytest.importorskip("pandas")
    x, classes, _ = samples
    frame = pandas.DataFrame(x, columns=list("abcdef")).assign(target=classes)
    frame["town"] = np.array(["Gent", "Oslo", "Vigo", None], dtype=object)[np.arange(N) % 4]
    frame.loc[::7, "a"] = np.nan
    frame.to_csv(tmp_path / "data.csv", index=False)
    train(capsys, tmp_path / "data.csv", "--out", tmp_path / "first")
    for told in ((), ("--test-share", 0.25), ("--test", tmp_path / "data.csv")):
        found = []
        for on in (False, True):
            in_chunks(on)
            out = tmp_path / f"{len(told)}{told[:1]}{on}"
            found.append(
                train(capsys, tmp_path / "data.csv", *told, "--structure", tmp_path / "first", "--out", out)
            )
        for figure in ("log_loss", "rmse"):  # sums over samples that come in other parts
            assert found[1].pop(figure, 0) == pytest.approx(found[0].pop(figure, 0), rel=1e-5)
        assert found[1] == found[0]
    frame["a"] = frame["a"].astype(object)
    frame.loc[150, "a"] = "much"
    frame.to_csv(tmp_path / "wrong.csv", index=False)
    arguments = [
        "train",
        tmp_path / "wrong.csv",
        "--exact",
        "--structure",
        tmp_path / "first",
        "--out",
        tmp_path / "no",
    ]
    assert main([str(one) for one in arguments]) == 2
    assert "wrong.csv: row 150, column 'a': 'much' is not a number" in capsys.readouterr().err


def new_table(folder, samples, kind="csv"):
    """Texts, a column of numbers that are names, truth values with gaps, gaps in some chunks alone."""
    pandas = pytest.importorskip("pandas")
    x, classes, values = samples
    frame = pandas.DataFrame(x, columns=list("abcdef")).astype(np.float64)
    frame["town"] = np.array(["Gent", "Oslo", "Vigo", None], dtype=object)[np.arange(N) % 4]
    frame["zip"], frame["on"] = np.arange(N) % 3, np.where(np.arange(N) % 250, np.arange(N) % 2 > 0, None)
    frame.loc[350:420:7, "a"] = np.nan
    frame["id"], frame["kind"], frame["price"] = [f"s{i}" for i in range(N)], classes, values
    path = folder / f"new.{kind}"
    if kind == "csv":
        frame.to_csv(path, index=False)
    else:
        pytest.importorskip("pyarrow")
        frame.to_parquet(path, row_group_size=150)
    return path


NEW = ("--label", "kind", "--drop", "price", "--categories", "zip")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_chunks_of_a_new_table_are_the_table(samples, tmp_path, in_chunks, capsys, kind):
    data = new_table(tmp_path, samples, kind)
    for name, told in (
        ("all", NEW),
        ("share", (*NEW, *TESTED)),
        ("other", (*NEW, "--test", data)),
        ("values", ("--label", "price", "--drop", "kind", *TESTED)),
    ):
        found = []
        for on in (False, True):
            in_chunks(on)
            found.append(train(capsys, data, *told, "--out", tmp_path / f"{name}{on}"))
        for figure in ("log_loss", "rmse"):  # sums over samples that come in other parts
            assert found[1].pop(figure, 0) == pytest.approx(found[0].pop(figure, 0), rel=1e-5)
        assert found[1] == found[0]
        assert "fitted_on" not in found[1]["preparation"]
        assert list(found[1]["preparation"]["categories"]) == (
            ["town"] if name == "values" else ["town", "zip"]
        )


def test_a_new_table_prepared_by_a_part_goes_through_every_command(
    samples, tmp_path, in_chunks, capsys, monkeypatch
):
    data, model = new_table(tmp_path, samples), tmp_path / "m"
    in_chunks(True)
    monkeypatch.setattr(drawn, "MOST_ROWS", 200)
    said = train(capsys, data, *NEW, *TESTED, "--out", model)
    fitted = glai.prepared(model).preparation_.fitted_on
    assert said["preparation"]["fitted_on"] == f"{fitted[0]} of 525 rows"
    assert 100 < fitted[0] < 200  # what is tested on is not among them
    assert main(["inspect", str(model), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["preparation"] == said["preparation"]
    told = ("--part", "test", "--test-share", "0.25", "--json")
    assert main(["evaluate", str(model), str(data), *told]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == said["accuracy"]
    assert main(["predict", str(model), str(data), "--out", str(tmp_path / "a.npz")]) == 0
    assert len(np.load(tmp_path / "a.npz")["label"]) == N
    capsys.readouterr()
    assert main(["learn", str(model), str(data), "--part", "test", "--test-share", "0.25", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples_seen"] == N
    assert glai.prepared(model).preparation_.fitted_on == fitted
    told = [str(one) for one in (*NEW, "--exact", "--out", tmp_path / "said")]
    assert main(["train", str(data), *told]) == 0
    assert "fitted on 200 of 700 rows" in " ".join(capsys.readouterr().out.split())


def test_parties_count_values_alike(samples, tmp_path, in_chunks, capsys):
    x, _, values = samples
    for name, rows in (("a", slice(300)), ("b", slice(300, None)), ("all", slice(None))):
        parts = {"x_train": x[rows], "y_train": values[rows] + 1e6, "x_test": x, "y_test": values + 1e6}
        np.savez(tmp_path / f"{name}.npz", **parts)
    train(capsys, tmp_path / "a.npz", "--out", tmp_path / "a")
    for name, on in (("b", True), ("all", False)):
        in_chunks(on)
        train(capsys, tmp_path / f"{name}.npz", "--structure", tmp_path / "a", "--out", tmp_path / name)
    told = ["merge", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "m"), "--json"]
    assert main(told) == 0
    merged = json.loads(capsys.readouterr().out)
    assert main(["inspect", str(tmp_path / "all"), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert merged["digest"] == described["digest"]
    assert described["centre"] == pytest.approx([1e6], abs=1)
    assert (described["l2_by"], described["ledger"], described["samples_seen"]) == ("gcv", True, N)
    model = glai.ExactRegressor.load(tmp_path / "all")
    assert (described["l2"], described["condition"]) == (model.l2_, model.condition_)
    assert described["decision"] is None  # of values there is none
    assert described["bytes_of_ledger"] == 16 * N
    model.set_params(l2=3.0).save(tmp_path / "all")
    assert main(["inspect", str(tmp_path / "all"), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert (described["l2_by"], described["l2"], described["condition"]) == ("given", None, None)


@pytest.mark.parametrize("kind", ["npz", "new"])
def test_killed_and_resumed(samples, tmp_path, in_chunks, capsys, kind):
    data = write(tmp_path, "npz", samples[0], samples[1]) if kind == "npz" else new_table(tmp_path, samples)
    of_table = () if kind == "npz" else NEW
    in_chunks(False)
    whole = train(capsys, data, *of_table, "--out", tmp_path / "whole")
    told = [
        "train",
        str(data),
        *of_table,
        "--exact",
        "--units",
        "12",
        "--out",
        str(tmp_path / "model"),
        "--json",
    ]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *told, "--checkpoint", "1e-9"], capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    checkpoint = tmp_path / "model.checkpoint"
    assert 0 < glai.IntegerStatistics.load(checkpoint).n_samples < whole["train"]
    assert main([*told, "--checkpoint", "1"]) == 2
    assert "holds the sums of a run that was ended; --resume goes on with it" in capsys.readouterr().err
    resumed = train(capsys, data, *of_table, "--out", tmp_path / "model", "--resume")
    assert resumed["digest"] == whole["digest"]
    assert not checkpoint.exists()
    assert glai.ExactClassifier.load(tmp_path / "model").digest() == whole["digest"]


@pytest.mark.parametrize("streamed", [False, True])
def test_classes_may_come_one_by_one(samples, tmp_path, in_chunks, capsys, streamed):
    x, y, _ = samples
    in_chunks(streamed)
    for c in range(3):
        np.savez(tmp_path / f"{c}.npz", x=x[y == c], y=y[y == c])
    told = ["--exact", "--units", "12", "--json"]
    assert main(["train", str(tmp_path / "0.npz"), *told, "--out", str(tmp_path / "model")]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["outputs"] == 1
    assert "all samples are of one class, which is every answer until glai learn brings others" in said.err
    for c in (1, 2):
        assert main(["learn", str(tmp_path / "model"), str(tmp_path / f"{c}.npz"), "--json"]) == 0
    learner = glai.ExactClassifier.load(tmp_path / "model")
    assert learner.classes_.tolist() == [0, 1, 2]
    assert learner.score(x, y) > 0.6


def test_what_is_wrong_with_chunks_is_said(samples, tmp_path, in_chunks, capsys):
    x, y, _ = samples
    in_chunks(True)
    broken = x.copy()
    broken[np.flatnonzero(y == 1)[-1], 2] = np.nan
    data = write(tmp_path, "npz", broken, y)
    np.savez(tmp_path / "alone.npz", x=x)
    np.savez(tmp_path / "short.npz", x=x, y=y[1:])
    held = ("--checkpoint", "9", "--l2", "held-out")
    told = tmp_path / "told"
    train(capsys, write(tmp_path, "npy", x, y), "--out", told)
    for arguments, sentence in (
        ([data], "must be finite numbers in float32, got NaN in row"),
        ([tmp_path / "alone.npz"], "must hold y beside x, got x alone"),
        ([tmp_path / "short.npz"], "must be equally long, got 700 and 699"),
        ([data, "--structure", told, "--units", "9"], "--units must be the 12 of"),
        ([data, "--resume"], "nothing to resume: there is no"),
        ([data, *held], "are not options of --l2 held-out"),
        (["digits", "--checkpoint", "9"], "need data in a file or folder"),
    ):
        assert main(["train", *map(str, arguments), "--exact", "--out", str(tmp_path / "model")]) == 2
        assert sentence in capsys.readouterr().err
    assert main(["train", str(data), "--resume", "--out", str(tmp_path / "model")]) == 2
    assert "nothing to resume: there is no" in capsys.readouterr().err


def test_ranks_of_torchrun_are_one_process(samples, compared, tmp_path, in_chunks, capsys):
    """One launch for all, since it takes longer than what it runs."""
    x, classes, values = samples
    order = np.argsort(classes, kind="stable")  # a rank sees but some of the classes
    paths = {}
    for name, y in (("classes", classes[order]), ("values", values[order] + 1e6)):
        (tmp_path / name).mkdir()
        paths[name] = write(tmp_path / name, "npz", x[order], y)
    (tmp_path / "compared").mkdir()
    paths["compared"] = write(tmp_path / "compared", "npz", *compared)
    paths["one sample"] = tmp_path / "one.npz"
    np.savez(paths["one sample"], x=x[:1], y=values[:1])
    broken = x[order]
    broken[-3, 2] = np.nan
    np.savez(tmp_path / "broken.npz", x=broken, y=classes[order])
    train(capsys, paths["classes"], "--out", tmp_path / "kept")
    kept, folder, alone = ("--structure", tmp_path / "kept"), tmp_path / "ranks", tmp_path / "alone"
    alike = {
        "whole": (False, paths["classes"], *TESTED),
        "chunks": (True, paths["classes"]),
        "values": (False, paths["values"]),
        "values in chunks": (True, paths["values"]),
        "trained": (False, paths["classes"], "--structure", "trained"),
        "covariance": (True, paths["classes"], "--structure", "covariance", "--no-ledger"),
        "compared": (False, paths["compared"]),
        "compared in chunks": (True, paths["compared"]),
        "kept": (True, paths["classes"], *kept, *TESTED),
        "fewer than ranks": (True, paths["one sample"], "--l2", 1),
    }
    refused = [
        ("no", True, False, (tmp_path / "broken.npz", *kept)),
        ("no", False, False, (paths["classes"], "--l2", "held-out")),
        ("ended", True, True, (paths["classes"], "--checkpoint", 1e-9)),
        ("ended", True, False, (paths["classes"], "--checkpoint", 9)),
    ]
    runs = [(name, streamed, False, told) for name, (streamed, *told) in alike.items()]
    runs += [*refused, ("ended", True, False, (paths["classes"], "--resume"))]
    commands = [
        (streamed, fails, ["train", *map(str, told), "--exact", "--units", "12", "--json", "--out", str(folder / name)])
        for name, streamed, fails, told in runs
    ]  # fmt: skip
    folder.mkdir()
    (tmp_path / "runs.json").write_text(json.dumps(commands))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    done = subprocess.run(
        [sys.executable, *launch, sys.executable, "-c", IN_RANKS],
        cwd=tmp_path, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    left = [0] * len(alike) + [2] * len(refused) + [0]
    assert [json.loads((tmp_path / f"left-{rank}.json").read_text()) for rank in range(2)] == [left, left]
    printed = [json.loads(text + "\n}") for text in done.stdout.split("\n}\n")[:-1]]
    assert len(printed) == len(alike) + 1  # of one rank, once
    for (name, (streamed, *told)), figures in zip(alike.items(), printed, strict=False):
        in_chunks(streamed)
        for key, value in train(capsys, *told, "--out", alone / name).items():
            assert figures[key] == (pytest.approx(value) if isinstance(value, float) else value), (name, key)
        kind = glai.ExactRegressor if figures["task"] == "regression" else glai.ExactClassifier
        one, many = (kind.load(where / name) for where in (alone, folder))
        assert str(one.get_params()) == str(many.get_params())
        ledgers = [model.statistics_.ledger for model in (one, many)]
        if name == "covariance":
            assert ledgers == [None, None]
        else:
            assert np.array_equal(ledgers[0].hashes, ledgers[1].hashes)
            assert np.array_equal(ledgers[0].ids, ledgers[1].ids)
    assert printed[-1]["digest"] == printed[1]["digest"]  # resumed
    assert sorted(path.name for path in folder.iterdir()) == sorted([*alike, "ended"])
    sentences = [line for line in done.stderr.splitlines() if line.startswith("glai train: ")]
    assert len(sentences) == len(refused)
    for sentence, words in zip(
        sentences,
        (
            "NaN in row 97, column 2; scikit-learn's SimpleImputer fills gaps; of the 100 rows from 600 on",
            "--l2 held-out is of one process",
            "no more room",
            "ended.checkpoint-0: holds the sums of a run that was ended; --resume goes on with it",
        ),
        strict=True,
    ):
        assert words in sentence
