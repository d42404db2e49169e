"""How right answers are: accuracy and log loss of classes, R2 and root mean squared error of values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glai_native.cli.models import Answers
from glai_native.data.labels import Label

MOST_CLASSES = 20  # that are scored one by one


def class_scores(found: Answers, classes: NDArray[np.int64]) -> dict[str, Any]:
    """Return scores of classes ``[N]``, as indices of ``found.classes``, and of each class where these are few."""
    assert found.classes is not None
    true = found.log_probabilities[np.arange(len(classes)), classes]
    return scores_of_classes(found.classes, found.best, true, classes)


def scores_of_classes(
    labels: Sequence[Label],
    best: NDArray[np.int64],
    true: NDArray[np.float64],
    classes: NDArray[np.int64],
) -> dict[str, Any]:
    """Return the same of answers that are told by less.

    Args:
        labels: of the classes.
        best: ``[N]``, the class that was answered.
        true: ``[N]``, the logarithm of the probability of the class that it is.
        classes: ``[N]``, which it is.
    """
    right = best == classes
    scores: dict[str, Any] = {"accuracy": float(right.mean()), "log_loss": float(-true.mean())}
    if len(labels) <= MOST_CLASSES:
        scores["per_class"] = [
            {
                "class": label,
                "samples": int((classes == c).sum()),
                "recall": _share(right, classes == c),
                "precision": _share(right, best == c),
            }
            for c, label in enumerate(labels)
        ]
    return scores


def value_scores(found: Answers, values: NDArray[np.float64]) -> dict[str, Any]:
    """Return R2, the mean over outputs, and the root mean squared error of each output, of values ``[N, C]``.

    R2 is None where an output has one value alone.
    """
    errors = ((found.values - values) ** 2).mean(0)
    spread = values.var(0)
    r2 = None if (spread == 0).any() else float((1 - errors / spread).mean())
    rmse = np.sqrt(errors).tolist()
    return {"r2": r2, "rmse": rmse[0] if len(rmse) == 1 else rmse}


def _share(right: NDArray[np.bool_], of: NDArray[np.bool_]) -> float | None:
    return float(right[of].mean()) if of.any() else None
