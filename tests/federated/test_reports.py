"""glai federate without Flower's engine: what the command reads, prints and leaves behind."""

import json

import numpy as np
import pytest
from sklearn.datasets import load_digits

import glai_native as glai
from glai_native.cli.main import main

pytest.importorskip("flwr", reason="Flower is not installed: pip install '.[federated]'")
pytest.importorskip("ray", reason="Flower's simulation engine is not installed")
pytest.importorskip("flwr_datasets", reason="Flower's partitioners are not installed")

from flwr.app import Context, RecordDict

from federated.local_grid import LocalGrid
from glai_native.federated import simulation
from glai_native.federated.baseline import means_bytes, mlp_bytes
from glai_native.federated.settings import FederationSettings


@pytest.fixture(autouse=True)
def _in_place(monkeypatch):
    """The engine's part: parties answer in this process."""

    def run(server, split, workers):
        grid = LocalGrid([split.party(i) for i in range(split.n_parties)])
        server(grid, Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={}))

    monkeypatch.setattr(simulation, "_run", run)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def samples():
    return load_digits(return_X_y=True)


def test_files_have_the_digest_of_one_place(samples, tmp_path, capsys):
    """Each file a party, as skewed as can be, masked or not: the bits that one owner of all samples has."""
    x, y = samples
    order = np.argsort(y[:1000], kind="stable")
    for name, rows in (("a", order[:300]), ("b", order[299:])):  # one sample is held by both
        np.savez(tmp_path / f"{name}.npz", x=x[rows], y=y[rows])
    np.savez(tmp_path / "t.npz", x=x[1000:], y=y[1000:])
    parties = [
        f"--party={tmp_path / 'a.npz'}",
        f"--party={tmp_path / 'b.npz'}",
        f"--test={tmp_path / 't.npz'}",
    ]
    rows = np.concatenate([order[:300], order[299:]])
    whole = glai.ExactClassifier(30, structure="random").fit(x[rows], y[rows])
    for option in ("--secure", "--ledger"):
        out = tmp_path / option[2:]
        options = ["--method", "exact", "--hidden", "30", option, *parties]
        assert main(["federate", "--out", str(out), *options]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        federated = glai.ExactClassifier.load(out)
        assert federated.digest() == whole.digest()
        assert whole.digest() in shown
        assert federated.get_params()["n_units"] == 30
        assert f"{federated.score(x[1000:], y[1000:]):.2%}" in shown
        assert ("a and b both hold 1 samples" in shown) == (option == "--ledger")
    federated.forget(x[order[:300]], y[order[:300]])
    assert federated.n_samples_ == 701


def test_bytes_stand_beside_those_of_means_and_fedavg(samples, tmp_path, capsys):
    options = ["--clients", "4", "--alpha", "0.1", "--json"]
    for method, hidden in (("means", "1"), ("exact", "16")):
        assert (
            main(
                [
                    "federate",
                    "--out",
                    str(tmp_path / method),
                    "--method",
                    method,
                    *options,
                    "--hidden",
                    hidden,
                ]
            )
            == 0
        )
        report = json.loads(capsys.readouterr().out)
        (done,) = report["rounds"]
        settings = FederationSettings(10, hidden=hidden, method=method)
        assert done["means_bytes"] == 4 * means_bytes(settings, 64)
        assert done["fedavg_bytes"] == 8 * mlp_bytes(settings, 64)
        assert done["replied"] == 4
        assert report["test"] > 0.8
        if method == "means":
            assert done["bytes_up"] == done["means_bytes"]
        else:
            assert report["structure"]["features"] == 16 + 64 + 1
            assert len(report["structure"]["digest"]) == 64
    x, _ = samples
    assert glai.GLAI.load(tmp_path / "means").estimator.class_labels == list(range(10))
    assert glai.ExactClassifier.load(tmp_path / "exact").predict(x[:5]).shape == (5,)
