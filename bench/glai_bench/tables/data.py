"""The data of the tables: each has one split into training and test samples, standardised by the training ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.model_selection import train_test_split

from glai_bench.exact.streams import read


class Table(NamedTuple):
    """One data set, standardised and split; ``classify``: y holds classes, otherwise values."""

    x: NDArray[np.float32]
    y: NDArray[Any]
    x_test: NDArray[np.float32]
    y_test: NDArray[Any]
    classify: bool


EMBEDDED: dict[str, tuple[Callable[..., Any], bool]] = {
    "digits": (load_digits, True),
    "breast cancer": (load_breast_cancer, True),
    "diabetes": (load_diabetes, False),
}
# Files of the folder, and whether they hold classes.
FILES = {"letter": True, "electricity": True, "protein": False, "kin40k": False}
# Of many features: what they are called among the streams of the exact head's benchmark.
WIDE = {"BANKING77": "banking", "MNIST": "mnist", "Tiny-ImageNet features": "tinyimagenet"}
NAMES = (*EMBEDDED, *FILES, *WIDE)


def read_table(name: str, folder: Path | None) -> Table:
    """Read the data set of that name, standardised and split; a file lies below the folder."""
    if name in EMBEDDED:
        load, classify = EMBEDDED[name]
        x, x_test, y, y_test = train_test_split(*load(return_X_y=True), random_state=0)
    elif name in WIDE:
        x, y, x_test, y_test = (part.numpy() for part in read(WIDE[name], folder))
        classify = True
    else:
        assert folder is not None
        with np.load(folder / "tabular" / f"{name}.npz") as file:
            x, y, x_test, y_test = (file[key] for key in ("x_train", "y_train", "x_test", "y_test"))
        classify = FILES[name]
    x, x_test = _standardised(x, x_test)
    if not classify:
        y, y_test = _standardised(y, y_test)
    return Table(x, y, x_test, y_test, classify)


def _standardised(train: NDArray[Any], test: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    mean, deviation = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    scale = np.where(deviation > 0, deviation, 1.0)
    return ((train - mean) / scale).astype(np.float32), ((test - mean) / scale).astype(np.float32)
