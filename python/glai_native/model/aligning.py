"""Models that are merged get the same outputs first: by label, whichever classes each has met, in whatever order."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from glai_native.data.labels import Label, joined_labels, listed_labels, require_same_type
from glai_native.estimator.estimator import PathEstimator
from glai_native.estimator.outputs import Outputs
from glai_native.solvers.statistics.sums import PathStatistics

Part = TypeVar("Part", PathEstimator, PathStatistics)


def joined_outputs(parts: Sequence[Outputs], names: Sequence[str]) -> list[Label] | None:
    """Return the labels of all parts together, sorted; None where none has any.

    Labels that are the same in all parts stay in their order.

    Raises:
        ValueError: labels of several types, or in some parts only.
    """
    known: list[Label] | None = parts[0].class_labels
    for part, name in zip(parts, names, strict=True):
        labels = part.class_labels
        if (labels is None) != (known is None):
            found = ["none" if of is None else listed_labels(of) for of in (known, labels)]
            raise ValueError(
                f"merge: all models must have class labels, or none, {names[0]} has {found[0]} and {name} has "
                f"{found[1]}; set class_labels of the other"
            )
        if known is not None and labels is not None and labels != known:
            require_same_type("merge", known, labels, f"{name}'s outputs", f"{names[0]}'s")
            known = joined_labels(known, labels)
    return known


def aligned(parts: Sequence[Part], names: Sequence[str]) -> list[Part]:
    """Return the parts with the outputs of all of them: those that lack some, or have another order, are copied.

    Raises:
        ValueError: labels of several types, or in some parts only.
    """
    labels = joined_outputs(parts, names)
    return list(parts) if labels is None else [with_outputs(part, labels) for part in parts]


def with_outputs(part: Part, labels: Sequence[Label]) -> Part:
    """Return a part whose outputs have these labels, all of its own among them: itself, or a copy."""
    if part.class_labels == list(labels):
        return part
    # Of statistics the sums are shared, which no change of the copy alters.
    changed = copy.copy(part) if isinstance(part, PathStatistics) else copy.deepcopy(part)
    changed.add_classes(labels)
    return changed


def aligned_estimators(estimators: Sequence[PathEstimator], names: Sequence[str]) -> list[PathEstimator]:
    """Return what :func:`aligned` does; an output that was added takes its direction from a model that has it."""
    result = aligned(estimators, names)
    labels = result[0].class_labels
    if labels is None or any(estimator.directions is None for estimator in estimators):
        return result
    for column, label in enumerate(labels):
        has = [label in (estimator.class_labels or ()) for estimator in estimators]
        donor = result[has.index(True)].directions
        for estimator, known in zip(result, has, strict=True):
            if not known and estimator.directions is not None and donor is not None:
                estimator.directions[:, column] = donor[:, column].to(estimator.directions)
    return result


def equal_models(first: PathEstimator | PathStatistics, second: PathEstimator | PathStatistics) -> bool:
    """Return whether two parts hold the same numbers of as many samples, of which there are some."""
    if first is second:
        return _seen(first) > 0
    if type(first) is not type(second) or not 0 < _seen(first) == _seen(second):
        return False
    pairs = list(zip(_numbers(first), _numbers(second), strict=False))
    return first.class_labels == second.class_labels and all(torch.equal(a, b.to(a.device)) for a, b in pairs)


def _seen(part: PathEstimator | PathStatistics) -> int:
    return part.n_samples if isinstance(part, PathStatistics) else int(part.samples_seen)


def _numbers(part: PathEstimator | PathStatistics) -> list[Tensor]:
    """Return what tells two parts apart, counts first."""
    if isinstance(part, PathStatistics):
        sums = part.sums()
        return [sums[name] for name in ("on_counts", "squares", "rhs", "gram")]
    return [part.on_counts, *part.parameters()]
