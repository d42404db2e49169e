"""Classification comes as a scikit-learn estimator."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor

from glai_native.data.arrays import array_tensor
from glai_native.data.labels import (
    Label,
    joined_labels,
    label_array,
    label_indices,
    label_list,
    require_same_type,
)
from glai_native.data.stored_rows import StoredRows
from glai_native.estimator.outputs import Outputs
from glai_native.estimator.temperature import log_probabilities, probabilities
from glai_native.machine.inference import outside_inference_mode
from glai_native.model.glai import GLAI
from glai_native.training.learners.learner import Learner
from glai_native.training.reading import stays_stored

CLASS_WEIGHT = """\
        class_weight: what samples of a class weigh beside their own weights: a dict by label, 1 where it lacks one; or
            "balanced", in inverse proportion to the weight of their class, not for ``partial_fit``. A class of weight 0
            is as if absent.
"""


class GLAIClassifier(ClassifierMixin, Learner):
    """Classification: softmax by the native loop, or ridge on 0/1 targets by the closed forms.

    ``partial_fit`` may bring new classes; nothing that earlier chunks taught is forgotten, since it accumulates
    sufficient statistics.

    Source: GreenLightningAI (Duato, Mestre, Dolz, Quintana-Ortí, arXiv 2312.09971) behind scikit-learn's interface
    (Buitinck et al., arXiv 1309.0238).
    """

    __doc__ += (
        (Learner.__doc__ or "")
        .split("\n", 1)[1]
        .replace("        verbose:", CLASS_WEIGHT + "        verbose:")
    )

    def __init__(
        self,
        hidden_layer_sizes: Sequence[int] | int | str = "auto",
        *,
        n_components: int | str | None = "auto",
        solver: str = "auto",
        structure_epochs: int | str = "auto",
        validation_fraction: float = 0.1,
        l2: float | str | None = None,
        learning_rate: float | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        budget: float | None = None,
        solver_options: dict[str, Any] | None = None,
        class_weight: Mapping[Any, float] | str | None = None,
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            hidden_layer_sizes,
            n_components=n_components,
            solver=solver,
            structure_epochs=structure_epochs,
            validation_fraction=validation_fraction,
            l2=l2,
            learning_rate=learning_rate,
            epochs=epochs,
            batch_size=batch_size,
            budget=budget,
            solver_options=solver_options,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight

    @property
    def classes_(self) -> NDArray[Any]:
        """The labels, sorted; they live in the model, whose outputs are in their order."""
        labels = self._outputs().class_labels
        if labels is None:
            raise AttributeError("GLAIClassifier: the model's outputs have no labels")
        return label_array("GLAIClassifier", labels)

    @classmethod
    def _require_kind(cls, folder: str | os.PathLike[str], outputs: Outputs) -> None:
        if outputs.has_values:
            raise ValueError(
                f"{folder}: the model's outputs must be classes, got values; GLAIRegressor.load opens it"
            )
        if outputs.class_labels is None:
            outputs.class_labels = range(outputs.out_features)

    @outside_inference_mode
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit to X ``[N, features]``, labels y ``[N]`` of one type, sample_weight ``[N]`` >= 0.

        X may be a NumPy memory map: beyond 32 MB some rows of it are in memory at a time, and equal ones are not
        joined.
        """
        with self._whole_or_unchanged():
            x: Tensor | StoredRows
            if stays_stored(X):
                x, labels, weight = self._stored(X, _labels(y), sample_weight, self.class_weight)
                check_classification_targets(labels)
            else:
                X, labels = self._validated(X, _labels(y))
                check_classification_targets(labels)
                X, labels, weight = self._weighed(X, labels, sample_weight, self.class_weight)
                x = array_tensor(X)
            classes, indices = np.unique(labels, return_inverse=True)
            if len(classes) < 2:
                raise ValueError(f"GLAIClassifier: y must have at least 2 classes, got {len(classes)} class")
            self._fit(x, torch.from_numpy(indices), len(classes), weight, classes.tolist())
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

        Labels that are new, of the same type, add outputs and join ``classes_``, which stays sorted: outputs are
        permuted. With ``increment`` the samples join those seen before, exactly where the solver is
        ``"statistics"``; otherwise they take their place.
        """
        self._require_retrainable()
        with self._whole_or_unchanged():
            X, labels = self._validated(X, _labels(y), reset=False)
            check_classification_targets(labels)
            require_same_type("GLAIClassifier", self.classes_, labels)
            X, labels, weight = self._weighed(X, labels, sample_weight, self.class_weight)
            classes, indices = np.unique(labels, return_inverse=True)
            self._retrain(array_tensor(X), torch.from_numpy(indices), weight, increment, classes.tolist())
        return self

    @outside_inference_mode
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Add a chunk; classes, if given, are all that are known so far: this chunk has no others, later ones may.

        ``classes_`` stays sorted, whatever the order in which classes come. After ``fit`` it goes on from there where
        the solver was ``"statistics"``, by an exact increment; otherwise it begins anew.
        """
        if isinstance(self.class_weight, str):
            raise ValueError(
                f"GLAIClassifier: class_weight must be a dict or None for partial_fit, got {self.class_weight!r}: a "
                "chunk does not know how many samples of each class there are; compute_class_weight of scikit-learn "
                "gives the dict"
            )
        with self._whole_or_unchanged():
            increment = self._goes_on_from_fit()
            first = not increment and not self._is_accumulating()
            if first:
                self._begin_anew()
            X, labels = self._validated(X, _labels(y), reset=first)
            check_classification_targets(labels)
            known: list[Label] = [] if first else self.classes_.tolist()
            require_same_type("GLAIClassifier", known, labels)
            X, labels, weight = self._weighed(X, labels, sample_weight, self.class_weight, required=first)
            if not len(X):
                return self
            if classes is not None:
                named = label_list("GLAIClassifier", np.asarray(_labels(classes)), "classes")
                require_same_type("GLAIClassifier", labels, named, "classes", "y's")
                known = joined_labels(known, named)
                unknown = sorted(set(np.unique(labels).tolist()) - set(known))
                if unknown:
                    raise ValueError(
                        f"GLAIClassifier: y must hold labels that classes= or an earlier chunk names, "
                        f"{known}, got {unknown}"
                    )
            known = joined_labels(known, np.unique(labels).tolist())
            if len(known) < 2:
                raise ValueError(
                    "GLAIClassifier: the first chunk must have at least 2 classes, or classes= name them"
                )
            indices = label_indices("GLAIClassifier", labels, known)
            if increment:
                self._retrain(array_tensor(X), indices, weight, True, known, "statistics")
            else:
                self._partial_fit(array_tensor(X), indices, len(known), weight, class_labels=known)
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

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the share of samples whose label ``predict`` gives, weighted; labels as :meth:`fit` takes them."""
        return float(super().score(X, _labels(y), sample_weight))

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return class probabilities ``[N, C]``: softmax of the scores over the model's temperature.

        The solver fits the temperature on held-out samples, or on leave-one-out scores, by the least log loss
        (:func:`~glai_native.estimator.temperature.fit_temperature`). The most probable class is what ``predict`` gives.
        """
        return probabilities(torch.from_numpy(self._output(X)), self._temperature()).numpy()

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the logarithms of ``predict_proba``, computed as such: none is that of a number rounded to 0."""
        return log_probabilities(torch.from_numpy(self._output(X)), self._temperature()).numpy()

    def _temperature(self) -> float:
        model = self.model_
        return model.estimator.temperature if isinstance(model, GLAI) else model.temperature


def _labels(y: ArrayLike) -> ArrayLike:
    """Return labels of one type; what can be none is for scikit-learn to say."""
    if y is None or (isinstance(y, np.ndarray) and y.dtype.kind == "c"):
        return y
    return label_array("GLAIClassifier", y)
