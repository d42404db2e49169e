import errno
import json
import os
import resource
import stat
import struct
import subprocess
import sys
import threading
import zlib

import pytest
import torch
from torch.utils.data import DataLoader

import glai_native as glai
from conftest import make_mlp
from model.test_model_files import rewrite_header, set_metadata


@pytest.fixture
def two_layers():
    return glai.PathSelector(make_mlp(6, 40, 5, 3))


@pytest.fixture
def store(tmp_path, two_layers, samples):
    store = glai.GateStore.create(tmp_path / "gates", two_layers)
    gates = two_layers.unit_gates(samples)
    for rows in (slice(0, 15), slice(15, 16), slice(16, 40)):
        store.append([layer[rows] for layer in gates])
    return store


def same(a, b):
    return torch.equal(a.words, b.words) and a.n_gates == b.n_gates


def test_append_reopen_batch(store, two_layers, samples):
    for opened in (store, glai.GateStore.open(store.folder)):
        assert len(opened) == 40
        assert opened.structure_id == two_layers.structure_id == opened.batch([0]).structure_id
        assert opened.widths == (40, 5)
        assert opened.bytes_per_sample == 12
        expected = two_layers.gates(samples)
        for ids in (
            torch.tensor([39, 0, 15, 15, 14]),
            [3, 1, 16],
            range(40),
            slice(10, 20),
            torch.tensor([], dtype=torch.int64),
            [],
        ):
            index = list(ids) if isinstance(ids, range) else ids
            index = torch.tensor(index, dtype=torch.int64) if isinstance(index, list) else index
            assert same(opened.batch(ids), expected[index])


def test_appending_to_a_reopened_store(store, two_layers, samples):
    opened = glai.GateStore.open(store.folder)
    opened.append(two_layers.unit_gates(samples[:3]))
    again = glai.GateStore.open(store.folder)
    assert len(again) == 43
    assert same(again.batch([40, 41, 42]), two_layers.gates(samples[:3]))


def test_empty_store(tmp_path, two_layers):
    glai.GateStore.create(tmp_path, two_layers)
    opened = glai.GateStore.open(tmp_path)
    assert len(opened) == 0
    assert opened.structure_id == two_layers.structure_id
    assert len(opened.batch([])) == 0


def test_words_are_memory_maps(store):
    opened = glai.GateStore.open(store.folder)
    with open("/proc/self/maps", encoding="utf-8") as maps:
        assert str(opened.folder / "shard-00000003.safetensors") in maps.read()
    assert len(opened) == 40


GOLDEN_WORDS = {"layer_0": [[-1, 0xFF], [5, 0]], "layer_1": [[0b10101], [0]]}


# CRC-32 of metadata, names, types and shapes as JSON, then of the words.
GOLDEN_CHECKSUMS = ["2645891266", "1664342106"]


def golden_shards(version):
    """A store of widths 40 and 5 with two samples, written byte by byte as DESIGN section 8 says."""
    shards = []
    for number, rows in enumerate(([], [0, 1])):
        words = {name: [row for i, row in enumerate(w) if i in rows] for name, w in GOLDEN_WORDS.items()}
        payload, header = b"", {}
        for name, width in (("layer_0", 2), ("layer_1", 1)):
            data = b"".join(struct.pack("<i", word) for row in words[name] for word in row)
            offsets = [len(payload), len(payload) + len(data)]
            header[name] = {"dtype": "I32", "shape": [len(words[name]), width], "data_offsets": offsets}
            payload += data
        header["__metadata__"] = {
            "format": "glai-gates",
            "version": version,
            "structure_id": "ab" * 32,
            "layer_widths": "[40, 5]",
            "first_row": "0",
        }
        if version == "3":
            header["__metadata__"]["checksum"] = GOLDEN_CHECKSUMS[number]
        else:
            header["__metadata__"]["crc32"] = str(zlib.crc32(payload))
        if rows:
            header["__metadata__"] |= {"densities": "[0.525, 0.3]", "deviations": "[0.475, 0.3]"}
        shards.append((header, payload))
    return shards


