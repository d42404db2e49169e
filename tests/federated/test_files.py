"""Parties that are files: of any kind, classes by label, columns by name."""

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("flwr", reason="Flower is not installed: pip install '.[federated]'")

from glai_native.cli.main import main
from glai_native.federated.files import PartyFiles


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
