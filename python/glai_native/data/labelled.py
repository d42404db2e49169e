"""This module loads labelled data for the command line: the embedded digits, MNIST's IDX files, or an .npz."""

from __future__ import annotations

import gzip
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from glai_native.data.features import float_features
from glai_native.data.labels import Label, joined_labels, label_array, label_indices, require_same_type
from glai_native.data.splitting import split_rows

_VALUES = "values are for GLAIRegressor, in Python"
IDX_IMAGES, IDX_LABELS = 0x803, 0x801


@dataclass(frozen=True)
class LabelledData:
    """Features ``[N, D]``, float32 or float64 (``features.py``), and class indices int64 ``[N]``, in train and test.

    Attributes:
        classes: the label of each class index, sorted.
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: list[Label]

    @property
    def n_classes(self) -> int:
        """C."""
        return len(self.classes)


def load_data(
    path: Path | None,
    seed: int = 0,
    classes: Sequence[Label] = (),
    centred_in: torch.dtype | None = None,
) -> LabelledData:
    """Load a data set.

    Args:
        path: None, or ``digits`` where there is no such file: scikit-learn's digits (1,797 images of 8 x 8, a quarter
            for test); a folder: MNIST's IDX files, plain or .gz; an .npz: arrays ``x_train, y_train, x_test, y_test``,
            or ``x, y`` (a quarter for test).
        seed: of the split, where we make it.
        classes: labels that a model knows already; the data's must be of their type.
        centred_in: what the projection of a model that is to read them centres in; None: as the data need it.
    """
    if path is None or (path == Path("digits") and not path.exists()):
        digits = load_digits()
        return _from_arrays(
            "digits", "digits", *_split(digits.data, digits.target, seed), classes, centred_in
        )
    if path.is_dir():
        parts = [
            _read_idx(path, f"{part}-{kind}", magic)
            for part in ("train", "t10k")
            for kind, magic in (("images-idx3-ubyte", IDX_IMAGES), ("labels-idx1-ubyte", IDX_LABELS))
        ]
        x_train, y_train, x_test, y_test = parts
        x_train, x_test = (x / np.float32(255) for x in (x_train, x_test))
        return _from_arrays(str(path), path.name, x_train, y_train, x_test, y_test, classes, centred_in)
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file or folder")
    if path.suffix != ".npz":
        raise ValueError(f"{path}: data must be a folder of MNIST IDX files or an .npz file")
    return _from_arrays(str(path), path.stem, *_read_npz(path, seed, centred_in), classes, centred_in)


def _split(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    if len(x) != len(y) or len(x) < 4:
        raise ValueError(f"x and y must be equally long, at least 4 samples, got {len(x)} and {len(y)}")
    train, test = split_rows(y, len(y), -(-len(y) // 4), seed)
    if not len(test):
        raise ValueError(f"y must have a class of at least 2 samples to test on, got one of each of {len(y)}")
    return x[train], y[train], x[test], y[test]


def _read_idx(folder: Path, stem: str, magic: int) -> np.ndarray:
    for path, opener in ((folder / stem, open), (folder / f"{stem}.gz", gzip.open)):
        if not path.exists():
            continue
        try:
            with opener(path, "rb") as file:
                data = file.read()
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: truncated or not a gzip file ({error})") from None
        dims = magic & 0xFF
        if len(data) < 4 + 4 * dims or struct.unpack(">I", data[:4])[0] != magic:
            raise ValueError(f"{path}: must be an IDX file with magic number {magic:#010x}")
        shape = struct.unpack(f">{dims}I", data[4 : 4 + 4 * dims])
        values = np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * dims)
        if values.size != int(np.prod(shape)):
            raise ValueError(
                f"{path}: must hold {'x'.join(map(str, shape))} bytes, got {values.size}; truncated?"
            )
        return values.reshape(shape[0], -1) if dims > 1 else values
    raise FileNotFoundError(f"{folder}: must hold {stem} or {stem}.gz (MNIST's IDX files)")


def _read_npz(
    path: Path, seed: int, centred_in: torch.dtype | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: is no .npz archive (numpy.savez writes one), or truncated")
    arrays: dict[str, np.ndarray] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                arrays[name] = archive[name]
    except ValueError as error:
        name = next((name for name in archive.files if name not in arrays), "it")
        raise ValueError(
            f"{path}: {name} cannot be read ({error}); text wants a str dtype, not object"
        ) from None
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: truncated or damaged ({error})") from None
    parts = ("x_train", "y_train", "x_test", "y_test")
    if not set(parts) <= arrays.keys() and not {"x", "y"} <= arrays.keys():
        raise ValueError(
            f"{path}: must hold x_train, y_train, x_test, y_test, or x, y; got {', '.join(sorted(arrays)) or 'nothing'}"
        )
    for name in ("y", "y_train", "y_test"):
        labels = arrays.get(name)
        if labels is None:
            continue
        label_array(str(path), labels, name)
        if labels.ndim != 1:
            raise ValueError(f"{path}: {name} must be class labels [N], got {list(labels.shape)}; {_VALUES}")
        if labels.dtype.kind == "f" and (broken := labels[labels != labels.round()]).size:
            raise ValueError(
                f"{path}: {name} must be class labels, got numbers like {broken.flat[0]:g}; {_VALUES}"
            )
    for name in (
        ("x_train", "x_test") if set(parts) <= arrays.keys() else ("x",)
    ):  # rows are those of the file here
        x = arrays[name]
        if x.ndim >= 2 and len(x):
            arrays[name] = float_features(str(path), x.reshape(len(x), -1), name, centred_in=centred_in)
    if set(parts) <= arrays.keys():
        return arrays["x_train"], arrays["y_train"], arrays["x_test"], arrays["y_test"]
    try:
        return _split(arrays["x"], arrays["y"], seed)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _from_arrays(
    source: str,
    name: str,
    x_train: np.ndarray,
    y_train: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
    known: Sequence[Label],
    centred_in: torch.dtype | None,
) -> LabelledData:
    for part, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        if x.ndim < 2 or y.ndim != 1 or len(x) != len(y) or not len(x):
            raise ValueError(
                f"{source}: {part} must be x [N >= 1, ...] and labels y [N], got {list(x.shape)} and {list(y.shape)}"
            )
    found: list[Label] = np.unique(y_train).tolist()
    require_same_type(source, found, y_test, "y_test", "y_train's")
    require_same_type(source, known, found, "y", "the model's")
    classes = joined_labels(known, found)
    unseen = sorted(set(np.unique(y_test).tolist()) - set(classes))
    if unseen:
        raise ValueError(f"{source}: every test label must occur in train, got {unseen[0]!r} in test only")
    if len(classes) < 2:
        raise ValueError(f"{source}: train must have at least 2 classes, got {len(classes)}")
    x_train, x_test = (
        float_features(source, x.reshape(len(x), -1), centred_in=centred_in) for x in (x_train, x_test)
    )
    if x_train.shape[1] != x_test.shape[1]:
        raise ValueError(
            f"{source}: train and test must have the same features, got {x_train.shape[1]} and {x_test.shape[1]}"
        )
    dtype = np.result_type(x_train, x_test)  # float64 where either needs it
    x_train, x_test = (x.astype(dtype, copy=False) for x in (x_train, x_test))
    train, test = (
        (torch.from_numpy(x), label_indices(source, y, classes))
        for x, y in ((x_train, y_train), (x_test, y_test))
    )
    return LabelledData(name, *train, *test, classes)
