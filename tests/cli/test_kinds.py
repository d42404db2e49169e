"""Every command takes every kind of model, or says in one sentence why not and what to do."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import glai_native as glai
from glai_native.cli.main import main
from glai_native.data import streaming
from glai_native.solvers.exact.file import open_exact

CLASSIFIERS = (
    "sgd",
    "statistics",
    "dual",
    "kernel",
    "learner",
    "chunks",
    "units",
    "unlabelled",
    "exact",
    "sgd units",
)
REGRESSORS = ("regressor", "regressor chunks", "exact regressor", "sgd regressor", "kernel regressor")
KINDS = CLASSIFIERS + REGRESSORS
EXACT = ("exact", "exact regressor")
WEIGHTS_ALONE = ("sgd", "dual", "sgd units", "sgd regressor")
KERNELS = ("kernel", "kernel regressor")
WITHOUT_SUMS = WEIGHTS_ALONE + KERNELS


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
    np.savez(shelf / "values.npz", x=x, y=values, id=np.arange(90) + 1000)
    classes, indices = np.unique(y, return_inverse=True)
    tensors = torch.from_numpy(x), torch.from_numpy(indices)
    tell = {"structure_epochs": 3, "validation_fraction": 0.0}
    learner = glai.GLAIClassifier((4,), solver="statistics", **tell).fit(x, y)
    learner.save(shelf / "learner")
    selector = learner.model_.selector
    for solver in ("sgd", "statistics", "dual"):
        told = {"solver": solver, "validation": 0.0, "class_labels": classes.tolist(), "progress": False}
        if solver == "sgd":
            told |= {"epochs": 60, "learning_rate": 0.1}
        model = glai.fit(selector, *tensors, **told).model
        model.save(shelf / solver)
    kernel = glai.PathKernelModel(selector).fit(*tensors)
    kernel.class_labels = classes.tolist()
    with pytest.warns(UserWarning, match="contains training data"):
        kernel.save(shelf / "kernel")
    kernel = glai.PathKernelModel(selector).fit(tensors[0], torch.from_numpy(values)[:, None])
    with pytest.warns(UserWarning, match="contains training data"):
        kernel.save(shelf / "kernel regressor")
    glai.GLAIClassifier((4,), **tell).partial_fit(x, y).save(shelf / "chunks")
    glai.GLAIRegressor((4,), solver="statistics", **tell).fit(x, values).save(shelf / "regressor")
    glai.GLAIRegressor((4,), **tell).partial_fit(x, values).save(shelf / "regressor chunks")
    ids = np.arange(90) + 1000
    glai.ExactClassifier(16).fit(x, y, ids=ids).save(shelf / "exact")
    glai.ExactRegressor(16).fit(x, values, ids=ids).save(shelf / "exact regressor")
    model = glai.GLAI(selector, glai.PathEstimator.of_units(selector, 3))
    glai.fit(model, *tensors, **told | {"solver": "statistics"})
    model.save(shelf / "units")
    model = glai.GLAI(selector, glai.PathEstimator.of_units(selector, 3))
    glai.fit(model, *tensors, **told | {"solver": "sgd", "epochs": 60})
    model.save(shelf / "sgd units")
    told = {"solver": "sgd", "epochs": 200, "learning_rate": 0.05}
    glai.GLAIRegressor((4,), **tell, **told).fit(x, values).save(shelf / "sgd regressor")
    model = glai.GLAI.load(shelf / "statistics")
    model.class_labels = None
    model.save(shelf / "unlabelled")
    return shelf


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
        if kind in KERNELS:
            kernel = glai.PathKernelModel.load(shelf / kind)
            np.testing.assert_array_equal(found, kernel.predict(torch.from_numpy(np.load(data)["x"]))[:, 0])
            return
        learner = (glai.ExactRegressor if kind in EXACT else glai.GLAIRegressor).load(shelf / kind)
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


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {*EXACT, *WITHOUT_SUMS}))
def test_learn_and_forget(shelf, tmp_path, kind, capsys):
    data = data_of(shelf, kind)
    arrays = dict(np.load(data))
    np.savez(tmp_path / "new.npz", x=arrays["x"][:20] + 1, y=arrays["y"][:20], id=np.arange(20))
    before = glai.GLAI.load(shelf / kind)
    said = run(capsys, "learn", shelf / kind, tmp_path / "new.npz", "--out", tmp_path / "m")
    assert (said["learnt"], said["samples_seen"]) == (20, before.statistics.n_samples + 20)
    assert said["exact"] is True
    (tmp_path / "ids.txt").write_text("\n".join(map(str, range(5))) + "\n\n")
    (tmp_path / "ids.csv").write_text("name,id\n" + "".join(f"a,{i}\n" for i in range(5, 20)))
    for name in ("ids.txt", "ids.csv"):
        said = run(capsys, "forget", tmp_path / "m", tmp_path / "new.npz", "--ids", tmp_path / name)
    assert (said["forgotten"], said["samples_seen"]) == (15, before.statistics.n_samples)
    assert said["known_to_be_learnt"] is False
    after = glai.GLAI.load(tmp_path / "m")
    torch.testing.assert_close(after.statistics.sums(), before.statistics.sums(), rtol=1e-5, atol=1e-5)
    x = torch.from_numpy(arrays["x"])
    torch.testing.assert_close(after(x), before(x), rtol=1e-3, atol=1e-3)
    error = refused(capsys, "forget", tmp_path / "m", tmp_path / "new.npz")
    assert "not" in error
    unchanged = glai.GLAI.load(tmp_path / "m")
    assert unchanged.statistics.n_samples == before.statistics.n_samples
    learner = {"learner": glai.GLAIClassifier, "chunks": glai.GLAIClassifier}.get(kind)
    if learner is not None:
        assert learner.load(tmp_path / "m").structure_epochs == 3


@pytest.mark.parametrize("kind", WEIGHTS_ALONE)
def test_weights_alone_learn_what_is_new_and_cannot_forget(shelf, tmp_path, kind, capsys):
    data, path = data_of(shelf, kind), shelf / kind
    arrays = dict(np.load(data))
    y = np.full(60, 30.0) if kind in REGRESSORS else np.array(["cat", "dog"])[np.arange(60) % 2]
    x = np.random.default_rng(2).normal(size=(60, 5)) - 3
    x[y == "dog"] -= 4
    np.savez(tmp_path / "new.npz", x=x, y=y)
    assert main(["learn", str(path), str(tmp_path / "new.npz"), "--out", str(tmp_path / "m"), "--json"]) == 0
    output = capsys.readouterr()
    said = json.loads(output.out)
    assert f"{path}: has weights alone, which are trained on the new samples alone" in output.err
    assert "with: glai train DATA --exact --out FOLDER, or --solver statistics" in output.err
    assert (said["exact"], said["learnt"], said["held_out"]) == (False, 54, 6)  # which stop the training
    assert said["samples_seen"] == samples_seen(path) + 54
    assert said["numbers_changed"] is True
    figures = run(capsys, "evaluate", tmp_path / "m", tmp_path / "new.npz")
    before, after = glai.GLAI.load(path), glai.GLAI.load(tmp_path / "m")
    assert after.structure_id == before.structure_id
    if kind in REGRESSORS:
        errors = before.predict(torch.from_numpy(x).float()) - 30
        assert figures["rmse"] < np.sqrt((errors**2).mean()) / 2
    else:
        assert (said["classes"], said["new_classes"]) == (4, 1)
        assert after.class_labels == ["ant", "bee", "cat", "dog"]
        assert figures["accuracy"] > 0.8
    for seed, same in ((0, True), (1, False)):
        out = tmp_path / f"again {seed}"
        run(capsys, "learn", path, tmp_path / "new.npz", "--out", out, "--seed", seed)
        again = glai.GLAI.load(out)
        x_before = torch.from_numpy(arrays["x"])
        assert torch.equal(again(x_before), after(x_before)) == same
    error = refused(capsys, "forget", path, data)
    assert (
        f"{path}: must keep sums over its samples to forget some, and this model has weights alone" in error
    )
    assert "train it again without them, or from the start with: glai train DATA --exact" in error


@pytest.mark.filterwarnings("ignore:.*contains training data")
def test_path_kernels_that_keep_no_targets(shelf, tmp_path, capsys):
    x, _ = make_data(0)
    selector = glai.PathKernelModel.load(shelf / "kernel").selector
    model = glai.PathKernelModel(selector).fit(torch.from_numpy(x), torch.arange(90) % 3, n_centres=20)
    model.save(tmp_path / "m")
    assert run(capsys, "inspect", tmp_path / "m")["keeps_targets"] is False
    for command in ("learn", "forget"):
        error = refused(capsys, command, tmp_path / "m", shelf / "indices.npz")
        assert f"glai {command}: {tmp_path}/m: must keep the targets of its samples" in error
        assert "train it again" in error


@pytest.mark.parametrize("kind", ["statistics", "units", "regressor"])
def test_one_sample_is_left(shelf, kind, capsys):
    error = refused(capsys, "forget", shelf / kind, data_of(shelf, kind))
    data = data_of(shelf, kind)
    assert error.startswith(f"glai forget: {data}: at least one sample must be left, got all of the model's")


@pytest.mark.filterwarnings("ignore:.*contains training data")
@pytest.mark.parametrize("kind", KERNELS)
def test_path_kernels_learn_and_forget(shelf, tmp_path, kind, capsys):
    data, path = data_of(shelf, kind), shelf / kind
    x, _ = make_data(1)
    y = (x - 4) @ np.arange(5) + 3 if kind in REGRESSORS else np.full(90, "ape")
    np.savez(tmp_path / "new.npz", x=x - 4, y=y, id=np.arange(90))
    said = run(capsys, "learn", path, tmp_path / "new.npz", "--out", tmp_path / "m")
    assert (said["kind"], said["exact"], said["learnt"], said["samples_seen"]) == (
        "path kernel model",
        True,
        90,
        180,
    )
    figures = run(capsys, "evaluate", tmp_path / "m", tmp_path / "new.npz")
    if kind in REGRESSORS:
        assert figures["r2"] > 0.9
    else:
        assert (said["classes"], said["new_classes"], figures["accuracy"]) == (4, 1, 1)
        assert [one["class"] for one in figures["per_class"]] == ["ant", "ape", "bee", "cat"]
    (tmp_path / "ids.txt").write_text("\n".join(map(str, range(50))))
    arguments = ("forget", tmp_path / "m", tmp_path / "new.npz")
    said = run(capsys, *arguments, "--ids", tmp_path / "ids.txt")
    assert (said["exact"], said["forgotten"], said["samples_seen"]) == (True, 50, 130)
    content = (tmp_path / "m/path_kernel.safetensors").read_bytes()
    error = refused(capsys, *arguments)  # some are gone already
    assert (
        f"glai forget: {tmp_path}/new.npz: the samples must be among those that were learnt, got 50" in error
    )
    assert "in rows 0, 1, 2" in error
    assert (tmp_path / "m/path_kernel.safetensors").read_bytes() == content
    (tmp_path / "ids.txt").write_text("\n".join(map(str, range(50, 90))))
    run(capsys, *arguments, "--ids", tmp_path / "ids.txt")
    x = torch.from_numpy(np.load(data)["x"])
    before, after = (glai.PathKernelModel.load(folder) for folder in (path, tmp_path / "m"))
    found = after.predict(x) if kind in REGRESSORS else after.predict(x)[:, [0, 2, 3]]
    torch.testing.assert_close(found, before.predict(x), rtol=1e-3, atol=1e-3)
    assert "at least one sample must be left" in refused(capsys, "forget", tmp_path / "m", data)


def samples_seen(folder):
    return int(glai.GLAI.load(folder).estimator.samples_seen)


def test_new_classes_and_what_cannot_be_forgotten(shelf, tmp_path, capsys):
    x, _ = make_data(1)
    np.savez(tmp_path / "new.npz", x=x - 4, y=np.full(90, "dog"))
    said = run(capsys, "learn", shelf / "statistics", tmp_path / "new.npz", "--out", tmp_path / "m")
    assert (said["classes"], said["new_classes"]) == (4, 1)
    assert run(capsys, "evaluate", tmp_path / "m", tmp_path / "new.npz")["accuracy"] > 0.9
    assert "got 'dog' besides" in refused(capsys, "forget", shelf / "statistics", tmp_path / "new.npz")
    for ids, sentence in (
        ("1000\n7\n", "ids.txt: must list ids of .*classes.npz, got 1 that it does not hold: 7"),
        ("", "ids.txt: must hold an id a line, got none"),
        ("a\n1000\n", "ids.txt: must list ids of .*classes.npz, got 1 that it does not hold: 'a'"),
        ("01000\n", "got 1 that it does not hold: '01000'"),
        ("1000 \n", "got 1 that it does not hold: '1000 '"),
    ):
        (tmp_path / "ids.txt").write_text(ids)
        arguments = ("forget", tmp_path / "m", shelf / "classes.npz", "--ids", tmp_path / "ids.txt")
        assert re.search(sentence, refused(capsys, *arguments))
    arguments = ("forget", tmp_path / "m", tmp_path / "new.npz", "--ids", tmp_path / "ids.txt")
    assert "must hold the samples' ids, a column or an array 'id', got none" in refused(capsys, *arguments)


def write_table(path, x, y, ids):
    rows = [
        f"{one},{','.join(map(repr, row))},{label}\n"
        for one, row, label in zip(ids, x.tolist(), y, strict=True)
    ]
    path.write_text("id,a,b,c,d,e,label\n" + "".join(rows))


def test_ids_of_a_csv_are_those_that_are_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(streaming, "ROWS", 40)
    x, y = make_data(0)
    ids = [*map(str, range(3, 92)), "003"]
    data, answers, listed = tmp_path / "d.csv", tmp_path / "answers.csv", tmp_path / "ids.txt"
    write_table(data, x, y, ids)
    # Also in chunks, of which all but the last would be of integers alone.
    for more in ((), ("--checkpoint", "60")):
        model = tmp_path / ("m" + "".join(more))
        said = run(capsys, "train", data, "--exact", "--units", "8", *more, "--out", model)
        assert said["ids_used_twice"] == 0
        run(capsys, "predict", model, data, "--out", answers)
        assert [row["id"] for row in csv.DictReader(answers.open())] == ids
        for one in ("003", "3"):
            listed.write_text(f"{one}\n")
            said = run(
                capsys, "forget", model, data, "--ids", listed, "--out", tmp_path / f"{model.name}{one}"
            )
            assert said["forgotten"] == 1
            before, left = (
                glai.ExactClassifier.load(folder).statistics_.ledger
                for folder in (model, tmp_path / f"{model.name}{one}")
            )
            kept = before.ids != one
            assert len(before) == 90
            assert (left.hashes.tolist(), left.ids.tolist()) == (
                before.hashes[kept].tolist(),
                before.ids[kept].tolist(),
            )
    listed.write_text("+3\n")
    error = refused(capsys, "forget", model, data, "--ids", listed)
    assert "got 1 that it does not hold: '+3'" in error


def test_integers_of_any_file_are_the_same_ids(tmp_path, capsys):
    x, y = make_data(0)
    np.savez(tmp_path / "d.npz", x=x, y=y, id=np.arange(90))
    write_table(tmp_path / "d.csv", x, y, range(90))
    np.savez(tmp_path / "texts.npz", x=x, y=y, id=np.arange(90).astype(str))
    write_table(tmp_path / "zeros.csv", x, y, [f"{i:03}" for i in range(90)])
    (tmp_path / "ids.txt").write_text("7\n12\n")
    for learnt in ("d.npz", "d.csv", "texts.npz"):
        model = tmp_path / learnt.replace(".", "")
        run(
            capsys,
            "train",
            tmp_path / learnt,
            "--exact",
            "--units",
            "8",
            "--test-share",
            "0.1",
            "--out",
            model,
        )
        for data in ("d.npz", "d.csv", "texts.npz"):
            arguments = ("--part", "train", "--test-share", "0.1", "--ids", tmp_path / "ids.txt")
            said = run(
                capsys, "forget", model, tmp_path / data, *arguments, "--out", tmp_path / f"{learnt}-{data}"
            )
            assert (said["forgotten"], said["samples_seen"]) == (2, 79)
        assert "(id '0" in refused(capsys, "forget", model, tmp_path / "zeros.csv", *arguments[:4])


def test_models_that_read_texts_as_integers_find_them(tmp_path, capsys):
    x, y = make_data(0)
    write_table(tmp_path / "d.csv", x, y, [f"{i:03}" for i in range(90)])
    model = glai.ExactClassifier(8).fit(x, y, ids=np.arange(90))
    model.statistics_.ledger = replace(
        model.statistics_.ledger, as_integers=True
    )  # as files of then are opened
    model.save(tmp_path / "m")
    assert "ids" not in open_exact(tmp_path / "m/exact.safetensors").metadata
    said = run(capsys, "learn", tmp_path / "m", tmp_path / "d.csv")
    assert (said["samples_counted_twice"], said["ids_used_twice"]) == (90, 90)
    (tmp_path / "ids.txt").write_text("003\n012\n")
    for left in (178, 176):  # of either spelling one
        said = run(capsys, "forget", tmp_path / "m", tmp_path / "d.csv", "--ids", tmp_path / "ids.txt")
        assert said["samples_seen"] == left
    assert "(id '003')" in refused(
        capsys, "forget", tmp_path / "m", tmp_path / "d.csv", "--ids", tmp_path / "ids.txt"
    )


@pytest.mark.parametrize("more", [(), ("--checkpoint", "60")])
def test_ids_used_twice_are_told(tmp_path, capsys, more):
    x, y = make_data(0)
    write_table(tmp_path / "d.csv", x, y, [i % 80 for i in range(90)])
    arguments = ("train", tmp_path / "d.csv", "--exact", "--units", "8", *more, "--out")
    assert run(capsys, *arguments, tmp_path / "m")["ids_used_twice"] == 10
    assert "ids_used_twice" not in run(capsys, *arguments, tmp_path / "no ledger", "--no-ledger")
    for twice in (True, False):
        write_table(tmp_path / "d.csv", x, y, [i % 80 if twice else i for i in range(90)])
        assert main([*map(str, arguments), str(tmp_path / f"printed {twice}")]) == 0
        rows = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert (["ids_used_twice", "10"] in rows) == twice
        assert twice or not any(row[:1] == ["ids_used_twice"] for row in rows)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(EXACT)))
def test_inspect_and_merge(shelf, tmp_path, kind, capsys):
    data = data_of(shelf, kind)
    described = run(capsys, "inspect", shelf / kind)
    assert described["kind"] == ("path kernel model" if kind in KERNELS else "model")
    if kind in KERNELS:
        assert (described["keeps_targets"], described["outputs"]) == (True, 3 if kind == "kernel" else 1)
        error = refused(capsys, "merge", shelf / kind, shelf / "sgd", "--out", tmp_path / "m")
        assert "got a model of kind 'path kernel model'" in error
        return
    method, first = "samples", shelf / kind
    other = glai.GLAI.load(first)
    if kind == "unlabelled":  # learning names outputs
        first = tmp_path / "named"
        run(capsys, "learn", shelf / kind, data, "--out", first)
    if kind not in WITHOUT_SUMS:
        method = "statistics"
        run(capsys, "learn", first, data, "--out", tmp_path / "other")
    else:
        with torch.no_grad():
            other.estimator.bias.add_(0.05)
        other.save(tmp_path / "other")
    arguments = ("merge", first, tmp_path / "other", "--out", tmp_path / "m", "--method", method)
    said = run(capsys, *arguments)
    assert said["samples_seen"] == sum(said[f"samples of {one}"] for one in (first, tmp_path / "other"))
    figures = run(capsys, "evaluate", tmp_path / "m", data)
    assert figures.get("accuracy", figures.get("r2")) > 0.9


@pytest.mark.parametrize("kind", EXACT)
def test_exact_models_come_back_to_the_bit(shelf, tmp_path, kind, capsys):
    data = data_of(shelf, kind)
    digest = run(capsys, "inspect", shelf / kind)["digest"]
    x, _ = make_data(1)
    y = np.full(90, "dog") if kind == "exact" else x.sum(1)
    np.savez(tmp_path / "new.npz", x=x - 4, y=y, id=np.arange(90))
    learnt = run(capsys, "learn", shelf / kind, tmp_path / "new.npz", "--out", tmp_path / "m")
    assert (learnt["samples_seen"], learnt.get("classes")) == (180, 4 if kind == "exact" else None)
    assert learnt["digest"] not in (digest, None)
    error = (
        refused(capsys, "learn", shelf / kind, shelf / "indices.npz") if kind == "exact" else "of type str"
    )
    assert "of type str" in error
    (tmp_path / "ids.txt").write_text("\n".join(map(str, range(50))))
    arguments = ("forget", tmp_path / "m", tmp_path / "new.npz")
    run(capsys, *arguments, "--ids", tmp_path / "ids.txt")
    error = refused(capsys, *arguments)  # some are gone already
    assert f"glai forget: {tmp_path}/new.npz: the samples must be among those that were learnt" in error
    assert "in rows 0, 1, 2" in error
    (tmp_path / "ids.txt").write_text("\n".join(map(str, range(50, 90))))
    said = run(capsys, *arguments, "--ids", tmp_path / "ids.txt")
    assert (said["samples_seen"], said["digest"]) == (90, digest)
    assert "got one twice" in refused(capsys, "merge", shelf / kind, tmp_path / "m", "--out", tmp_path / "no")
    figures = run(capsys, "evaluate", tmp_path / "m", data)
    assert figures.get("accuracy", figures.get("r2")) > 0.9
    for command in (("prune", "--data", data), ("grow", "--units", 1)):
        error = refused(capsys, command[0], shelf / kind, "--out", tmp_path / "no", *command[1:])
        assert "must be a model with path weights to be" in error
    error = refused(capsys, "merge", shelf / kind, shelf / "sgd", "--out", tmp_path / "no")
    assert "must be a model with path weights to be merged, or all of them exact" in error


def test_train_exactly_and_merge_parties(shelf, tmp_path, capsys):
    x, y = make_data(0)
    for name, rows in (("a", slice(0, 60)), ("b", slice(60, 90)), ("all", slice(0, 90))):
        np.savez(tmp_path / f"{name}.npz", x_train=x[rows], y_train=y[rows], x_test=x, y_test=y)
    told = ("--exact", "--units", 16)
    a = run(capsys, "train", tmp_path / "a.npz", *told, "--out", tmp_path / "a")
    assert (a["train"], a["test"], a["units"], a["features"]) == (60, 90, 16, 22)
    assert a["accuracy"] > 0.9
    for name in ("b", "all"):
        same = ("--structure", tmp_path / "a")
        run(capsys, "train", tmp_path / f"{name}.npz", *told, *same, "--out", tmp_path / name)
    merged = run(capsys, "merge", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "m")
    assert (merged["samples_seen"], merged["samples_counted_twice"]) == (90, 0)
    described = run(capsys, "inspect", tmp_path / "all")
    assert merged["digest"] == described["digest"]
    assert run(capsys, "inspect", tmp_path / "all", tmp_path / "m")["same_digest"] is True
    twice = run(capsys, "merge", tmp_path / "a", tmp_path / "all", "--out", tmp_path / "twice")
    assert (twice["samples_seen"], twice["samples_counted_twice"]) == (150, 60)
    assert twice["counted_twice"].endswith(", …")
    values = run(
        capsys,
        "train",
        shelf / "values.npz",
        *told,
        "--no-ledger",
        "--l2",
        "held-out",
        "--test-share",
        0.25,
        "--out",
        tmp_path / "values",
    )
    assert values["r2"] > 0.9
    assert run(capsys, "inspect", tmp_path / "values")["ledger"] is False
    assert (
        main(["train", str(tmp_path / "a.npz"), "--exact", "--units", "8", "--out", str(tmp_path / "t")]) == 0
    )
    assert "accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--exact", "--hidden", "4"], "--hidden is not an option of --exact"),
        (["--exact", "--solver", "sgd"], "--solver is not an option of --exact, got sgd"),
        (["--units", "4"], "--units needs --exact"),
        (["--l2", "held-out"], "--l2 held-out needs --exact"),
        (["--structure", "random"], "--structure random needs --exact"),
        (["--structure", "SHELF/exact"], "is an exact model, whose structure needs --exact"),
        (
            ["--exact", "--structure", "SHELF/sgd"],
            "--structure must be auto, random, covariance, trained or an exact model's folder",
        ),
    ],
)
def test_options_of_exact_training(shelf, tmp_path, options, sentence, capsys):
    options = [option.replace("SHELF", str(shelf)) for option in options]
    error = refused(capsys, "train", shelf / "classes.npz", "--out", tmp_path / "m", *options)
    assert sentence in error


def test_a_table_s_columns_and_label_stay_with_the_model(shelf, tmp_path, capsys):
    pandas = pytest.importorskip("pandas")
    x, y = make_data(0)
    frame = pandas.DataFrame(x, columns=list("abcde")).assign(kind=y, id=[f"s{i}" for i in range(90)])
    frame.to_csv(tmp_path / "d.csv", index=False)
    run(
        capsys,
        "train",
        tmp_path / "d.csv",
        "--exact",
        "--units",
        8,
        "--label",
        "kind",
        "--out",
        tmp_path / "e",
    )
    told = ("--hidden", "4", "--structure-epochs", "1", "--solver", "statistics", "--label", "kind")
    run(capsys, "train", tmp_path / "d.csv", "--out", tmp_path / "m", *told)
    run(capsys, "grow", tmp_path / "m", "--units", 1, "--out", tmp_path / "grown")
    frame[[*"edcba", "kind", "id"]].to_csv(tmp_path / "mixed.csv", index=False)
    frame[["id", *"cdeba"]].to_csv(tmp_path / "unknown.csv", index=False)
    frame[["a", "b", "kind"]].to_csv(tmp_path / "few.csv", index=False)
    for model in ("m", "grown", "e"):
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
    assert "unknown.csv: must have the label's column, which the model knows as 'kind'" in error


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
