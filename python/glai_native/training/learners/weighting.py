"""What a learner's samples weigh: their own weights, and those of their classes, on samples in their canonical form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from glai_native.data.arrays import array_tensor
from glai_native.data.canonical import canonical_form

Weighed = tuple[NDArray[Any], NDArray[Any], NDArray[np.float64] | None]


def weighed_samples(
    owner: str,
    samples: ArrayLike,
    targets: ArrayLike,
    sample_weight: ArrayLike | None,
    class_weight: Mapping[Any, float] | str | None = None,
) -> Weighed:
    """Return samples, targets and weights in the form that :func:`canonical_form` gives; no weights: None.

    Equal samples are joined before their weights are multiplied by those of their classes, so that repetitions and
    integer weights give the same numbers.

    Args:
        owner: who is asked, named in the errors.
        samples: X, ``[N, features]``.
        targets: labels ``[N]``, or values ``[N]`` or ``[N, C]``.
        sample_weight: ``[N]``, >= 0.
        class_weight: as :class:`GLAIClassifier` takes it.

    Returns:
        None of the samples where all weigh 0.

    Raises:
        ValueError: weights that are no finite numbers >= 0, or not N.
    """
    x, y = np.asarray(samples), np.asarray(targets)
    weight: NDArray[np.float64] | None = None
    if sample_weight is not None:
        weight = read_weight(owner, sample_weight, len(x))
    x, y, weight = _canonical(x, y, weight)
    if class_weight is None or not len(x):
        return x, y, weight
    classes, index = np.unique(y, return_inverse=True)
    counts = np.bincount(index, weights=weight)
    shares = _class_shares(owner, class_weight, classes, counts)[index]
    return _canonical(x, y, shares if weight is None else weight * shares)


def read_weight(owner: str, sample_weight: ArrayLike, n: int) -> NDArray[np.float64]:
    """Return weights float64 ``[N]``, those of a number as many."""
    try:
        found = np.asarray(sample_weight)
        if found.dtype.kind == "c":  # NumPy would drop their imaginary parts
            raise TypeError
        weight = found.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"{owner}: sample_weight must be numbers [N={n}], got {sample_weight!r:.80}"
        ) from None
    if weight.ndim == 0:
        weight = np.full(n, weight)
    if weight.shape != (n,):
        raise ValueError(f"{owner}: sample_weight must be [N={n}], got {list(weight.shape)}")
    if not np.isfinite(weight).all():
        raise ValueError(f"{owner}: sample_weight must be finite, got NaN or infinite values")
    if (weight < 0).any():
        raise ValueError(f"{owner}: sample_weight must be >= 0, got {weight.min():g}")
    return weight


def _canonical(x: NDArray[Any], y: NDArray[Any], weight: NDArray[np.float64] | None) -> Weighed:
    if weight is not None and not weight.all():  # labels that weigh nothing have no number among the others
        kept = weight > 0
        x, y, weight = x[kept], y[kept], weight[kept]
    if not len(x):
        return x, y, weight
    values = y if y.dtype.kind == "f" else np.unique(y, return_inverse=True)[1].reshape(y.shape)
    content = [array_tensor(x), array_tensor(values)]
    form = canonical_form(content, None if weight is None else torch.from_numpy(weight))
    if form.rows is not None:
        rows = form.rows.numpy()
        x, y = x[rows], y[rows]
    return x, y, None if form.weight is None else form.weight.numpy()


def _class_shares(
    owner: str, class_weight: Mapping[Any, float] | str, classes: NDArray[Any], counts: NDArray[Any]
) -> NDArray[np.float64]:
    """Return the weight of each class, of which there are ``counts`` samples."""
    if isinstance(class_weight, str) and class_weight == "balanced":
        return np.asarray(counts.sum() / (len(counts) * counts))
    if not isinstance(class_weight, Mapping):
        raise ValueError(f"{owner}: class_weight must be a dict, 'balanced' or None, got {class_weight!r}")
    labels = classes.tolist()
    shares = [class_weight.get(label, 1.0) for label in labels]
    for label, share in class_weight.items():
        if not isinstance(share, int | float | np.number) or not 0 <= share < math.inf:
            raise ValueError(f"{owner}: class_weight must be finite numbers >= 0, got {share!r} of {label!r}")
    missing = [label for label in labels if label not in class_weight]
    unknown = [label for label in class_weight if label not in labels]
    if missing and unknown:
        raise ValueError(
            f"{owner}: class_weight must be of the classes of y, got {unknown[0]!r}, which is none, and nothing of "
            f"{missing[0]!r}"
        )
    return np.array(shares, dtype=np.float64)
