"""This module turns NumPy's arrays into the tensors that training takes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor


def array_tensor(array: ArrayLike) -> Tensor:
    """Return the array's own memory where torch can share it, writable and in C's order; copy any other."""
    own = np.require(array, requirements=["C", "W"])
    own = own.astype(own.dtype.newbyteorder("="), copy=False)
    # An axis of one element may have any stride in NumPy, also one that torch refuses.
    if any(stride < 0 or stride % own.itemsize for stride in own.strides):
        own = own.copy()
    return torch.from_numpy(own)


def weight_tensor(weight: NDArray[np.float64] | None) -> Tensor | None:
    """Return checked weights ``[N]`` as a tensor; None where there are none."""
    return None if weight is None else array_tensor(weight)
