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
from sklearn.model_selection import train_test_split
from torch import Tensor

Label = int | float | str

IDX_IMAGES, IDX_LABELS = 0x803, 0x801


@dataclass(frozen=True)
class LabelledData:
    """Features float32 ``[N, D]`` and class indices int64 ``[N]``, split into train and test.

    Attributes:
        classes: the label of each class index.
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


def load_data(path: Path | None, seed: int = 0, classes: Sequence[Label] = ()) -> LabelledData:
    """Load a data set.

    Args:
        path: None, or ``digits`` where there is no such file: scikit-learn's digits (1,797 images of 8 x 8, a quarter
            for test); a folder: MNIST's IDX files, plain or .gz; an .npz: arrays ``x_train, y_train, x_test, y_test``,
            or ``x, y`` (a quarter for test).
        seed: of the split, where we make it.
        classes: labels that have an index already, a model's; others are numbered after them.
    """
    if path is None or (path == Path("digits") and not path.exists()):
        digits = load_digits()
        return _from_arrays("digits", *_split(digits.data, digits.target, seed), classes)
    if path.is_dir():
        parts = [
            _read_idx(path, f"{part}-{kind}", magic)
            for part in ("train", "t10k")
            for kind, magic in (("images-idx3-ubyte", IDX_IMAGES), ("labels-idx1-ubyte", IDX_LABELS))
        ]
        x_train, y_train, x_test, y_test = parts
        x_train, x_test = (x / np.float32(255) for x in (x_train, x_test))
        return _from_arrays(path.name, x_train, y_train, x_test, y_test, classes)
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file or folder")
    if path.suffix != ".npz":
        raise ValueError(f"{path}: data must be a folder of MNIST IDX files or an .npz file")
    return _from_arrays(path.stem, *_read_npz(path, seed), classes)


def _split(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    if len(x) != len(y) or len(x) < 4:
        raise ValueError(f"x and y must be equally long, at least 4 samples, got {len(x)} and {len(y)}")
    counts = np.unique(y, return_counts=True)[1]
    # A class on both sides where that can be.
    stratify = y if counts.min() >= 2 and len(x) // 4 >= len(counts) else None
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=0.25, random_state=seed, stratify=stratify
    )
    return x_train, y_train, x_test, y_test


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


def _read_npz(path: Path, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: is no .npz archive (numpy.savez writes one), or truncated")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except ValueError as error:
        raise ValueError(
            f"{path}: cannot be read ({error}); text labels want a str dtype, not object"
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
        if labels.dtype.kind not in "biufU":
            raise ValueError(f"{path}: {name} must be class labels, numbers or text, got {labels.dtype}")
        if labels.dtype.kind == "f" and (broken := labels[labels != labels.round()]).size:
            raise ValueError(f"{path}: {name} must be class labels, got numbers like {broken.flat[0]:g}")
    if set(parts) <= arrays.keys():
        return arrays["x_train"], arrays["y_train"], arrays["x_test"], arrays["y_test"]
    try:
        return _split(arrays["x"], arrays["y"], seed)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _from_arrays(
    name: str,
    x_train: np.ndarray,
    y_train: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
    known: Sequence[Label],
) -> LabelledData:
    for part, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        if x.ndim < 2 or y.ndim != 1 or len(x) != len(y) or not len(x):
            raise ValueError(
                f"{name}: {part} must be x [N >= 1, ...] and labels y [N], got {list(x.shape)} and {list(y.shape)}"
            )
        if np.iscomplexobj(x):
            raise ValueError(f"{name}: {part} x must be real numbers, got {x.dtype}")
        with np.errstate(over="ignore"):
            finite = np.issubdtype(x.dtype, np.number) and np.isfinite(x.astype(np.float32)).all()
        if not finite:
            raise ValueError(
                f"{name}: {part} x must be finite numbers in float32, got NaN, infinite, too large or other values"
            )
    found = np.unique(y_train).tolist()
    if known and isinstance(known[0], str) != isinstance(found[0], str):
        raise ValueError(f"{name}: labels must be like the model's, {known[0]!r}, got {found[0]!r}")
    classes = [*known, *(label for label in found if label not in known)]
    index = {label: i for i, label in enumerate(classes)}
    unseen = [label for label in np.unique(y_test).tolist() if label not in index]
    if unseen:
        raise ValueError(f"{name}: every test label must occur in train, got {unseen[0]!r} in test only")
    if len(classes) < 2:
        raise ValueError(f"{name}: train must have at least 2 classes, got {len(classes)}")
    x_train, x_test = (
        np.ascontiguousarray(x.reshape(len(x), -1), dtype=np.float32) for x in (x_train, x_test)
    )
    if x_train.shape[1] != x_test.shape[1]:
        raise ValueError(
            f"{name}: train and test must have the same features, got {x_train.shape[1]} and {x_test.shape[1]}"
        )
    train, test = (
        (torch.from_numpy(x), torch.tensor([index[label] for label in y.tolist()]))
        for x, y in ((x_train, y_train), (x_test, y_test))
    )
    return LabelledData(name, *train, *test, classes)
