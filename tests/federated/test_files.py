"""Parties that are files: of any kind, classes by label, columns by name."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("flwr", reason="Flower is not installed: pip install '.[federated]'")

from flwr.app import Context, RecordDict

import glai_native as glai
from federated.local_grid import LocalGrid, settings_of
from glai_native.cli.main import main
from glai_native.data.tables import NO_TABLE, TableNames
from glai_native.federated.files import PartyFiles
from glai_native.federated.partition import party_of
from glai_native.federated.server import Plan, federate, plan_of
from glai_native.training.tables import names_of


@pytest.fixture
def files(tmp_path):
    generator = np.random.default_rng(3)
    x = generator.normal(size=(9, 2)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=x[:4], y=["cat", "ant", "cat", "ant"])
    table = pd.DataFrame({"width": x[4:7, 0], "height": x[4:7, 1], "label": ["bee", "cat", "bee"]})
    table.to_csv(tmp_path / "b.csv", index=False)
    table[["height", "label", "width"]].to_parquet(tmp_path / "c.parquet")
    np.savez(tmp_path / "t.npz", x=x[7:], y=["bee", "ant"])
    return tmp_path, x


def test_files_are_parties(files):
    folder, x = files
    held = PartyFiles(
        tuple(str(folder / name) for name in ("a.npz", "b.csv", "c.parquet")), str(folder / "t.npz")
    )
    assert [held.party(i).name for i in range(3)] == ["a", "b", "c"]
    assert held.party(1).names.columns == ("width", "height")
    torch.testing.assert_close(held.party(2).x, held.party(1).x)  # in the order of the first table
    data = held.load()
    assert data.classes == ["ant", "bee", "cat"]
    assert data.y_train.tolist() == [2, 0, 2, 0, 1, 2, 1, 1, 2, 1]
    assert data.y_test.tolist() == [1, 0]
    torch.testing.assert_close(data.x_train[:7].double(), torch.from_numpy(x[:7]).double())
    assert not len(PartyFiles(held.files).load().x_test)


def test_test_parts_are_joined(files):
    folder, x = files
    np.savez(folder / "d.npz", x_train=x[:3], y_train=[0, 1, 2], x_test=x[3:5], y_test=[1, 1])
    np.savez(folder / "e.npz", x=x[5:], y=[2, 2, 3, 3])
    data = PartyFiles((str(folder / "d.npz"), str(folder / "e.npz"))).load()
    assert (data.classes, data.y_train.tolist(), data.y_test.tolist()) == (
        [0, 1, 2, 3],
        [0, 1, 2, 2, 2, 3, 3],
        [1, 1],
    )


def test_files_that_do_not_fit(files, tmp_path, capsys):
    folder, x = files
    np.savez(folder / "wide.npz", x=np.ones((3, 5)), y=["ant"] * 3)
    np.savez(folder / "numbers.npz", x=x, y=np.arange(9))
    a = str(folder / "a.npz")
    for other, sentence in (
        ("wide.npz", "parties must hold the same features, got 2 of a, 5 of wide"),
        ("numbers.npz", "party numbers: y must hold labels of type str like the other parties'"),
        ("none.npz", "there is no such file"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=sentence):
            PartyFiles((a, str(folder / other))).load()
    with pytest.raises(ValueError, match="must be a file of its own, got .* twice"):
        PartyFiles((a, a))
    pytest.importorskip("ray", reason="Flower's simulation engine is not installed")
    pytest.importorskip("flwr_datasets", reason="Flower's partitioners are not installed")
    for options, sentence in (
        (["--party", a], "parties must be >= 2 files, got 1"),
        (["--party", a, "--party", a, "--clients", "3"], "got --clients besides, which splits a data set"),
        (["--test", a], "--test is told with --party, got it alone"),
    ):
        assert main(["federate", "--out", str(tmp_path / "out"), *options]) == 2
        assert sentence in capsys.readouterr().err


COLUMNS = ["p0", "p1", "p2", "p3"]


@pytest.fixture
def tables(tmp_path):
    """Two parties whose columns are in other orders, and a table of both of them."""
    generator = np.random.default_rng(4)
    kind = generator.integers(3, size=90)
    whole = pd.DataFrame(generator.normal(size=(90, 4)) + 4 * np.eye(3, 4)[kind], columns=COLUMNS)
    whole["kind"] = kind
    whole[:40].to_csv(tmp_path / "a.csv", index=False)
    whole.loc[40:, ["kind", *COLUMNS[::-1]]].to_parquet(tmp_path / "b.parquet")
    whole.to_csv(tmp_path / "whole.csv", index=False)
    whole[["kind", *COLUMNS[::-1]]].to_csv(tmp_path / "other.csv", index=False)
    return tmp_path, PartyFiles((str(tmp_path / "a.csv"), str(tmp_path / "b.parquet")), label="kind")


def federated(held, folder, **named):
    """The federation that ``glai federate`` makes of files, without Flower's engine."""
    data = held.load()
    settings = settings_of(n_classes=data.n_classes, **named).of_data(data, "files")
    grid = LocalGrid([held.party(i) for i in range(held.n_parties)])
    return federate(grid, Plan(settings, folder, class_labels=data.classes))