def test_golden_bytes_of_version_1_are_read(tmp_path):
    for i, (header, payload) in enumerate(golden_shards("1")):
        text = json.dumps(header).encode()
        (tmp_path / f"shard-{i:08d}.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + payload)
    store = glai.GateStore.open(tmp_path)
    assert (store.widths, len(store)) == ((40, 5), 2)
    first, second = store.unit_gates(slice(None))
    assert torch.equal(first.words, torch.tensor(GOLDEN_WORDS["layer_0"], dtype=torch.int32))
    assert second.unpack().tolist() == [[True, False, True, False, True], [False] * 5]


def test_golden_bytes_are_written(tmp_path):
    store = glai.GateStore(tmp_path, "ab" * 32, (40, 5))
    for rows in (slice(0), slice(2)):
        layers = []
        for (name, words), width in zip(GOLDEN_WORDS.items(), (40, 5), strict=True):
            assert name in ("layer_0", "layer_1")
            layers.append(glai.PackedGates(torch.tensor(words, dtype=torch.int32)[rows], width))
        store.append(layers)
    for i, (header, payload) in enumerate(golden_shards("3")):
        data = (tmp_path / f"shard-{i:08d}.safetensors").read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        assert json.loads(data[8 : 8 + size]) == header
        assert data[8 + size :] == payload


def test_densities_are_recorded(store, two_layers, samples):
    gates = two_layers.unit_gates(samples)
    for opened in (store, glai.GateStore.open(store.folder)):
        for layer, whole in zip(opened.unit_gates([3, 1, 20]), gates, strict=True):
            assert layer.estimate.density == pytest.approx(whole.density())
            # Shards too small to show it: the most that the density allows.
            assert whole.deviation() - 1e-9 <= layer.estimate.deviation <= 0.5
        assert opened.batch([0]).estimate is not None


def without_densities(header):
    for name in ("densities", "deviations"):
        del header["__metadata__"][name]


def test_shards_without_densities_still_open(store, two_layers, samples):
    rewrite_header(store.folder / "shard-00000002.safetensors", without_densities)
    opened = glai.GateStore.open(store.folder)
    assert opened.batch([0, 15]).estimate is None
    assert same(opened.batch(slice(None)), two_layers.gates(samples))


APPEND_AND_DIE = """
import os, signal, sys
import glai_native as glai
from glai_native.machine import files
store = glai.GateStore.open(sys.argv[1])
layers = store.unit_gates([0, 1])
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
setattr(files.os, sys.argv[2], die)
store.append(layers)
"""


@pytest.mark.parametrize("moment", ["fsync", "link"])
def test_kill_in_mid_append_is_invisible(store, moment):
    killed = subprocess.run([sys.executable, "-c", APPEND_AND_DIE, store.folder, moment], check=False)
    assert killed.returncode == -9
    opened = glai.GateStore.open(store.folder)
    assert len(opened) == 40
    opened.append(opened.unit_gates([0]))
    assert len(glai.GateStore.open(store.folder)) == 41


def test_full_disk(store):
    """A limit on the file size stands in for it: the write fails half-way."""
    before = sorted(path.name for path in store.folder.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            store.append(store.unit_gates(slice(None)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(path.name for path in store.folder.iterdir()) == before
    assert len(store) == len(glai.GateStore.open(store.folder)) == 40


def test_two_writers_do_not_overwrite_each_other(store):
    first, second = glai.GateStore.open(store.folder), glai.GateStore.open(store.folder)
    first.append(first.unit_gates([0]))
    with pytest.raises(ValueError, match="another writer has just made"):
        second.append(second.unit_gates([1]))
    assert len(glai.GateStore.open(store.folder)) == 41


def test_threads_do_not_overwrite_each_other(store, two_layers):
    """Each of two appenders either succeeds with its own gates or says that it was second."""
    stores = [glai.GateStore.open(store.folder) for _ in range(2)]
    gates = [two_layers.unit_gates(torch.full((3, 6), value)) for value in (2.0, -2.0)]
    outcomes = {}

    def append(i):
        try:
            stores[i].append(gates[i])
            outcomes[i] = "appended"
        except ValueError as error:
            outcomes[i] = str(error)

    workers = [threading.Thread(target=append, args=(i,)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    winner = [i for i in range(2) if outcomes[i] == "appended"]
    assert len(winner) == 1
    assert "another writer" in outcomes[1 - winner[0]]
    assert same(glai.GateStore.open(store.folder).unit_gates([40, 41, 42])[0], gates[winner[0]][0])


def test_layers_that_share_memory(tmp_path):
    selector = glai.PathSelector(make_mlp(6, 5, 5, 3))
    store = glai.GateStore.create(tmp_path / "shared", selector)
    layer = glai.pack_gates(torch.ones(2, 5, dtype=torch.bool))
    store.append([layer, layer])
    assert len(store) == 2
    with pytest.raises(TypeError, match="sequence of PackedGates"):
        store.append([layer.words, layer.words])


def damage(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_damage_is_found(store):
    shard = store.folder / "shard-00000001.safetensors"
    good = shard.read_bytes()
    damage(shard, -1)
    with pytest.raises(ValueError, match="checksum of tensors and metadata does not match"):
        glai.GateStore.open(store.folder)
    shard.write_bytes(good[:-4])
    with pytest.raises(ValueError, match="truncated"):
        glai.GateStore.open(store.folder)
    shard.unlink()
    with pytest.raises(ValueError, match=r"shard-00000001.safetensors is missing"):
        glai.GateStore.open(store.folder)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("structure_id", "0" * 64, "structure_id must be"),
        ("layer_widths", "[40, 6]", "with widths"),
        ("layer_widths", "[40, 0]", "layer_widths"),
        ("layer_widths", "7", "layer_widths"),
        ("first_row", "3", "first_row must be 15, got 3"),
        ("checksum", "x", "the checksum of tensors and metadata does not match"),
        ("format", "other", "format must be 'glai-gates'"),
        ("densities", "[0.5]", "'densities' must list 2 numbers from 0 to 1, got"),
        ("densities", "7", "'densities' must list 2 numbers"),
        ("deviations", "[0.5, NaN]", r"'deviations' cannot be read, got '\[0.5, NaN\]'"),
    ],
)
def test_wrong_metadata(store, name, value, sentence):
    rewrite_header(
        store.folder / "shard-00000002.safetensors", set_metadata(name, value), signed=name != "checksum"
    )
    with pytest.raises(ValueError, match=sentence):
        glai.GateStore.open(store.folder)


def test_refusals(store, two_layers, selector, samples, tmp_path):
    with pytest.raises(ValueError, match="already holds a store"):
        glai.GateStore.create(store.folder, two_layers)
    with pytest.raises(FileNotFoundError, match="holds no store"):
        glai.GateStore.open(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"layers must have widths \[40, 5\], got \[33\]"):
        store.append(selector.unit_gates(samples))
    foreign = glai.PathSelector(make_mlp(6, 40, 5, 3, seed=9))
    with pytest.raises(ValueError, match="GateStore.append: gates must be of structure_id"):
        store.append(foreign.unit_gates(samples))
    with pytest.raises(TypeError, match="sequence of PackedGates"):
        store.append(two_layers.gates(samples))
    gates = two_layers.unit_gates(samples)
    with pytest.raises(ValueError, match=r"same number of samples, got \[40, 3\]"):
        store.append([gates[0], gates[1][:3]])
    for ids in ([40], [-1]):
        with pytest.raises(IndexError, match=r"ids must be in \[0, 40\)"):
            store.batch(ids)
    with pytest.raises(ValueError, match="ids must be integers"):
        store.batch([0.5])
    with pytest.raises(ValueError, match="ids must be integers"):
        store.batch(torch.zeros(2, 2, dtype=torch.int64))


@pytest.mark.parametrize("workers", [0, 1])
def test_dataset_in_a_data_loader(store, two_layers, samples, workers):
    y = torch.arange(40)
    dataset = glai.GateDataset(store, samples, y)
    assert len(dataset) == 40
    loader = dataset.loader(16, shuffle=True, generator=torch.Generator().manual_seed(0), num_workers=workers)
    assert isinstance(loader, DataLoader)
    seen = []
    for gates, x, labels in loader:
        assert same(gates, two_layers.gates(samples)[labels])
        assert torch.equal(x, samples[labels])
        seen += labels.tolist()
    assert sorted(seen) == list(range(40))
    assert seen != sorted(seen)
    gates, x, label = dataset[7]
    assert (len(gates), x.shape, int(label)) == (1, (1, 6), 7)
    assert [len(batch[0]) for batch in dataset.loader(16, drop_last=True)] == [16, 16]
    with pytest.raises(ValueError, match="must have N=40 samples like the store, got 3"):
        glai.GateDataset(store, samples[:3])


def test_a_lost_last_shard_is_noticed(store):
    """The manifest counts what was appended; a shard more than it counts is an append that was killed."""
    shard, manifest = store.folder / "shard-00000003.safetensors", store.folder / "store.safetensors"
    counted, last = manifest.read_bytes(), shard.read_bytes()
    shard.unlink()
    with pytest.raises(ValueError, match=r"1 of 4 shards are missing.*; 16 of 40 samples are left"):
        glai.GateStore.open(store.folder)
    shard.write_bytes(last)
    manifest.unlink()
    with pytest.raises(ValueError, match="store.safetensors: is missing"):
        glai.GateStore.open(store.folder)
    manifest.write_bytes(counted)
    for name, value, sentence in (
        ("rows", "41", "rows must be 40 like the first 4 shards', got 41"),
        ("rows", "-1", "'rows' must be an integer >= 0"),
        ("shards", str(2**70), "'shards' must be an integer >= 0"),
        ("structure_id", "0" * 64, "structure_id must be"),
    ):
        rewrite_header(manifest, set_metadata(name, value))
        with pytest.raises(ValueError, match=sentence):
            glai.GateStore.open(store.folder)
        manifest.write_bytes(counted)
    for path in store.folder.glob("shard-*"):
        path.unlink()
    foreign = glai.PathSelector(make_mlp(6, 5, 3))
    glai.GateStore.create(store.folder, foreign).append(foreign.unit_gates(torch.ones(2, 6)))
    assert len(glai.GateStore.open(store.folder)) == 2


def test_models_and_stores_have_folders_of_their_own(tmp_path, store, two_layers):
    model = glai.GLAI(two_layers, glai.PathEstimator.from_selector(two_layers))
    with pytest.raises(ValueError, match="holds a gate store, save the model to a folder of its own"):
        model.save(store.folder)
    model.save(tmp_path / "model")
    with pytest.raises(
        ValueError, match=r"holds estimator.safetensors, make the store in a folder of its own"
    ):
        glai.GateStore.create(tmp_path / "model", two_layers)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
def test_a_disk_without_hard_links(tmp_path, monkeypatch, two_layers, samples, number):
    def refused(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refused)
    store = glai.GateStore.create(tmp_path / "gates", two_layers)
    store.append(two_layers.unit_gates(samples))
    second = glai.GateStore.open(store.folder)
    store.append(two_layers.unit_gates(samples[:1]))
    with pytest.raises(ValueError, match="another writer has just made"):
        second.append(two_layers.unit_gates(samples[:2]))
    assert len(glai.GateStore.open(store.folder)) == 41
    assert not list(store.folder.glob(".*"))


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF])
def test_a_folder_that_cannot_be_synced(tmp_path, monkeypatch, two_layers, samples, number):
    fsync = os.fsync

    def of_files(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", of_files)
    glai.GateStore.create(tmp_path / "gates", two_layers).append(two_layers.unit_gates(samples))
    assert len(glai.GateStore.open(tmp_path / "gates")) == 40
    model = glai.GLAI(two_layers, glai.PathEstimator.from_selector(two_layers))
    model.save(tmp_path / "model")
    model.save(tmp_path / "model")
    assert torch.equal(glai.GLAI.load(tmp_path / "model")(samples), model(samples))
