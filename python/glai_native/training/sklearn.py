"""GLAI comes as scikit-learn estimators: one ``fit`` trains structure and numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
from torch import Tensor

from glai_native.data.arrays import array_tensor, joined_labels, label_indices, weight_tensor
from glai_native.model.glai import GLAI
from glai_native.solvers.dual.model import PathKernelModel
from glai_native.solvers.statistics.sums import PathStatistics
from glai_native.structure.selector import PathSelector
from glai_native.training.fitting import FitResult, fit
from glai_native.training.new_structure import train_selector
from glai_native.training.retraining import retrain


class _Learner(BaseEstimator):
    """What classifier and regressor share.

    Args:
        hidden_layer_sizes: units of the selector's hidden layers; the number of paths is the product of (units + 1).
        n_components: as :func:`train_selector`.
        solver: as :func:`glai_native.fit`.
        structure_epochs: of the selector, at most.
        validation_fraction: of the samples, held out by :func:`glai_native.fit`.
        solver_options: of the solver, a dict.
        random_state: seed, an int.
        verbose: progress bars, and which solver was taken and why.

    Attributes:
        result_: the :class:`FitResult` of ``fit``, or of the latest ``retrain``.
        model_: its model; after ``partial_fit`` the model of all chunks so far.
    """

    def __init__(
        self,
        hidden_layer_sizes: Sequence[int] = (128,),
        *,
        n_components: int | str | None = "auto",
        solver: str = "auto",
        structure_epochs: int = 20,
        validation_fraction: float = 0.1,
        solver_options: dict[str, Any] | None = None,
        random_state: int = 0,
        verbose: bool = False,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.n_components = n_components
        self.solver = solver
        self.structure_epochs = structure_epochs
        self.validation_fraction = validation_fraction
        self.solver_options = solver_options
        self.random_state = random_state
        self.verbose = verbose

    @contextmanager
    def _whole_or_unchanged(self) -> Iterator[None]:
        """Leave every attribute as it was if anything within fails: classes and scales never part from their model."""
        before = dict(self.__dict__)
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _fit(self, x: Tensor, y: Tensor, n_outputs: int, sample_weight: ArrayLike | None) -> None:
        weight = weight_tensor(sample_weight, x)
        selector = self._train_selector(x, y, n_outputs)
        self._statistics: PathStatistics | None = None
        self.result_: FitResult = fit(
            selector,
            x,
            y,
            solver=self.solver,
            sample_weight=weight,
            validation=self.validation_fraction,
            seed=self.random_state,
            progress=self.verbose,
            **(self.solver_options or {}),
        )
        self.model_: GLAI | PathKernelModel = self.result_.model

    def _require_retrainable(self) -> GLAI:
        if getattr(self, "_statistics", None) is not None:
            raise ValueError(
                f"{type(self).__name__}: retrain goes on from fit, and this was fitted by partial_fit, which takes more"
            )
        check_is_fitted(self, "result_")
        if not isinstance(self.model_, GLAI):
            raise ValueError(
                f"{type(self).__name__}: retrain needs path weights, and those of this model did not fit in memory; "
                "fit it again, with fewer units or solver='sgd'"
            )
        return self.model_

    def _retrain(self, x: Tensor, y: Tensor, sample_weight: ArrayLike | None, increment: bool) -> None:
        options = dict(self.solver_options or {})
        if not increment or self.solver == "sgd":  # an exact increment holds nothing out
            options["validation"] = self.validation_fraction
        self.result_ = retrain(
            self._require_retrainable(),
            x,
            y,
            increment=increment,
            solver=self.solver,
            sample_weight=weight_tensor(sample_weight, x),
            seed=self.random_state,
            progress=self.verbose,
            **options,
        )
        self.model_ = self.result_.model

    def _train_selector(self, x: Tensor, y: Tensor, n_outputs: int) -> PathSelector:
        return train_selector(
            x,
            y,
            n_outputs,
            self.hidden_layer_sizes,
            self.n_components,
            epochs=self.structure_epochs,
            seed=self.random_state,
            progress=self.verbose,
        )

    def _require_no_fit(self) -> None:
        if hasattr(self, "model_") and getattr(self, "_statistics", None) is None:
            raise ValueError(
                f"{type(self).__name__}: partial_fit goes on from partial_fit only, and this was fitted by fit; "
                "make a new one and give it all data by partial_fit"
            )

    def _partial_fit(self, x: Tensor, y: Tensor, n_outputs: int, sample_weight: ArrayLike | None) -> None:
        """Add a chunk to the statistics; the first one trains the structure. The model is solved when asked for."""
        if getattr(self, "_statistics", None) is None:
            self._selector = self._train_selector(x, y, n_outputs)
            self._statistics = PathStatistics(
                self._selector.n_paths,
                self._selector.z_features,
                n_outputs,
                structure_id=self._selector.structure_id,
            )
        assert self._statistics is not None
        weight = weight_tensor(sample_weight, x)
        if n_outputs > self._statistics.out_features:
            self._statistics = copy(self._statistics)  # the same gram: added outputs are tensors of its own
            self._statistics.add_outputs(n_outputs - self._statistics.out_features)
        z = self._selector.project(x)
        self._statistics.update(z, self._selector.gates_of(z), y, weight)
        self._solved = False

    def _output(self, X: ArrayLike) -> NDArray[np.float64]:
        if getattr(self, "_statistics", None) is not None and not self._solved:
            assert self._statistics is not None
            options: dict[str, Any] = {"l2": "gcv", "dtype": torch.float32} | (self.solver_options or {})
            estimator = self._statistics.solve(**options, progress=self.verbose)
            self.model_, self._solved = GLAI(self._selector, estimator), True
        check_is_fitted(self, "model_")
        x = array_tensor(validate_data(self, X, dtype=np.float32, reset=False))
        if isinstance(self.model_, PathKernelModel):
            output = self.model_.predict(x)
        else:
            with torch.no_grad():
                output = self.model_(x)
        return output.double().numpy()


class GLAIClassifier(ClassifierMixin, _Learner):
    """Classification: softmax by the native loop, or ridge on 0/1 targets by the closed forms.

    ``partial_fit`` may bring new classes; nothing that earlier chunks taught is forgotten, since it accumulates
    sufficient statistics.

    Source: GreenLightningAI (Duato, Mestre, Dolz, Quintana-Ortí, arXiv 2312.09971) behind scikit-learn's interface
    (Buitinck et al., arXiv 1309.0238).
    """

    __doc__ += (_Learner.__doc__ or "").split("\n", 1)[1]

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit to X ``[N, features]``, labels y ``[N]`` of any kind, sample_weight ``[N]`` >= 0."""
        with self._whole_or_unchanged():
            X, y = validate_data(self, X, y, dtype=np.float32)
            check_classification_targets(y)
            self.classes_, indices = np.unique(y, return_inverse=True)
            if len(self.classes_) < 2:
                raise ValueError(
                    f"GLAIClassifier: y must have at least 2 classes, got {len(self.classes_)} class"
                )
            self._fit(array_tensor(X), torch.from_numpy(indices), len(self.classes_), sample_weight)
        return self

    def retrain(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        increment: bool = False,
    ) -> Self:
        """Train the numbers on new data as :func:`glai_native.retrain`; the structure of ``fit`` stays as it is.

        Labels that are new add outputs and join ``classes_`` at its end. With ``increment`` the samples join those
        seen before, exactly where the solver is ``"statistics"``; otherwise they take their place.
        """
        self._require_retrainable()
        with self._whole_or_unchanged():
            X, y = validate_data(self, X, y, dtype=np.float32, reset=False)
            check_classification_targets(y)
            known = joined_labels(self.classes_, y)
            self._retrain(array_tensor(X), label_indices(y, known), sample_weight, increment)
            self.classes_ = known
        return self

    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Add a chunk; classes, if given, are all that are known so far: this chunk has no others, later ones may.

        ``classes_`` keeps the order in which classes were first seen.
        """
        self._require_no_fit()
        with self._whole_or_unchanged():
            first = getattr(self, "_statistics", None) is None
            X, y = validate_data(self, X, y, dtype=np.float32, reset=first)
            check_classification_targets(y)
            known = np.empty(0, dtype=np.asarray(y).dtype) if first else self.classes_
            if classes is not None:
                known = joined_labels(known, np.asarray(classes))
                unknown = np.setdiff1d(y, known)
                if len(unknown):
                    raise ValueError(
                        f"GLAIClassifier: y must hold labels that classes= or an earlier chunk names, "
                        f"{known.tolist()}, got {unknown.tolist()}"
                    )
            known = joined_labels(known, y)
            if len(known) < 2:
                raise ValueError(
                    "GLAIClassifier: the first chunk must have at least 2 classes, or classes= name them"
                )
            self._partial_fit(array_tensor(X), label_indices(y, known), len(known), sample_weight)
            self.classes_ = known
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return scores ``[N, C]``: logits of the native loop, or estimates of 0/1 targets; two classes: ``[N]``."""
        output = self._output(X)
        return output[:, 1] - output[:, 0] if output.shape[1] == 2 else output

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the label of the highest score."""
        best = self._output(X).argmax(1)
        labels: NDArray[Any] = self.classes_[best]
        return labels

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return class probabilities ``[N, C]``.

        They are the softmax of the native loop's logits. Ridge on 0/1 targets estimates probabilities themselves: they
        are clipped to [0, 1] and divided by their sum.
        """
        output = self._output(X)
        if getattr(self, "_statistics", None) is None and self.result_.solver == "sgd":
            return torch.from_numpy(output).softmax(1).numpy()
        clipped = output.clip(1e-12, 1.0)
        return clipped / clipped.sum(1, keepdims=True)


