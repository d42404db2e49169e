"""This module turns NumPy's arrays and labels of any kind into the tensors that training takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import _check_sample_weight
from torch import Tensor


def array_tensor(array: ArrayLike) -> Tensor:
    """Return the array's own memory where torch can share it, writable and in C's order; copy any other."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def weight_tensor(sample_weight: ArrayLike | None, x: Tensor) -> Tensor | None:
    """Return the weights ``[N]`` of samples x as float32; None where there are none."""
    if sample_weight is None:
        return None
    return array_tensor(_check_sample_weight(sample_weight, x.numpy(), dtype=np.float32))


def joined_labels(known: NDArray[Any], labels: ArrayLike) -> NDArray[Any]:
    """Return the known labels and behind them, sorted, those that are new."""
    return np.concatenate([known, np.setdiff1d(np.asarray(labels), known)])


def label_indices(y: ArrayLike, classes: NDArray[Any]) -> Tensor:
    """Return as int64 ``[N]`` where among ``classes``, in whatever order, each label is."""
    order = np.argsort(classes, kind="stable")
    return torch.from_numpy(order[np.searchsorted(classes, np.asarray(y), sorter=order)])
