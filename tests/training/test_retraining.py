"""Re-training keeps the structure byte for byte; exact increments are the joint solution, whatever comes when."""

import json

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import glai_native as glai
from conftest import make_mlp
from glai_native.cli.main import main
from glai_native.solvers.statistics import cross_validation


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(600) % 6
    x = torch.randn(600, 5, generator=generator, dtype=torch.float64)
    x += torch.eye(6, 5, dtype=torch.float64)[y] * 2
    return x, y


@pytest.fixture
def selector(data):
    return glai.PathSelector(make_mlp(5, 9, 6, dtype=torch.float64), glai.InputProjection.fit(data[0]))


@torch.no_grad()
def difference(a: glai.GLAI, b: glai.GLAI) -> float:
    scale = max(float(p.abs().max()) for p in b.estimator.parameters())
    pairs = zip(a.estimator.parameters(), b.estimator.parameters(), strict=True)
    return max(float((p - q).abs().max()) for p, q in pairs) / scale


def joint(selector, x, y, l2) -> glai.GLAI:
    return glai.fit(selector, x, y, solver="statistics", validation=0, l2=l2, progress=False).model


@pytest.mark.parametrize("new_classes", [False, True])
@pytest.mark.parametrize("with_directions", [False, True])
def test_five_increments_are_joint_training(selector, data, new_classes, with_directions):
    x, y = data
    order = y.argsort(stable=True) if new_classes else torch.arange(len(y))
    first, *rest = order.split(100)
    n_classes = int(y[first].max()) + 1
    directions = glai.output_directions(selector, n_classes, random=True) if with_directions else None
    model = glai.GLAI(selector, glai.PathEstimator(10, 5, n_classes, directions, dtype=torch.float64))
    before = selector.to_bytes()
    glai.retrain(model, x[first], y[first], solver="statistics", validation=0, l2=0.3, progress=False)
    assert model.estimator.out_features == n_classes
    for ids in rest:
        result = glai.retrain(model, x[ids], y[ids], increment=True, l2=0.3, progress=False)
    assert result.model is model
    assert "100 samples joined 500" in result.reason
    whole = glai.GLAI(selector, glai.PathEstimator(10, 5, 6, model.estimator.directions, dtype=torch.float64))
    glai.retrain(whole, x, y, solver="statistics", validation=0, l2=0.3, progress=False)
    assert difference(model, whole) < 1e-8
    assert int(model.estimator.samples_seen) == 600
    assert torch.equal(model.estimator.on_counts, whole.estimator.on_counts)
    assert model.selector.to_bytes() == before


def test_increments_keep_the_share_of_l2(selector, data):
    x, y = data
    model = joint(selector, x[:300], y[:300], 0.5)
    share = 0.5 / model.statistics.mean_diagonal
    glai.retrain(model, x[300:], y[300:], increment=True, progress=False)
    l2 = share * model.statistics.mean_diagonal
    assert model.estimator.provenance["l2"] == pytest.approx(l2)
    assert difference(model, joint(selector, x, y, l2)) < 1e-8


def test_increments_are_joint_training_at_the_weakest_penalty():
    """Where samples are few or separable, cross-validation takes it, and increments keep it."""
    x, y = (torch.from_numpy(t) for t in load_digits(return_X_y=True))
    selector = glai.PathSelector(make_mlp(64, 12, 10, dtype=torch.float64), glai.InputProjection.fit(x))
    parts = [((y // 2) == pair).nonzero()[:, 0] for pair in range(5)]
    model = joint(selector, x[parts[0]], y[parts[0]], 1.0)
    weakest = 10.0**cross_validation.WEAKEST * model.statistics.mean_diagonal
    glai.retrain(
        model, x[parts[0]], y[parts[0]], solver="statistics", validation=0, l2=weakest, progress=False
    )
    for ids in parts[1:]:
        glai.retrain(model, x[ids], y[ids], increment=True, progress=False)
    ids = torch.cat(parts)
    assert difference(model, joint(selector, x[ids], y[ids], model.estimator.provenance["l2"])) < 1e-8


def test_all_data_again(selector, data):
    x, y = data
    model = joint(selector, x[:100], y[:100], 0.5)
    glai.retrain(model, x, y, solver="sgd", epochs=2, progress=False)
    assert model.statistics is None
    assert int(model.estimator.samples_seen) == 540  # a tenth is held out
    assert model.structure_id == selector.structure_id


def test_increment_by_gradients_adds_outputs(selector, data):
    x, y = data
    old = y < 4
    model = joint(selector, x[old], y[old], 0.5)
    glai.retrain(
        model, x[~old], y[~old], increment=True, solver="sgd", epochs=3, validation=0, progress=False
    )
    assert model.estimator.out_features == 6
    assert int(model.estimator.samples_seen) == 600


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "an increment needs the model's statistics"),
        ({"solver": "dual"}, "an increment's solver must be 'statistics' or 'sgd', got 'dual'"),
    ],
)
def test_increments_that_cannot_be(selector, data, options, sentence):
    model = glai.GLAI(selector, glai.PathEstimator(10, 5, 6, dtype=torch.float64))
    with pytest.raises(ValueError, match=sentence):
        glai.retrain(model, *data, increment=True, progress=False, **options)


