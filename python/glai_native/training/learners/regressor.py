"""Regression comes as a scikit-learn estimator."""

from __future__ import annotations

import os
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_array, column_or_1d
from torch import Tensor

from glai_native.data.arrays import array_tensor
from glai_native.data.stored_rows import StoredRows
from glai_native.estimator.outputs import Outputs
from glai_native.machine.inference import outside_inference_mode
from glai_native.training.learners.learner import Learner
from glai_native.training.reading import stays_stored


class GLAIRegressor(RegressorMixin, Learner):
    """Least squares of one or more targets, which are centred and scaled for the training.

    Source: GreenLightningAI (Duato, Mestre, Dolz, Quintana-Ortí, arXiv 2312.09971) behind scikit-learn's interface
    (Buitinck et al., arXiv 1309.0238).
    """

    __doc__ += (Learner.__doc__ or "").split("\n", 1)[1]

    @classmethod
    def _require_kind(cls, folder: str | os.PathLike[str], outputs: Outputs) -> None:
        if not outputs.has_values:
            raise ValueError(
                f"{folder}: the model's outputs must be values, got classes; GLAIClassifier.load opens it"
            )

    @outside_inference_mode
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit to X ``[N, features]``, values y ``[N]`` or ``[N, C]``, sample_weight ``[N]`` >= 0.

        X may be a memory map, as :meth:`GLAIClassifier.fit` takes one.
        """
        with self._whole_or_unchanged():
            x: Tensor | StoredRows
            if stays_stored(X):
                y = check_array(_column(y), ensure_2d=False, dtype=np.float64, input_name="y")
                x, y, weight = self._stored(X, y, sample_weight)
            else:
                X, y = self._validated(X, _column(y), multi_output=True, y_numeric=True, ensure_min_samples=2)
                X, y, weight = self._weighed(X, y, sample_weight)
                x = array_tensor(X)
            targets = self._scaled(y, weight, fitting=True)
            self._fit(x, targets, targets.shape[1], weight)
            self._outputs().set_target_scaling(*self._scaling)
        return self

    @outside_inference_mode
    def retrain(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        increment: bool = False,
    ) -> Self:
        """Train the numbers on new data as :func:`glai_native.retrain`; the structure of ``fit`` stays as it is.

        So do centre and scale of y. With ``increment`` the samples join those seen before, exactly where the solver is
        ``"statistics"``; otherwise they take their place.
        """
        self._require_retrainable()
        with self._whole_or_unchanged():
            X, y = self._validated(X, _column(y), multi_output=True, y_numeric=True, reset=False)
            X, y, weight = self._weighed(X, y, sample_weight)
            self._retrain(array_tensor(X), self._values(y), weight, increment)
        return self

    @outside_inference_mode
    def partial_fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Add a chunk; centre and scale of y are the first one's.

        After ``fit`` it goes on from there where the solver was ``"statistics"``, by an exact increment; otherwise it
        begins anew.
        """
        with self._whole_or_unchanged():
            increment = self._goes_on_from_fit()
            first = not increment and not self._is_accumulating()
            if first:
                self._begin_anew()
            X, y = self._validated(X, _column(y), multi_output=True, y_numeric=True, reset=first)
            X, y, weight = self._weighed(X, y, sample_weight, required=first)
            if not len(X):
                return self
            if increment:
                self._retrain(array_tensor(X), self._values(y), weight, True, solver="statistics")
                return self
            targets = self._scaled(y, weight, fitting=first)
            n_outputs = targets.shape[1]
            scaling = self._scaling if first else None
            self._partial_fit(array_tensor(X), targets, n_outputs, weight, scaling=scaling)
        return self

    def _scaled(self, y: ArrayLike, weight: NDArray[np.float64] | None, fitting: bool) -> Tensor:
        """Return targets as they are learnt; where they are the first, centre and scale are theirs."""
        if not fitting:
            return self._outputs().scaled(self._values(y), torch.float32)
        values = np.asarray(y, dtype=np.float64).reshape(len(y), -1)  # type: ignore[arg-type]
        self._one_target = np.ndim(y) == 1
        centre, spread = centre_and_spread(values, weight)
        self._scaling = torch.from_numpy(centre), torch.from_numpy(spread)
        return torch.from_numpy(((values - centre) / spread).astype(np.float32))

    def _values(self, y: ArrayLike) -> Tensor:
        """Return targets float64 ``[N, C]``, as many as there were first."""
        values = np.asarray(y, dtype=np.float64).reshape(len(y), -1)  # type: ignore[arg-type]
        known = self._outputs().out_features
        if values.shape[1] != known:
            raise ValueError(
                f"GLAIRegressor: y must have as many targets as the first samples, {known}, got {values.shape[1]}"
            )
        return torch.from_numpy(values)

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return values ``[N]`` or ``[N, C]``, as y was."""
        output = self._output(X)
        one = output.shape[1] == 1 if self._one_target is None else self._one_target
        return output[:, 0] if one else output


def centre_and_spread(
    values: NDArray[np.float64], weight: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean of each target, and its standard deviation, or 1 where that is 0.

    Raises:
        ValueError: targets so large that their differences are beyond float64.
    """
    # Powers of two, which change no digit: sums and squares of whatever float64 holds stay within it.
    exponent = np.frexp(np.abs(values).max(0))[1]
    centre = np.ldexp(np.average(np.ldexp(values, -exponent), axis=0, weights=weight), exponent)
    with np.errstate(over="ignore"):
        off = values - centre
    if not np.isfinite(off).all():
        raise ValueError(
            f"GLAIRegressor: y must have a range that float64 holds, got values from {values.min():g} to "
            f"{values.max():g}; divide it by a power of ten first"
        )
    exponent = np.frexp(np.abs(off).max(0))[1]
    spread = np.sqrt(np.average(np.ldexp(off, -exponent) ** 2, axis=0, weights=weight))
    spread = np.ldexp(spread, exponent)
    return centre, np.where(spread > 0, spread, 1.0)


def _column(y: ArrayLike) -> ArrayLike:
    """Return one target as ``[N]``; a column of it is taken with scikit-learn's warning."""
    return column_or_1d(y, warn=True) if getattr(y, "ndim", 1) == 2 and np.shape(y)[1] == 1 else y
