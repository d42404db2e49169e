"""Files of the versions before, written by the code of their time, open and give what they gave."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import glai_native as glai
from glai_native.machine.files import TensorFile

GOLDEN = Path(__file__).parent / "golden"
DIGESTS_OF_VALUES = (
    "3fbade148ce828fe0f26aab38e35b1005dda041440249a51d3a59e8ae0e6cd5a",
    "5a81c9c91676f2d163b6134e3bd28b799347485a21a688dee5879453b4763b32",
)


@pytest.fixture(scope="module")
def expected():
    return load_file(GOLDEN / "expected.safetensors")


@pytest.mark.parametrize("name", ["model", "directions", "pruned"])
@torch.no_grad()
def test_models(tmp_path, expected, name):
    shutil.copytree(GOLDEN / name, tmp_path / name)
    model = glai.GLAI.load(tmp_path / name)
    torch.testing.assert_close(model(expected["x"]), expected[name])
    assert (model.selector.kept_paths is None) == (name != "pruned")
    assert (model.estimator.directions is None) == (name != "directions")
    if name == "model":
        assert model.estimator.class_labels == ["dog", "fog"]
        assert model.read_statistics().n_samples == 12
    model.save(tmp_path / name)  # and so moved on
    for path in (tmp_path / name).iterdir():
        version = 2 if path.name == "statistics.safetensors" else 3
        kind = f"glai-{path.stem}"
        assert TensorFile(path, kind, newest=version).metadata["version"] == str(version)
    again = glai.GLAI.load(tmp_path / name)
    torch.testing.assert_close(again(expected["x"]), expected[name])
    assert again.has_statistics == model.has_statistics == (name == "model")
    assert name != "model" or again.statistics.n_samples == 12


def test_stores(tmp_path):
    for name, model in (("gates", "pruned"), ("all_gates", "model")):
        shutil.copytree(GOLDEN / name, tmp_path / name)
        store = glai.GateStore.open(tmp_path / name)
        selector = glai.GLAI.load(GOLDEN / model).selector
        x = load_file(GOLDEN / "expected.safetensors")["x"]
        assert torch.equal(store.batch(slice(None)).words, selector.gates(x).words)
        store.append(selector.unit_gates(x[:2]))  # the new shard is counted
        assert len(glai.GateStore.open(tmp_path / name)) == 14
        (tmp_path / name / "store.safetensors").unlink()
        with pytest.raises(ValueError, match=r"store.safetensors: is missing"):
            glai.GateStore.open(tmp_path / name)


def test_accumulation_goes_on(tmp_path, expected):
    shutil.copy(GOLDEN / "accumulation.safetensors", tmp_path)
    model = glai.GLAI.load(GOLDEN / "model")
    z, gates, y = model.selector.project(expected["x"]), model.selector.gates(expected["x"]), expected["y"]
    sums = []
    for checkpoint in (tmp_path / "accumulation.safetensors", None):
        statistics = glai.PathStatistics(
            model.selector.n_paths, model.selector.z_features, 2, structure_id=model.structure_id
        )
        glai.accumulate(statistics, z, gates, y, chunk=4, checkpoint=checkpoint, progress=False)
        sums.append(statistics.sums())
    for name, tensor in sums[0].items():
        torch.testing.assert_close(tensor, sums[1][name])


@pytest.mark.parametrize("validated", [True, False])
def test_training_goes_on(tmp_path, expected, validated):
    name = "training.safetensors" if validated else "training_alone.safetensors"
    shutil.copy(GOLDEN / name, tmp_path)
    selector = glai.GLAI.load(GOLDEN / "model").selector
    z, gates, y = selector.project(expected["x"]), selector.gates(expected["x"]), expected["y"]
    rows = slice(0, 9 if validated else 12)
    options = {"validation": (z[9:], gates[9:], y[9:])} if validated else {}
    estimator = glai.PathEstimator(
        selector.n_paths, selector.z_features, 2, structure_id=selector.structure_id
    )
    history = glai.train_estimator(
        estimator,
        z[rows],
        gates[rows],
        y[rows],
        epochs=3,
        batch_size=4,
        checkpoint=tmp_path / name,
        progress=False,
        **options,
    )
    assert [epoch.epoch for epoch in history] == [1, 2, 3]
    assert (history[0].validation_loss == history[0].validation_loss) == validated


def test_kernel_model(tmp_path, expected):
    shutil.copytree(GOLDEN / "kernel", tmp_path / "kernel")
    model = glai.PathKernelModel.load(tmp_path / "kernel")
    torch.testing.assert_close(model.predict(expected["x"]), expected["kernel"])
    with pytest.warns(UserWarning, match="contains training data"):
        model.save(tmp_path / "kernel")
    again = glai.PathKernelModel.load(tmp_path / "kernel")
    assert (again.l2, again.loo_error, again.loo_accuracy) == (model.l2, model.loo_error, model.loo_accuracy)
    torch.testing.assert_close(again.predict(expected["x"]), expected["kernel"])


def test_integer_statistics():
    statistics = glai.IntegerStatistics.load(GOLDEN / "exact.safetensors")
    assert statistics.digest() == "28747e0719c076fb95565f7e863f0936d9bdfe7a91f5af7cdc3674eaa63c828c"
    assert statistics.class_labels == ["dog", "fog"]
    assert b"".join(statistics.to_pieces()) == (GOLDEN / "exact.safetensors").read_bytes()
    # Its map makes of the same samples what it made of them then, on any machine.
    x = torch.arange(60).reshape(12, 5).remainder(7) * torch.arange(1, 6) - torch.arange(12).unsqueeze(1)
    again = glai.IntegerStatistics(statistics.features, 2)
    again.class_labels = ["dog", "fog"]
    again.update(x, torch.arange(12) % 2, ids=[f"sample {i}" for i in range(12)])
    assert again.digest() == statistics.digest()
    again.downdate(x[3:4], torch.tensor([1]), ids=["sample 3"])
    assert len(again.ledger.shared_with(statistics.ledger)) == 11


def test_a_seed_draws_the_map_that_files_of_today_hold_it_for():
    """The second rule of windows; changing it takes a third one, for files keep the seed alone."""
    x = torch.arange(60).reshape(12, 5).remainder(7) * torch.arange(1, 6) - torch.arange(12).unsqueeze(1)
    expected = "0c97e3454fc1f07b6f06db51bd8cb6c0fa60446ff87d7d3f5e8c05b2edf3d59b"
    assert glai.IntegerFeatures.fit(x, 4).features_id == expected


@pytest.mark.parametrize("version", [1, 2])
def test_integer_statistics_of_values(version):
    """Values without a centre, as there were at first, and with one."""
    path = GOLDEN / ("exact_values.safetensors" if version == 1 else "exact_centred.safetensors")
    statistics = glai.IntegerStatistics.load(path)
    assert statistics.digest() == DIGESTS_OF_VALUES[version - 1]
    assert statistics.fixed_point.is_centred == (version == 2)
    assert b"".join(statistics.to_pieces()) == path.read_bytes()
    told = {"step": statistics.step, "centre": statistics.centre if version == 2 else None}
    again = glai.IntegerStatistics(statistics.features, 2, targets="values", **told)
    n = torch.arange(12.0, dtype=torch.float64).repeat(1 if version == 1 else 3)
    x = torch.arange(60).reshape(12, 5).remainder(7) * torch.arange(1, 6) - torch.arange(12).unsqueeze(1)
    again.update(x.repeat(len(n) // 12, 1), torch.stack([n, 5 - n**2], 1), ids=list(range(len(n))))
    assert again.digest() == statistics.digest()
    made = again + again.emptied()
    made.ledger = replace(made.ledger, as_integers=True)  # files of then do not say that ids are as written
    assert b"".join(made.to_pieces()) == path.read_bytes()
