"""``glai inspect | prune | grow``: figures, pictures, and one sentence where something is wrong."""

import json

import numpy as np
import pytest
import torch

import glai_native as glai
from conftest import make_mlp, set_constant_units
from glai_native.cli.main import main


def make_model(x, widths=(12,), seed=0):
    mlp = set_constant_units(make_mlp(x.shape[1], *widths, 3, seed=seed))
    selector = glai.PathSelector(mlp)
    return glai.GLAI(selector, glai.PathEstimator.from_selector(selector))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models, gates, and the data whose training samples the gates are of."""
    folder = tmp_path_factory.mktemp("structures")
    g = np.random.default_rng(0)
    x, y = g.normal(size=(60, 5)).astype(np.float32), np.arange(60) % 3
    np.savez(folder / "data.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    x = torch.from_numpy(x[:40])
    for name, widths, seed in (("one", (12,), 0), ("two", (6, 4), 0), ("other", (9,), 1)):
        model = make_model(x, widths, seed)
        model.save(folder / name)
        store = glai.GateStore.create(folder / f"{name}-gates", model.selector)
        if name != "two":
            store.append(model.selector.unit_gates(x))
    return folder


def run(capsys, *arguments):
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments):
    assert main([*map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"glai {arguments[0]}: ")
    assert error.count("\n") == 1
    return error


def test_inspect_a_store_and_a_model_on_data_see_the_same_gates(folder, capsys):
    store = run(capsys, "inspect", folder / "one-gates")
    model = run(capsys, "inspect", folder / "one", "--data", folder / "data.npz")
    for figures in (store, model):
        assert figures["samples"] == 40
        assert (figures["unit_never_on"], figures["unit_always_on"]) == ([1], [1])
        assert (figures["path_never_on"], figures["path_always_on"]) == (1, 2)
        assert 1 < figures["unique_patterns"] == figures["unique_patterns_per_layer"][0] <= 40
        assert 0 < figures["path_deviation"] < 0.5
        assert 0 < figures["oui"] < 1
    assert {name: store[name] for name in store if "pattern" in name or "_on" in name} == {
        name: model[name] for name in model if "pattern" in name or "_on" in name
    }
    assert run(capsys, "inspect", folder / "two-gates")["samples"] == 0
    assert "unique_patterns" not in run(capsys, "inspect", folder / "one")


def test_inspect_two(folder, capsys):
    for pair in (("one-gates", "other-gates"), ("one", "other"), ("one-gates", "other")):
        figures = run(capsys, "inspect", *(folder / name for name in pair), "--data", folder / "data.npz")
        assert not figures["same_structure"]
        assert 0.5 < figures["agreement"][0] < 1
        assert figures["agreement_by_number"] == [None]
        assert figures["matched_units"] == [9]
        assert figures["second"]["layer_widths"] == [9]
    same = run(capsys, "inspect", folder / "one", folder / "one", "--data", folder / "data.npz")
    assert same["same_structure"]
    assert same["agreement"] == same["agreement_by_number"] == [1.0]
    assert "needs two" in run(capsys, "inspect", folder / "one", folder / "other")["agreement"]
    different = run(capsys, "inspect", folder / "one", folder / "two", "--data", folder / "data.npz")
    assert "as many hidden layers" in different["agreement"]
    assert main(["inspect", str(folder / "one"), str(folder / "other")]) == 0
    output = capsys.readouterr().out
    assert "second" in output
    assert "matched_units" not in output


@pytest.mark.filterwarnings("ignore:PathKernelModel.save")
def test_inspect_a_kernel_model(folder, tmp_path, capsys):
    data = np.load(folder / "data.npz")
    x, y = torch.from_numpy(data["x_train"]), torch.from_numpy(data["y_train"])
    glai.PathKernelModel(make_model(x).selector).fit(x, y, l2=1.0).save(tmp_path)
    figures = run(capsys, "inspect", tmp_path, "--data", folder / "data.npz")
    assert figures["kind"] == "path kernel model"
    assert (figures["centres"], figures["samples"], figures["paths"]) == (40, 40, 13)


def test_inspect_draws(folder, tmp_path, capsys):
    data = ("--data", folder / "data.npz")
    run(capsys, "inspect", folder / "one-gates", "--plot", tmp_path / "a.png")
    run(capsys, "inspect", folder / "one", folder / "two", *data, "--plot", tmp_path / "b.svg")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "b.svg").read_bytes()


def test_inspect_refuses(folder, tmp_path, monkeypatch, capsys):
    plot = ("--plot", tmp_path / "a.png")
    assert "must come with the folder" in refused(capsys, "inspect", *plot)
    assert "needs gates to draw" in refused(capsys, "inspect", folder / "one", *plot)
    assert "needs gates to draw" in refused(capsys, "inspect", folder / "two-gates", *plot)
    assert "must end in .png" in refused(
        capsys, "inspect", folder / "one-gates", "--plot", tmp_path / "a.txt"
    )
    assert "there is no such folder" in refused(capsys, "inspect", folder / "one", tmp_path / "nowhere")
    assert "must be [N, D=5]" in refused(capsys, "inspect", folder / "one", "--data", "digits")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "needs matplotlib" in refused(capsys, "inspect", folder / "one-gates", *plot)


@pytest.mark.parametrize("name", ["one", "two"])
def test_prune_and_grow(folder, tmp_path, capsys, name):
    data = ("--data", folder / "data.npz")
    figures = run(capsys, "prune", folder / name, *data, "-o", tmp_path / "pruned")
    for size in ("paths", "parameters", "bytes"):
        assert figures["after"][size] < figures["before"][size]
    assert figures["largest_change_of_output_train"] < 1e-4
    assert abs(figures["before"]["accuracy_test"] - figures["after"]["accuracy_test"]) < 0.2
    pruned = run(capsys, "inspect", tmp_path / "pruned", *data)
    assert (pruned["path_never_on"], pruned["path_always_on"]) == (0, 1)
    assert pruned["parent_id"] == figures["parent_id"]
    half = run(capsys, "prune", folder / name, *data, "--keep", 0.5, "-o", tmp_path / "half")
    assert half["after"]["paths"] == -(-figures["after"]["paths"] // 2)
    run(capsys, "prune", folder / name, *data, "--min-norm", 1e9, "-o", tmp_path / "one-path")
    assert run(capsys, "inspect", tmp_path / "one-path")["paths"] == 1

    grown = run(capsys, "grow", tmp_path / "pruned", "--units", 3, "-o", tmp_path / "grown")
    assert grown["after"]["layer_widths"][0] == grown["before"]["layer_widths"][0] + 3
    x = torch.from_numpy(np.load(folder / "data.npz")["x_test"])
    before, after = (glai.GLAI.load(tmp_path / name) for name in ("pruned", "grown"))
    torch.testing.assert_close(after(x), before(x))
    relation = run(capsys, "inspect", tmp_path / "pruned", tmp_path / "grown")
    assert relation["second_made_from_first"]
    assert not relation["first_made_from_second"]


def test_a_model_of_values_reads_them_and_is_scored_on_all(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32)
    np.savez(tmp_path / "values.npz", x=x, y=np.abs(x[:, 0]) * 1000)
    learner = glai.GLAIRegressor(random_state=0).fit(x, np.abs(x[:, 0]) * 1000)
    learner.save(tmp_path / "m")
    data = ("--data", tmp_path / "values.npz")
    assert run(capsys, "inspect", tmp_path / "m", *data)["samples"] == 80
    before = run(capsys, "prune", tmp_path / "m", *data, "-o", tmp_path / "pruned")["before"]
    assert before["r2_data"] == pytest.approx(learner.score(x, np.abs(x[:, 0]) * 1000), abs=0.01)
    np.savez(tmp_path / "two.npz", x=x, y=x[:, :2])
    assert "must have C=1 values a sample" in refused(
        capsys, "prune", tmp_path / "m", "--data", tmp_path / "two.npz", "-o", tmp_path / "p"
    )


def test_prune_over_a_store(folder, tmp_path, capsys):
    store = ("--store", folder / "one-gates")
    figures = run(capsys, "prune", folder / "one", *store, "-o", tmp_path / "a")
    assert "accuracy_test" not in figures["after"]
    both = run(capsys, "prune", folder / "one", *store, "--data", folder / "data.npz", "-o", tmp_path / "b")
    assert both["structure_id"] == figures["structure_id"]
    assert "accuracy_test" in both["after"]
    assert main(["prune", str(folder / "one"), *map(str, store), "-o", str(tmp_path / "c")]) == 0
    output = capsys.readouterr().out
    assert "before" in output
    assert "parent_id" in output


def test_prune_and_grow_refuse(folder, tmp_path, capsys):
    out = ("-o", tmp_path / "out")
    assert "--store or --data must say" in refused(capsys, "prune", folder / "one", *out)
    store = ("--store", folder / "other-gates")
    assert "gates must be of structure_id" in refused(capsys, "prune", folder / "one", *store, *out)
    store = ("--store", folder / "two-gates")
    assert "at least one sample" in refused(capsys, "prune", folder / "two", *store, *out)
    store = ("--store", folder / "one-gates")
    assert "keep must be in" in refused(capsys, "prune", folder / "one", *store, "--keep", 2, *out)
    assert "at most C=3 classes" in refused(capsys, "prune", folder / "one", "--data", "digits", *out)
    assert "layer must be in [0, L=1)" in refused(
        capsys, "grow", folder / "one", "--units", 1, "--layer", 1, *out
    )
    for command in (["prune", folder / "one", *store], ["grow", folder / "one", "--units", 1]):
        assert "must be a new or an empty folder" in refused(capsys, *command, "-o", folder / "one")
    assert not (tmp_path / "out").exists()


def test_digits_by_name_are_those_that_the_demo_takes(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_model(torch.zeros(1, 64)).save(tmp_path / "model")
    assert run(capsys, "inspect", "model", "--data", "digits")["samples"] == 1347


@pytest.mark.parametrize("command", ["inspect", "prune", "grow"])
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "examples:" in capsys.readouterr().out
