"""Saving and loading: whole files, or a sentence that says what is wrong."""

import json
import resource
import struct
import subprocess
import sys

import pytest
import safetensors
import torch

import glai_native as glai
from conftest import make_mlp
from glai_native.machine import files
from glai_native.machine.files import TensorFile, tensors_to_bytes


@pytest.fixture
def model(selector):
    model = glai.GLAI(selector, glai.PathEstimator.from_selector(selector))
    model.estimator.record(selector.gates(torch.randn(9, 6)), torch.arange(9) % 4)
    return model


@pytest.mark.parametrize("components", [None, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip(tmp_path, samples, dtype, components):
    x = samples.to(dtype)
    projection = glai.InputProjection.fit(x, components)
    selector = glai.PathSelector(make_mlp(components or 6, 5, 4, 3, dtype=dtype), projection)
    model = glai.GLAI(selector, glai.PathEstimator.from_selector(selector))
    model.estimator.record(selector.gates(x))
    model.save(tmp_path / "new" / "folder")
    loaded = glai.GLAI.load(tmp_path / "new" / "folder")
    assert torch.equal(loaded(x), model(x))
    assert loaded.structure_id == model.structure_id
    assert loaded.estimator.weight.dtype == dtype
    assert int(loaded.estimator.samples_seen) == 40
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "estimator.safetensors",
        "structure.safetensors",
    ]


def test_statistics_travel_with_the_model(tmp_path, selector, samples):
    y = torch.arange(len(samples)) % 4
    x, gates = selector.project(samples), selector.gates(samples)
    statistics = glai.PathStatistics(selector.n_paths, x.shape[1], 4)
    statistics.update(x, gates, y)
    model = glai.GLAI(selector, statistics.solve(0.5), statistics)
    model.save(tmp_path / "a")
    loaded = glai.GLAI.load(tmp_path / "a")
    assert loaded.estimator.provenance["l2"] == 0.5
    loaded.save(tmp_path / "a")  # not read, kept
    loaded.save(tmp_path / "b")
    again = glai.GLAI.load(tmp_path / "b").statistics
    assert again is not None
    assert all(torch.equal(a, b) for a, b in zip(again._sums(), statistics._sums(), strict=True))
    loaded.statistics = None
    with pytest.raises(ValueError, match="holds statistics of another state of the model"):
        loaded.save(tmp_path / "b")
    loaded.save(tmp_path / "b", overwrite=True)
    assert glai.GLAI.load(tmp_path / "b").statistics is None


def test_foreign_statistics_are_refused(tmp_path, selector, model):
    with pytest.raises(ValueError, match="statistics must have structure_id"):
        model.statistics = glai.PathStatistics(selector.n_paths, 6, 4, structure_id="0" * 64)
    with pytest.raises(ValueError, match=r"statistics must be of \[P, D, C\]"):
        model.statistics = glai.PathStatistics(selector.n_paths, 6, 9)
    model.save(tmp_path)
    (tmp_path / "statistics.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="not a safetensors file"):
        _ = glai.GLAI.load(tmp_path).statistics


def test_identity_projection_round_trip(tmp_path, samples):
    selector = glai.PathSelector(make_mlp(6, 5, 3))
    glai.GLAI(selector, glai.PathEstimator.from_selector(selector)).save(tmp_path)
    loaded = glai.GLAI.load(tmp_path)
    assert loaded.selector.projection.kind == "identity"
    with pytest.raises(ValueError, match="no output layer"):
        glai.PathEstimator.from_selector(loaded.selector)
    with pytest.raises(ValueError, match="no output layer"):
        loaded.selector(samples)


def test_another_structure_is_not_overwritten_unasked(tmp_path, model, samples):
    model.save(tmp_path)
    model.save(tmp_path)
    other = glai.PathSelector(make_mlp(6, 5, 3))
    other = glai.GLAI(other, glai.PathEstimator.from_selector(other))
    with pytest.raises(ValueError, match="holds a model of another structure"):
        other.save(tmp_path)
    assert torch.equal(glai.GLAI.load(tmp_path)(samples), model(samples))
    other.save(tmp_path, overwrite=True)
    assert torch.equal(glai.GLAI.load(tmp_path)(samples), other(samples))


def test_changed_structure_is_not_saved(tmp_path, model):
    model.selector.hidden_weight_0[0, 0] += 1
    with pytest.raises(ValueError, match="was changed after it was frozen"):
        model.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def rewrite_header(path, change, *, signed=True):
    """Changes a file's header as if it had been written so; without ``signed`` its checksum stays."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    change(header)
    _write(path, header, data[8 + size :])
    if signed and "checksum" in header["__metadata__"]:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header["__metadata__"]["checksum"] = files._checksum(header["__metadata__"], tensors)
        _write(path, header, data[8 + size :])


def _write(path, header, payload):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + payload)


def set_metadata(name, value):
    def change(header):
        if value is None:
            del header["__metadata__"][name]
        else:
            header["__metadata__"][name] = value

    return change


@pytest.mark.parametrize(
    ("file", "name", "value", "sentence"),
    [
        ("structure", "format", "other", "format must be 'glai-structure', got 'other'"),
        ("structure", "version", "4", "format version must be 1 or 2 or 3, got '4'"),
        ("structure", "structure_id", None, "metadata entry 'structure_id' is missing"),
        ("structure", "structure_id", "0" * 64, "the file is damaged"),
        ("structure", "projection", "magic", "projection must be"),
        ("structure", "projection", "rotation", "tensor 'projection.rotation' is missing"),
        (
            "structure",
            "layer_widths",
            "[7]",
            r"hidden_weight_0' must be float32 or float64 \[7, 6\], got float32 \[33, 6\]",
        ),
        ("structure", "layer_widths", "[]", "must list sizes >= 1"),
        ("structure", "layer_widths", "oops", "cannot be read, got 'oops'"),
        ("structure", "in_features", "six", "'in_features' cannot be read"),
        ("estimator", "structure_id", "0" * 64, "estimator must have structure_id"),
        ("estimator", "format", "glai-gates", "format must be 'glai-estimator'"),
    ],
)
def test_wrong_metadata(tmp_path, model, file, name, value, sentence):
    model.save(tmp_path)
    rewrite_header(tmp_path / f"{file}.safetensors", set_metadata(name, value))
    with pytest.raises(ValueError, match=sentence):
        glai.GLAI.load(tmp_path)


@pytest.mark.parametrize("file", ["structure.safetensors", "estimator.safetensors"])
@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_truncated(tmp_path, model, file, keep):
    model.save(tmp_path)
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=f"{file}: truncated or not a safetensors file"):
        glai.GLAI.load(tmp_path)


@pytest.mark.parametrize("file", ["structure.safetensors", "estimator.safetensors"])
def test_flipped_bit(tmp_path, model, file):
    model.save(tmp_path)
    path = tmp_path / file
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="the file is damaged"):
        glai.GLAI.load(tmp_path)


def test_an_estimator_of_no_structure_is_no_model(tmp_path, model):
    model.save(tmp_path)
    model.estimator.structure_id = None
    (tmp_path / "estimator.safetensors").write_bytes(model.estimator.to_bytes())
    with pytest.raises(ValueError, match="states no structure_id"):
        glai.GLAI.load(tmp_path)


def test_negative_counts(tmp_path, model):
    model.estimator.samples_seen.fill_(-49)
    (tmp_path / "e").write_bytes(model.estimator.to_bytes())
    with pytest.raises(ValueError, match="counts of samples must be >= 0"):
        glai.PathEstimator.load(str(tmp_path / "e"))


def test_missing_files(tmp_path, model):
    with pytest.raises(FileNotFoundError, match=r"structure.safetensors: there is no such file"):
        glai.GLAI.load(tmp_path / "nowhere")
    model.save(tmp_path)
    (tmp_path / "estimator.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"estimator.safetensors"):
        glai.GLAI.load(tmp_path)


def test_missing_and_misshapen_tensors(tmp_path, model):
    state = model.estimator.state_dict()
    metadata = {"format": "glai-estimator", "version": "3", "structure_id": ""}
    (tmp_path / "a").write_bytes(tensors_to_bytes({k: v for k, v in state.items() if k != "bias"}, metadata))
    with pytest.raises(ValueError, match="tensor 'bias' is missing"):
        glai.PathEstimator.load(tmp_path / "a")
    (tmp_path / "b").write_bytes(tensors_to_bytes(state | {"bias": state["bias"][:-1]}, metadata))
    with pytest.raises(ValueError, match=r"'bias' must be float32 \[34, 4\], got float32 \[33, 4\]"):
        glai.PathEstimator.load(tmp_path / "b")
    (tmp_path / "c").write_bytes(tensors_to_bytes(state, metadata))
    assert glai.PathEstimator.load(tmp_path / "c").structure_id is None
    assert "weight" in TensorFile(tmp_path / "c", "glai-estimator", newest=3)


SAVE_AND_DIE = """
import os, signal, sys
import glai_native as glai
from glai_native.machine import files
model = glai.GLAI.load(sys.argv[1])
model.estimator.weight.data.add_(1)
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
setattr(files.os, sys.argv[2], die)
model.save(sys.argv[1])
"""


def test_full_disk_leaves_the_old_model(tmp_path, model, samples):
    """A limit on the file size stands in for it: the new structure still fits, its estimator does not."""
    small = glai.PathSelector(make_mlp(6, 2, 3))
    small = glai.GLAI(small, glai.PathEstimator.from_selector(small))
    small.save(tmp_path)
    sizes = [len(model.selector.to_bytes()), len(model.estimator.to_bytes())]
    assert sizes[0] < sizes[1]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (sizes[0], limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            model.save(tmp_path, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(glai.GLAI.load(tmp_path)(samples), small(samples))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_kill_in_mid_save_keeps_the_old_model(tmp_path, model, samples, moment):
    model.save(tmp_path)
    killed = subprocess.run([sys.executable, "-c", SAVE_AND_DIE, tmp_path, moment], check=False)
    assert killed.returncode == -9
    assert torch.equal(glai.GLAI.load(tmp_path)(samples), model(samples))


def test_a_folder_that_cannot_be_made(selector, tmp_path):
    model = glai.GLAI(selector, glai.PathEstimator.from_selector(selector))
    (tmp_path / "file").write_text("")
    with pytest.raises(
        FileExistsError, match=r"GLAI.save: .*file must be a folder, .* got: a file is there$"
    ):
        model.save(tmp_path / "file")
    with pytest.raises(NotADirectoryError, match=r"file/model must be a folder, .* got: Not a directory$"):
        model.save(tmp_path / "file" / "model")
    with pytest.raises(FileExistsError, match=r"GateStore.create: .*file must be a folder"):
        glai.GateStore.create(tmp_path / "file", selector)
