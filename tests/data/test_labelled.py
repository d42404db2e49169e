import gzip
import struct

import numpy as np
import pytest
import torch

from glai_native.data.labelled import load_data


def write_idx(folder, name, values, magic, compress=False):
    data = struct.pack(f">I{values.ndim}I", magic, *values.shape) + values.astype(np.uint8).tobytes()
    if compress:
        (folder / f"{name}.gz").write_bytes(gzip.compress(data))
    else:
        (folder / name).write_bytes(data)


@pytest.fixture
def idx_folder(tmp_path):
    rng = np.random.default_rng(0)
    for part, n, compress in (("train", 20, True), ("t10k", 10, False)):
        write_idx(tmp_path, f"{part}-images-idx3-ubyte", rng.integers(0, 256, (n, 4, 4)), 0x803, compress)
        write_idx(tmp_path, f"{part}-labels-idx1-ubyte", np.arange(n) % 2, 0x801, compress)
    return tmp_path


def test_digits():
    data = load_data(None)
    assert (data.name, data.n_classes, data.x_train.shape, len(data.x_test)) == (
        "digits",
        10,
        (1347, 64),
        450,
    )
    again = load_data(None, seed=0)
    assert (again.x_train == data.x_train).all()
    assert not (load_data(None, seed=1).y_test == data.y_test).all()


def test_idx_folder(idx_folder):
    data = load_data(idx_folder)
    assert data.x_train.shape == (20, 16)
    assert data.x_test.shape == (10, 16)
    assert float(data.x_train.max()) <= 1
    assert data.y_test.tolist() == [0, 1] * 5


def test_npz_split_and_unsplit(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(40, 3)), np.repeat([5, 9], 20)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    data = load_data(tmp_path / "a.npz")
    assert (len(data.x_train), len(data.x_test), data.n_classes) == (30, 10, 2)
    np.savez(tmp_path / "b.npz", x_train=x, y_train=y, x_test=x[15:25], y_test=y[15:25])
    data = load_data(tmp_path / "b.npz")
    assert data.y_test.tolist() == [0] * 5 + [1] * 5


def test_real_data(data_folder):
    mnist = load_data(data_folder / "mnist")
    assert (mnist.x_train.shape, mnist.x_test.shape, mnist.n_classes) == ((60000, 784), (10000, 784), 10)
    assert float(mnist.x_train.mean()) == pytest.approx(0.1307, abs=1e-3)
    banking = load_data(data_folder / "banking77_minilm.npz")
    assert (banking.x_train.shape, banking.n_classes) == ((10003, 384), 77)


def arrays(**changes):
    x, y = np.zeros((6, 3)), np.arange(6) % 2
    return {"x_train": x, "y_train": y, "x_test": x, "y_test": y} | changes


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (arrays(y_train=np.arange(5) % 2), r"train must be x \[N >= 1, ...\] and labels y \[N\]"),
        (arrays(x_train=np.zeros((0, 3)), y_train=np.zeros(0)), "train must be x"),
        (
            arrays(x_test=np.full((6, 3), np.nan)),
            "bad.npz: x_test must be finite numbers in float32, got NaN in row 0",
        ),
        (
            arrays(x_test=np.full((6, 3), 1e200)),
            "x_test must be finite numbers in float32, got 1e.200, too large",
        ),
        (arrays(x_train=np.full((6, 3), "a")), "bad.npz: x_train must be numbers, got .*'a'.* of dtype <U1"),
        (
            {"x": np.eye(9) * [*[1] * 8, np.nan], "y": np.arange(9) % 2},
            "x must be .* got NaN in row 0, column 8",
        ),
        (
            {"x": np.eye(9), "y": np.arange(9)},
            "bad.npz: y must have a class of at least 2 samples to test on",
        ),
        (arrays(y_test=np.arange(6)), "every test label must occur in train, got .*2"),
        (arrays(y_train=np.zeros(6), y_test=np.zeros(6)), "at least 2 classes, got 1"),
        (arrays(x_test=np.zeros((6, 4))), "same features, got 3 and 4"),
        ({"a": np.zeros(3)}, "must hold x_train, y_train, x_test, y_test, or x, y; got a"),
        (arrays(x_train=np.array([{"a": 1}] * 6)), "cannot be read|is no .npz archive"),
    ],
)
def test_bad_npz(tmp_path, content, sentence):
    np.savez(tmp_path / "bad.npz", **content)
    with pytest.raises(ValueError, match=sentence):
        load_data(tmp_path / "bad.npz")


def test_other_files(tmp_path, idx_folder):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        load_data(tmp_path / "nowhere")
    (tmp_path / "data.txt").write_text("1,2")
    with pytest.raises(ValueError, match="folder of MNIST IDX files, or an .npz, .csv or .parquet file"):
        load_data(tmp_path / "data.txt")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(ValueError, match="cannot be read|is no .npz archive"):
        load_data(tmp_path / "bad.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    with pytest.raises(ValueError, match="is no .npz archive"):
        load_data(tmp_path / "array.npz")
    images = idx_folder / "t10k-images-idx3-ubyte"
    good = images.read_bytes()
    images.write_bytes(good[:-1])
    with pytest.raises(ValueError, match="must hold 10x4x4 bytes, got 159; truncated"):
        load_data(idx_folder)
    images.write_bytes(b"\0\0\x08\x01" + good[4:])
    with pytest.raises(ValueError, match="magic number 0x00000803"):
        load_data(idx_folder)
    images.unlink()
    with pytest.raises(FileNotFoundError, match="must hold t10k-images-idx3-ubyte"):
        load_data(idx_folder)
    compressed = idx_folder / "train-images-idx3-ubyte.gz"
    compressed.write_bytes(compressed.read_bytes()[:-9])
    with pytest.raises(ValueError, match="truncated or not a gzip file"):
        load_data(idx_folder)


@pytest.mark.parametrize("seed", range(8))
def test_a_class_of_one_sample_is_trained_on(tmp_path, seed):
    y = np.array([*"ab" * 20, "c"])
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).normal(size=(41, 3)), y=y)
    data = load_data(tmp_path / "a.npz", seed)
    assert data.classes == ["a", "b", "c"]
    assert data.y_test.bincount().tolist() in ([5, 6], [6, 5])  # in proportion: the singleton changes nothing


def test_what_float32_would_lose_comes_as_float64(tmp_path):
    second = np.arange(60)
    np.savez(tmp_path / "a.npz", x=1.7e9 + second[:, None], y=second > 30)
    data = load_data(tmp_path / "a.npz")
    assert data.x_train.dtype == data.x_test.dtype == torch.float64
    assert set(data.x_train.flatten().tolist()) <= set((1.7e9 + second).tolist())
    np.savez(tmp_path / "b.npz", x=np.full((60, 1), 1.7e9 + 1), y=second > 30)
    assert load_data(tmp_path / "b.npz").x_train.dtype == torch.float32
    again = load_data(tmp_path / "b.npz", centred_in=torch.float64)
    assert float(again.x_train[0, 0]) == 1.7e9 + 1


def test_labels_are_one_for_each_sample(tmp_path):
    path = tmp_path / "values.npz"
    np.savez(path, x=np.ones((20, 3)), y=np.arange(20.0)[:, None])
    with pytest.raises(
        ValueError, match=r"y must be class labels \[N\], got \[20, 1\]; values are learnt by glai train"
    ):
        load_data(path)