def test_a_failed_increment_leaves_the_statistics(selector, data):
    x, y = data
    model = joint(selector, x[:300], y[:300], 0.5)
    before = model.statistics.copy()
    with pytest.raises(ValueError, match="l2='loo' must have data"):
        glai.retrain(model, x[300:], y[300:], increment=True, l2="loo", progress=False)
    assert model.statistics.n_samples == before.n_samples
    torch.testing.assert_close(model.statistics._gram, before._gram, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="options l2, directions"):
        glai.retrain(model, x[300:], y[300:], increment=True, epochs=3, progress=False)
    assert model.statistics.n_samples == 300


def archive(path, x, y):
    names = np.array(["ant", "bee", "cat", "dog", "eel", "fox"])
    np.savez(path, x=x.float().numpy(), y=names[y.numpy()])
    return str(path)


def run(capsys, *arguments):
    status = main(list(arguments))
    output = capsys.readouterr()
    return (json.loads(output.out) if status == 0 else output.err), status


def test_command(tmp_path, data, capsys):
    x, y = data
    old, late = y < 4, (y == 2) | (y > 3)
    first, second = (archive(tmp_path / f"{i}.npz", x[part], y[part]) for i, part in enumerate((old, late)))
    folders = [str(tmp_path / name) for name in "abcd"]
    common = ["--solver", "statistics", "--test-share", "0.25", "--json"]
    run(capsys, "train", first, "--out", folders[0], "--hidden", "8", *common)
    report, status = run(
        capsys, "train", second, "--structure", folders[0], "--increment", "--out", folders[1], *common
    )
    assert status == 0, report
    assert report["structure"]["kept_from"] == folders[0]
    assert report["data"]["classes"] == 6
    assert report["validation"] is None
    structures = [(tmp_path / name / "structure.safetensors").read_bytes() for name in "ab"]
    assert structures[0] == structures[1]
    more = glai.GLAI.load(folders[1])
    assert more.estimator.class_labels == ["ant", "bee", "cat", "dog", "eel", "fox"]
    assert int(more.estimator.samples_seen) == 300 + 225
    # All data again, by gradients; labels keep their numbers though only some occur.
    report, status = run(
        capsys,
        "train",
        second,
        "--structure",
        folders[1],
        "--out",
        folders[2],
        "--solver",
        "sgd",
        *common[2:],
    )
    assert status == 0
    assert report["test"] > 0.6
    assert (tmp_path / "c" / "structure.safetensors").read_bytes() == structures[0]
    message, status = run(
        capsys, "train", second, "--structure", folders[2], "--increment", "--out", folders[3]
    )
    assert status == 2
    assert "--increment needs a model with statistics" in message
    assert not (tmp_path / "d").exists()


def test_command_refuses(tmp_path, data, capsys):
    first = archive(tmp_path / "a.npz", *data)
    out = str(tmp_path / "m")
    for options, sentence in (
        (["--increment"], "--increment needs --structure FOLDER"),
        (["--structure", out, "--hidden", "8"], "are of a new structure, not of --structure"),
        (["--structure", out], "structure.safetensors: there is no such file"),
    ):
        message, status = run(capsys, "train", first, "--out", out, *options)
        assert status == 2
        assert sentence in message
    run(capsys, "train", first, "--out", out, "--json")
    np.savez(tmp_path / "n.npz", x=np.eye(8, 5), y=np.arange(8) % 2)
    message, status = run(
        capsys, "train", str(tmp_path / "n.npz"), "--structure", out, "--out", str(tmp_path / "o")
    )
    assert status == 2
    assert "must hold labels of type str like the model's ('ant', 'bee', " in message


def test_a_path_kernel_has_its_own():
    model = glai.PathKernelModel(glai.PathSelector(make_mlp(5, 4, 3)))
    x, y = torch.randn(9, 5), torch.arange(9) % 3
    with pytest.raises(
        TypeError, match="must be a GLAI, got PathKernelModel; .* a PathKernelModel has learn"
    ):
        glai.retrain(model, x, y)
