"""Targets are integers here: class indices, or values in fixed point, so that sums over them have no rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from glai_native.data.arrays import array_tensor
from glai_native.data.checks import all_finite, require_dense, require_targets

# Values are counted in steps; of so many at most, so that sums of products stay in 64 bits.
MOST_STEPS = 1 << 20
# The first targets' largest is between half and all of so many steps: later ones may be eight times as large.
FIRST_STEPS = 1 << 17
SMALLEST_EXPONENT, LARGEST_EXPONENT = -900, 900


def read_classes(owner: str, targets: Tensor, n_samples: int, n_outputs: int) -> Tensor:
    """Return class indices int64 ``[N]`` in ``[0, C)``; raise unless they are."""
    targets = as_tensor(targets)
    if isinstance(targets, Tensor) and targets.is_floating_point():
        raise ValueError(f"{owner}: targets must be class indices [N={n_samples}], got {targets.dtype}")
    return require_targets(owner, targets, n_samples, n_outputs)


def read_values(owner: str, targets: Tensor, n_samples: int, n_outputs: int) -> Tensor:
    """Return values float64 ``[N, C]``; raise, by row and column, unless they are finite."""
    targets = as_tensor(targets)
    if not isinstance(targets, Tensor):
        raise TypeError(f"{owner}: targets must be a torch.Tensor, got {type(targets).__name__}")
    require_dense(owner, "targets", targets)
    if targets.is_complex() or targets.dtype == torch.bool:
        raise ValueError(f"{owner}: targets must be real values, got {targets.dtype}")
    if targets.shape == (n_samples,) and n_outputs == 1:
        targets = targets.unsqueeze(1)
    if targets.shape != (n_samples, n_outputs):
        raise ValueError(
            f"{owner}: targets must be values [N={n_samples}, C={n_outputs}], got {list(targets.shape)}"
        )
    values = targets.detach().double().cpu()
    if values.numel() and not all_finite(values):
        row, column = (~values.isfinite()).nonzero()[0].tolist()
        raise ValueError(
            f"{owner}: targets must be finite, got {float(values[row, column])} in row {row}, column {column}"
        )
    return values


def as_tensor(targets: Tensor) -> Tensor:
    """Return NumPy's arrays as tensors, and all else as it is."""
    if isinstance(targets, np.ndarray) and targets.dtype.kind in "buif":
        return array_tensor(targets)
    return targets


def require_step(owner: str, step: float | Sequence[float] | Tensor | None, n_outputs: int) -> Tensor | None:
    """Return steps float64 ``[C]``; raise unless they are numbers > 0, or None."""
    if step is None:
        return None
    steps = torch.as_tensor(step, dtype=torch.float64, device="cpu").detach().clone()
    steps = steps.repeat(n_outputs) if steps.ndim == 0 else steps  # a file takes no stride of 0
    if steps.shape != (n_outputs,) or not all_finite(steps) or not bool((steps > 0).all()):
        raise ValueError(
            f"{owner}: step must be a finite number > 0, or C={n_outputs} of them, got {steps.tolist()}"
        )
    return steps


def first_steps(values: Tensor) -> Tensor:
    """Return steps float64 ``[C]``, powers of two, for targets like these float64 ``[N >= 1, C]``."""
    largest = values.abs().amax(0).tolist()
    exponents = [math.frexp(one)[1] if one else 0 for one in largest]
    bounded = [min(max(one, SMALLEST_EXPONENT), LARGEST_EXPONENT) for one in exponents]
    return torch.tensor([2.0**one / FIRST_STEPS for one in bounded], dtype=torch.float64, device="cpu")


def in_steps(owner: str, values: Tensor, steps: Tensor) -> Tensor:
    """Return ``rint(values / steps)`` int64 ``[N, C]``; raise, by row and column, where it passes the range."""
    counted = (values / steps).round_()
    if counted.numel() and not float(counted.abs().max()) < MOST_STEPS:
        row, column = (~(counted.abs() < MOST_STEPS)).nonzero()[0].tolist()
        limit = float(steps[column]) * MOST_STEPS
        raise ValueError(
            f"{owner}: targets must be below {limit:g} in size, the range that the first ones set, got "
            f"{float(values[row, column]):g} in row {row}, column {column}; begin with a larger step="
        )
    return counted.long()