class GLAIRegressor(RegressorMixin, _Learner):
    """Least squares of one or more targets, which are centred and scaled for the training.

    Source: GreenLightningAI (Duato, Mestre, Dolz, Quintana-Ortí, arXiv 2312.09971) behind scikit-learn's interface
    (Buitinck et al., arXiv 1309.0238).
    """

    __doc__ += (_Learner.__doc__ or "").split("\n", 1)[1]

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit to X ``[N, features]``, values y ``[N]`` or ``[N, C]``, sample_weight ``[N]`` >= 0."""
        with self._whole_or_unchanged():
            X, y = validate_data(
                self, X, _column(y), dtype=np.float32, multi_output=True, y_numeric=True, ensure_min_samples=2
            )
            targets = self._scaled(y, fitting=True)
            self._fit(array_tensor(X), targets, targets.shape[1], sample_weight)
        return self

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
            X, y = validate_data(
                self, X, _column(y), dtype=np.float32, multi_output=True, y_numeric=True, reset=False
            )
            self._retrain(array_tensor(X), self._scaled(y, fitting=False), sample_weight, increment)
        return self

    def partial_fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Add a chunk; centre and scale of y are the first one's."""
        self._require_no_fit()
        with self._whole_or_unchanged():
            first = getattr(self, "_statistics", None) is None
            X, y = validate_data(
                self, X, _column(y), dtype=np.float32, multi_output=True, y_numeric=True, reset=first
            )
            targets = self._scaled(y, fitting=first)
            self._partial_fit(array_tensor(X), targets, targets.shape[1], sample_weight)
        return self

    def _scaled(self, y: ArrayLike, fitting: bool) -> Tensor:
        values = np.asarray(y, dtype=np.float64).reshape(len(y), -1)  # type: ignore[arg-type]
        if fitting:
            self._one_target = np.ndim(y) == 1
            self._centre, spread = values.mean(0), values.std(0)
            self._spread = np.where(spread > 0, spread, 1.0)
        if values.shape[1] != len(self._centre):
            raise ValueError(
                f"GLAIRegressor: y must have as many targets as the first samples, {len(self._centre)}, "
                f"got {values.shape[1]}"
            )
        return torch.from_numpy(((values - self._centre) / self._spread).astype(np.float32))

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return values ``[N]`` or ``[N, C]``, as y was."""
        output = self._output(X) * self._spread + self._centre
        return output[:, 0] if self._one_target else output


def _column(y: ArrayLike) -> ArrayLike:
    """Return one target as ``[N]``; a column of it is taken with scikit-learn's warning."""
    return column_or_1d(y, warn=True) if getattr(y, "ndim", 1) == 2 and np.shape(y)[1] == 1 else y
