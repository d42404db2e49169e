"""Classification by exact sums comes as a scikit-learn estimator."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor

from glai_native.data.labels import (
    Label,
    joined_labels,
    label_array,
    label_indices,
    label_list,
    require_same_type,
)
from glai_native.estimator.temperature import log_probabilities, probabilities
from glai_native.machine.inference import outside_inference_mode
from glai_native.solvers.exact.sums import IntegerStatistics
from glai_native.structure.centring import SCALE
from glai_native.structure.integer_features import IntegerFeatures
from glai_native.training.exact.beginning import Structure
from glai_native.training.exact.chunked import Samples
from glai_native.training.exact.learner import ExactLearner

CLASSES = """\
        class_weight: what a sample of each class weighs when the sums are solved: a dict by label, 1 where it lacks
            one; or "balanced", in inverse proportion to how many its class has. It can be set later (``set_params``),
            where sums were kept per class.
        per_class: keep the sums of each class apart, C + 1 times the memory; with ``class_weight`` they are anyway.
"""
OWNER = "ExactClassifier"


class ExactClassifier(ClassifierMixin, ExactLearner):
    """Classification that learns new samples and classes, forgets samples, and merges, the same to the bit.

    Three classes or more are told apart by discriminants, which the ridge's solution holds already: between the cosine
    and the linear one, by the scatter within classes (``solvers/exact/deciding.py``).

    Source: sums over random ReLU features, as RanPAC (arXiv 2307.02251), ACIL (arXiv 2205.14922) and AFL
    (arXiv 2405.16240) keep them in floating point.
    """

    __doc__ += (
        (ExactLearner.__doc__ or "")
        .split("\n", 1)[1]
        .replace("        verbose:", CLASSES + "        verbose:")
    )

    def __init__(
        self,
        n_units: int = 2048,
        *,
        structure: str | IntegerFeatures = "auto",
        l2: float | str = "gcv",
        ledger: bool = True,
        random_state: int | np.random.RandomState | None = 0,
        class_weight: Mapping[Any, float] | str | None = None,
        per_class: bool = False,
        scale: str = SCALE,
        verbose: bool = False,
    ) -> None:
        self.n_units = n_units
        self.structure = structure
        self.l2 = l2
        self.ledger = ledger
        self.random_state = random_state
        self.class_weight = class_weight
        self.per_class = per_class
        self.scale = scale
        self.verbose = verbose

    @property
    def classes_(self) -> NDArray[Any]:
        """The labels, sorted."""
        return label_array(OWNER, sorted(self._sums().class_labels or []))

    @classmethod
    def _require_kind(cls, folder: str | os.PathLike[str], statistics: IntegerStatistics) -> None:
        if statistics.targets != "classes":
            raise ValueError(
                f"{folder}: the model's outputs must be classes, got values; ExactRegressor.load opens it"
            )
        if statistics.class_labels is None:
            raise ValueError(f"{folder}: the model's classes must have labels, got none")

    @outside_inference_mode
    def partial_fit(  # type: ignore[override]
        self,
        X: Any,
        y: Any = None,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        ids: ArrayLike | None = None,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        save_seconds: float = 60.0,
    ) -> Self:
        """Learn more samples, arguments as :meth:`fit`; labels that are new become classes.

        ``classes``, if given, are all that are known so far: these samples have no others, later ones may.
        """
        with self._whole_or_unchanged():
            self._learn(Samples(X, y, sample_weight, ids), classes, checkpoint, save_seconds)
        return self

    def _validated_pair(self, X: Any, y: Any, *, reset: bool) -> tuple[NDArray[np.float32], Any]:
        x, labels = self._validated(X, _labels(y), reset=reset)
        check_classification_targets(labels)
        return x, labels

    def _targets(self, y: Any) -> Tensor:
        require_same_type(OWNER, self.classes_, y)
        return label_indices(OWNER, y, self.statistics_.class_labels or [])

    def compared(self, y: Any) -> NDArray[Any]:
        """Return labels ``[N]``."""
        labels: NDArray[Any] = y
        return labels

    def _learn_whole(
        self,
        x: NDArray[np.float32],
        y: NDArray[Any],
        weight: NDArray[np.float64] | None,
        ids: Any,
        classes: Any,
        structure: Structure | None,
    ) -> None:
        known: list[Label] = [] if structure is not None else list(self.statistics_.class_labels or [])
        require_same_type(OWNER, known, y)
        found = np.unique(y if weight is None else y[weight > 0]).tolist()
        if classes is not None:
            named = label_list(OWNER, np.asarray(_labels(classes)), "classes")
            require_same_type(OWNER, y, named, "classes", "y's")
            unknown = sorted(set(found) - {*known, *named})
            if unknown:
                raise ValueError(
                    f"{OWNER}: y must hold labels that classes= or earlier samples name, got {unknown} besides"
                )
            found = joined_labels(found, named)
        added = [label for label in found if label not in set(known)]
        order = known + added
        if weight is not None:
            x, y, ids, weight = _positive(x, y, ids, weight)
        targets = label_indices(OWNER, y, order)
        if structure is not None:
            self._begin(self._first_statistics(x, targets, order, weight, structure))
            self._change(1, x, targets, weight, ids)
            return
        statistics, before = self.statistics_, dict(self.statistics_.__dict__)
        if added:
            statistics.add_outputs(len(added), added)
        try:
            self._change(1, x, targets, weight, ids)
        except Exception:  # nothing was added; an interrupt leaves the classes, of which there is no sample
            statistics.__dict__ = before
            raise

    def _begin_chunks(
        self,
        x: NDArray[np.float32],
        y: NDArray[Any],
        weight: NDArray[np.float64] | None,
        structure: Structure,
    ) -> None:
        if weight is not None:
            x, y, _, weight = _positive(x, y, None, weight)
        known = np.unique(y).tolist()
        self._begin(self._first_statistics(x, label_indices(OWNER, y, known), known, weight, structure))

    def _encoded(self, statistics: IntegerStatistics, y: Any, sample_weight: Any) -> Tensor:
        labels, known = label_array(OWNER, y), statistics.class_labels or []
        require_same_type(OWNER, known, labels)
        counted = labels
        if sample_weight is not None and known:  # what does not count is of no class
            counts = np.asarray(sample_weight) > 0
            if counts.shape == labels.shape:
                labels = np.where(counts, labels, known[0]).astype(labels.dtype)
                counted = labels[counts]
        added = [label for label in np.unique(counted).tolist() if label not in set(known)]
        if added:
            statistics.add_outputs(len(added), added)
        return label_indices(OWNER, labels, known + added)

    def _first_statistics(
        self,
        x: NDArray[np.float32],
        targets: Tensor,
        labels: list[Label],
        weight: NDArray[np.float64] | None,
        structure: Structure,
    ) -> IntegerStatistics:
        self._require_class_weight()
        features = self._first_features(structure, x, targets, len(labels), weight)
        per_class = bool(self.per_class or self.class_weight is not None)
        statistics = IntegerStatistics(features, len(labels), per_class=per_class, ledger=bool(self.ledger))
        statistics.class_labels = labels
        return statistics

    def _require_class_weight(self) -> None:
        weight = self.class_weight
        if not (weight in (None, "balanced") or isinstance(weight, Mapping)):
            raise ValueError(f"{OWNER}: class_weight must be a dict, 'balanced' or None, got {weight!r:.80}")

    def _class_weight(self) -> Tensor | str | None:
        self._require_class_weight()
        weight = self.class_weight
        if not isinstance(weight, Mapping):
            return weight
        labels = self.statistics_.class_labels or []
        unknown = [label for label in weight if label not in labels]
        if unknown:
            raise ValueError(
                f"{OWNER}: class_weight must be of the classes learnt, got {unknown[0]!r}, which is none"
            )
        return torch.tensor([float(weight.get(label, 1.0)) for label in labels], dtype=torch.float64)

    def _sorted_scores(self, X: ArrayLike) -> Tensor:
        """Return scores float32 ``[N, C]``, outputs in the order of ``classes_``."""
        scores = self._scores(X)
        labels = self.statistics_.class_labels or []
        return scores[:, sorted(range(len(labels)), key=labels.__getitem__)]

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return scores ``[N, C]``, the likely class's about 1; two classes: ``[N]``, the second's less the first's."""
        scores = self._sorted_scores(X).double().numpy()
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the label of the highest score; a class without samples is none."""
        best = self._sorted_scores(X).argmax(1).numpy()
        labels: NDArray[Any] = self.classes_[best]
        return labels

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the share of samples whose label ``predict`` gives, weighted; labels as :meth:`fit` takes them."""
        return float(super().score(X, _labels(y), sample_weight))

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return class probabilities ``[N, C]``: softmax of the scores over a temperature that the sums tell."""
        return probabilities(self._sorted_scores(X), self.solution().temperature).numpy()

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the logarithms of ``predict_proba``, computed as such: none is that of a number rounded to 0."""
        return log_probabilities(self._sorted_scores(X), self.solution().temperature).numpy()


def _labels(y: ArrayLike) -> ArrayLike:
    """Return labels of one type; what can be none is for scikit-learn to say."""
    if y is None or (isinstance(y, np.ndarray) and y.dtype.kind == "c"):
        return y
    return label_array(OWNER, y)


def _positive(x: Any, labels: Any, ids: Any, weight: Any) -> tuple[Any, Any, Any, Any]:
    """Return the samples that weigh something."""
    kept = weight > 0
    return x[kept], labels[kept], None if ids is None else np.asarray(ids)[kept], weight[kept]
