"""Targets are integers here: class indices, or values in fixed point, so that sums over them have no rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glai_native.data.arrays import array_tensor
from glai_native.data.checks import all_finite, require_dense, require_targets

# Values are counted in steps; of so many at most, so that sums of products stay in 64 bits.
MOST_STEPS = 1 << 20
# The first targets' largest distance from their centre is between half and all of so many steps: later ones may be
# eight times as far.
FIRST_STEPS = 1 << 17
SMALLEST_EXPONENT, LARGEST_EXPONENT = -900, 900
# Of so many first samples a mean is the centre of others too; a spread below, of the largest, is rounding; and of
# values beyond, sums of float64 overflow.
FEWEST_TO_CENTRE = 32
ROUNDING, LARGEST_CENTRED = 2.0**-40, 2.0**900


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


@dataclass(frozen=True, eq=False)
class FixedPoint:
    """How values are whole numbers: ``rint((y - centre) / step)``.

    Attributes:
        step: float64 ``[C]``, > 0.
        centre: float64 ``[C]``.
    """

    step: Tensor
    centre: Tensor

    @classmethod
    def told(
        cls,
        owner: str,
        step: float | Sequence[float] | Tensor | None,
        centre: float | Sequence[float] | Tensor | None,
        n_outputs: int,
    ) -> FixedPoint | None:
        """Return what is told; None where the first values are to tell it. A step without a centre has it at 0.

        Raises:
            ValueError: steps that are not finite numbers > 0, or a centre that is not finite, or of no step.
        """
        if step is None:
            if centre is not None:
                raise ValueError(f"{owner}: centre must come with a step, got centre={centre} alone")
            return None
        steps = _numbers(owner, "step", step, n_outputs, "a finite number > 0", positive=True)
        told = 0.0 if centre is None else centre
        return cls(steps, _numbers(owner, "centre", told, n_outputs, "a finite number"))

    @classmethod
    def of_first(cls, values: Tensor, repeats: Tensor | None) -> FixedPoint:
        """Return what suits targets like these float64 ``[N, C]``, of which each counts so often, int64 ``[N]``.

        Steps are powers of two, of the largest distance from the mean, which is the centre, in whole steps. Of few
        samples, or of samples that are all alike, nobody can tell how much others vary: steps are then of the size of
        the values, and the centre is 0. The order of the samples does not matter.
        """
        total = len(values) if repeats is None else int(repeats.sum())
        counted = values if repeats is None else values[repeats > 0]
        times = None if repeats is None else repeats[repeats > 0].tolist()
        columns = [_of_column(column, times, total) for column in counted.T.tolist()]
        steps, centres = zip(*columns, strict=True)
        return cls(*(torch.tensor(each, dtype=torch.float64, device="cpu") for each in (steps, centres)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FixedPoint):
            return NotImplemented
        return torch.equal(self.step, other.step) and torch.equal(self.centre, other.centre)

    @property
    def is_centred(self) -> bool:
        """Whether the centre is another than 0."""
        return bool(self.centre.any())

    def whole(self, owner: str, values: Tensor) -> Tensor:
        """Return ``rint((values - centre) / step)`` int64 ``[N, C]``; raise, by row, where it passes the range."""
        counted = ((values - self.centre) / self.step).round_()
        if counted.numel() and not float(counted.abs().max()) < MOST_STEPS:
            row, column = (~(counted.abs() < MOST_STEPS)).nonzero()[0].tolist()
            limit, centre = float(self.step[column]) * MOST_STEPS, float(self.centre[column])
            kept = (
                f"between {centre - limit:g} and {centre + limit:g}" if centre else f"below {limit:g} in size"
            )
            raise ValueError(
                f"{owner}: targets must be {kept}, the range that the first ones set, got "
                f"{float(values[row, column]):g} in row {row}, column {column}; begin with a larger step="
            )
        return counted.long()

    def values(self, whole: Tensor) -> Tensor:
        """Return values float64 ``[N, C]`` of so many steps, any real numbers."""
        return whole * self.step + self.centre


def _numbers(
    owner: str, name: str, given: Any, n_outputs: int, expected: str, positive: bool = False
) -> Tensor:
    """Return numbers float64 ``[C]``, of one number so many."""
    numbers = torch.as_tensor(given, dtype=torch.float64, device="cpu").detach().clone()
    numbers = numbers.repeat(n_outputs) if numbers.ndim == 0 else numbers  # a file takes no stride of 0
    if (
        numbers.shape != (n_outputs,)
        or not all_finite(numbers)
        or (positive and not bool((numbers > 0).all()))
    ):
        raise ValueError(
            f"{owner}: {name} must be {expected}, or C={n_outputs} of them, got {numbers.tolist()}"
        )
    return numbers


def _of_column(values: list[float], times: list[int] | None, total: int) -> tuple[float, float]:
    """Return step and centre of one output's first values, each of which counts so many times."""
    size = max(map(abs, values), default=0.0)
    least, most = min(values, default=0.0), max(values, default=0.0)
    if total >= FEWEST_TO_CENTRE and most - least > size * ROUNDING and size < LARGEST_CENTRED:
        if times is None:
            mean = math.fsum(values) / total  # the sum is exact, but for one rounding
        else:  # the same sum
            mean = (
                float(sum(Fraction(value) * count for value, count in zip(values, times, strict=True)))
                / total
            )
        step = _step_of(max(most - mean, mean - least))
        return step, round(mean / step) * step
    return _step_of(size), 0.0


def _step_of(largest: float) -> float:
    exponent = math.frexp(largest)[1] if largest else 0
    return float(2.0 ** min(max(exponent, SMALLEST_EXPONENT), LARGEST_EXPONENT) / FIRST_STEPS)
