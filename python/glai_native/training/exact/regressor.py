"""Regression by exact sums comes as a scikit-learn estimator."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.utils.validation import column_or_1d
from torch import Tensor

from glai_native.data.arrays import array_tensor
from glai_native.solvers.exact.sums import IntegerStatistics
from glai_native.solvers.exact.targets import FixedPoint
from glai_native.structure.centring import SCALE
from glai_native.structure.integer_features import IntegerFeatures
from glai_native.training.exact.beginning import Structure
from glai_native.training.exact.learner import ExactLearner

STEP = """\
        step: what targets are whole numbers of, > 0, one or ``[C]``; None: a power of two by the first samples, which
            leaves their distances from the centre 17 bits, and later ones room to be eight times as far. Models that
            are merged have the same, and the same centre.
        centre: what is taken off targets first, one or ``[C]``, with a ``step``; None: 0, or, where the first samples
            choose the step and are at least 32, their mean.
"""
OWNER = "ExactRegressor"
FEWEST_STEPS = 16  # that a standard deviation of targets should have: rounding adds 1 / 3,000 of the variance


class ExactRegressor(RegressorMixin, ExactLearner):
    """Least squares of one or more targets that learns and forgets samples, and merges, the same to the bit.

    Targets are kept in fixed point, whole numbers of ``step``.

    Source: ridge regression on random ReLU features, as RanPAC (arXiv 2307.02251) and AFL (arXiv 2405.16240) have it in
    floating point.
    """

    __doc__ += (
        (ExactLearner.__doc__ or "").split("\n", 1)[1].replace("        verbose:", STEP + "        verbose:")
    )

    def __init__(
        self,
        n_units: int = 2048,
        *,
        structure: str | IntegerFeatures = "auto",
        l2: float | str = "gcv",
        ledger: bool = True,
        random_state: int | np.random.RandomState | None = 0,
        scale: str = SCALE,
        step: float | Sequence[float] | None = None,
        centre: float | Sequence[float] | None = None,
        verbose: bool = False,
    ) -> None:
        self.n_units = n_units
        self.structure = structure
        self.l2 = l2
        self.ledger = ledger
        self.random_state = random_state
        self.scale = scale
        self.step = step
        self.centre = centre
        self.verbose = verbose

    @classmethod
    def _require_kind(cls, folder: str | os.PathLike[str], statistics: IntegerStatistics) -> None:
        if statistics.targets != "values":
            raise ValueError(
                f"{folder}: the model's outputs must be values, got classes; ExactClassifier.load opens it"
            )

    def _validated_pair(self, X: Any, y: Any, *, reset: bool) -> tuple[NDArray[np.float32], Any]:
        x, values = self._validated(X, _column(y), reset=reset, multi_output=True, y_numeric=True)
        return x, values

    def _targets(self, y: Any) -> Tensor:
        return _values(y)

    def compared(self, y: Any) -> NDArray[Any]:
        """Return values float64 ``[N, C]``."""
        return _values(y).numpy()

    def _learn_whole(
        self,
        x: NDArray[np.float32],
        y: Any,
        weight: NDArray[np.float64] | None,
        ids: Any,
        classes: Any,
        structure: Structure | None,
    ) -> None:
        if structure is not None:
            self._begin_values(x, y, weight, structure)
        self._change(1, x, _values(y), weight, ids)

    def _begin_chunks(
        self, x: NDArray[np.float32], y: Any, weight: NDArray[np.float64] | None, structure: Structure
    ) -> None:
        self._begin_values(x, y, weight, structure)
        if self.statistics_.fixed_point is None:
            self.statistics_.fixed_point = FixedPoint.of_first(_values(y), _repeats(weight))

    def _begin_values(
        self, x: NDArray[np.float32], y: Any, weight: NDArray[np.float64] | None, structure: Structure
    ) -> None:
        self._one_target = np.ndim(y) == 1
        self._begin(self._first_statistics(x, _values(y), weight, structure))

    def _encoded(self, statistics: IntegerStatistics, y: Any, sample_weight: Any) -> Tensor:
        return _values(y)

    def _first_statistics(
        self,
        x: NDArray[np.float32],
        values: Tensor,
        weight: NDArray[np.float64] | None,
        structure: Structure,
    ) -> IntegerStatistics:
        n_outputs = values.shape[1]
        spread, mean = torch.std_mean(values, 0, correction=0)
        scaled = (values - mean) / spread.where(spread > 0, 1)
        features = self._first_features(structure, x, scaled.float(), n_outputs, weight)
        if self.step is None:
            _warn_of_coarse_steps(values, _repeats(weight))
        return IntegerStatistics(
            features,
            n_outputs,
            targets="values",
            step=self.step,
            centre=self.centre,
            ledger=bool(self.ledger),
        )

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return values ``[N]`` or ``[N, C]``, as y was."""
        scores, point = self._scores(X, torch.float64), self.statistics_.fixed_point
        values: NDArray[np.float64] = (scores if point is None else point.values(scores)).numpy()
        return values[:, 0] if self._one_target else values


def _values(y: ArrayLike) -> Tensor:
    """Return targets float64 ``[N, C]``."""
    return array_tensor(np.asarray(y, dtype=np.float64).reshape(len(y), -1))  # type: ignore[arg-type]


def _repeats(weight: NDArray[np.float64] | None) -> Tensor | None:
    """Return how often samples count, int64 ``[N]``; what is no integer the sums refuse."""
    return None if weight is None else torch.from_numpy(weight).long()


def _warn_of_coarse_steps(values: Tensor, repeats: Tensor | None) -> None:
    """Warn where the steps that first targets ``[N, C]`` set are too coarse for what they vary by."""
    values = values if repeats is None else values[repeats > 0]
    steps = FixedPoint.of_first(values, None if repeats is None else repeats[repeats > 0]).step
    spread, mean = torch.std_mean(values, 0, correction=0)
    for c in ((spread > 0) & (spread < FEWEST_STEPS * steps)).nonzero().flatten().tolist():
        warnings.warn(
            f"{OWNER}: y varies by {spread[c]:.3g} about {mean[c]:.6g} in column {c}, which steps of {steps[c]:.3g} "
            "lose much of; subtract the mean first, or set step=",
            stacklevel=7,
        )


def _column(y: ArrayLike) -> ArrayLike:
    """Return one target as ``[N]``; a column of it is taken with scikit-learn's warning."""
    return column_or_1d(y, warn=True) if getattr(y, "ndim", 1) == 2 and np.shape(y)[1] == 1 else y