def told(capsys, *command):
    assert main([*map(str, command), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("method", ["exact", "means", "statistics", "samples"])
def test_the_model_keeps_the_names(tables, capsys, method):
    folder, held = tables
    model = folder / "model"
    for rounds in (1, 2):  # what a restarted server saves keeps them too
        progress = federated(held, model, method=method, rounds=rounds)
    kept = glai.ExactClassifier if method == "exact" else glai.GLAI
    assert names_of(kept.load(model)) == TableNames(COLUMNS, "kind")
    assert progress.settings.names == TableNames((*COLUMNS,), "kind")
    right, other = (told(capsys, "evaluate", model, folder / name) for name in ("whole.csv", "other.csv"))
    assert right["accuracy"] == other["accuracy"] > (0.9 if method != "samples" else 0)
    pd.read_csv(folder / "whole.csv").drop(columns="p2").to_csv(folder / "few.csv", index=False)
    assert main(["evaluate", str(model), str(folder / "few.csv")]) == 2
    assert "got none called 'p2'" in capsys.readouterr().err


def test_an_exact_model_of_tables_is_that_of_one_table(tables, capsys):
    folder, held = tables
    federated(held, folder / "model", method="exact", hidden="20", l2="gcv")
    whole = ("train", folder / "whole.csv", "--label", "kind", "--test", folder / "other.csv")
    options = ("--exact", "--units", 20, "--no-preparation", "--structure", "random", "--no-ledger")
    trained = told(capsys, *whole, *options, "--out", folder / "one")
    federation = glai.ExactClassifier.load(folder / "model")
    assert federation.digest() == trained["digest"]
    assert names_of(federation) == names_of(glai.ExactClassifier.load(folder / "one"))
    few = pd.read_csv(folder / "other.csv")[:9]
    few.to_csv(folder / "few.csv", index=False)
    for command in ("forget", "learn"):
        told(capsys, command, folder / "model", folder / "few.csv")
    assert glai.ExactClassifier.load(folder / "model").digest() == trained["digest"]


def test_folders_of_earlier_versions_are_gone_on_from(tables):
    folder, held = tables
    progress = federated(held, folder / "model", method="exact")
    text = json.loads(progress.text())
    before = json.loads(text["settings"])
    del before["columns"], before["label"]
    progress.text = lambda: json.dumps(text | {"settings": json.dumps(before)})
    progress.save()
    assert federated(held, folder / "model", method="exact", rounds=4).contributed == ["a", "b"]
    assert names_of(glai.ExactClassifier.load(folder / "model")).label == "kind"


def test_arrays_keep_no_names(files):
    folder, x = files
    np.savez(folder / "d.npz", x=x, y=["cat", "ant", "bee"] * 3)
    arrays = tuple(str(folder / name) for name in ("a.npz", "d.npz"))
    assert PartyFiles(arrays, str(folder / "b.csv")).load().names == NO_TABLE
    assert PartyFiles((*arrays, str(folder / "b.csv"))).load().names.columns == ("width", "height")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"p2": None}, "c.csv: must have the columns of .*a.csv, got none called 'p2'"),
        ({"more": "text"}, "c.csv: must have the columns of .*a.csv, got 'more' besides"),
        ({"p1": "text"}, "c.csv: column 'p1' must be numbers, got 'text' in row 0"),
        ({"p1": np.nan}, r"c.csv: x must be finite numbers in float32, got NaN in row 0, column 1 \('p1'\)"),
    ],
)
def test_tables_that_do_not_fit(tables, change, sentence):
    folder, held = tables
    table = pd.read_csv(folder / "whole.csv")
    for name, value in change.items():
        table = table.drop(columns=name) if value is None else table.assign(**{name: value})
    table.to_csv(folder / "c.csv", index=False)
    with pytest.raises(ValueError, match=sentence):
        PartyFiles((held.files[0], str(folder / "c.csv")), label="kind").load()
    if np.nan in change.values():
        with pytest.raises(ValueError, match=sentence):
            PartyFiles((str(folder / "c.csv"), held.files[0]), label="kind").load()


def test_a_nodes_table_is_read_by_name(tables):
    folder, held = tables
    node = {"data": held.files[1], "party": "clinic"}
    config = {
        "n-classes": 3,
        "columns": json.dumps(COLUMNS),
        "label": "kind",
        "test-data": str(folder / "other.csv"),
    }
    context = Context(run_id=1, node_id=7, node_config=node, state=RecordDict(), run_config=config)
    torch.testing.assert_close(party_of(context).x, held.party(1).x)
    plan = plan_of(context)
    torch.testing.assert_close(plan.test[0], held.load().x_train)
    assert plan.settings.names == TableNames((*COLUMNS,), "kind")
    del config["columns"]
    with pytest.raises(
        ValueError, match="party clinic: a table's columns are matched by name; columns of the run"
    ):
        party_of(Context(run_id=1, node_id=7, node_config=node, state=RecordDict(), run_config=config))
    for columns, sentence in (
        ("p0", "must be a JSON list"),
        ('["a", "a"]', "each feature once"),
        ('["kind"]', "no label"),
    ):
        with pytest.raises(ValueError, match=sentence):
            settings_of(columns=columns, label="kind")
