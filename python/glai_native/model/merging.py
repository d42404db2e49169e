"""Linear models of one structure are merged here."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from glai_native.estimator.estimator import PathEstimator
from glai_native.machine.progress import epoch_progress
from glai_native.model.aligning import aligned_estimators, equal_models, joined_outputs, with_outputs
from glai_native.model.glai import GLAI
from glai_native.model.names import METHODS
from glai_native.model.unseen import lower_unseen
from glai_native.solvers.statistics.sums import PathStatistics

Model = TypeVar("Model", GLAI, PathEstimator, PathStatistics)

OF_OUTPUTS = (
    "weight",
    "bias",
    "constant_weight",
    "constant_bias",
)  # parameters of an output each, in the last axis
SAME_SHARE = 1e-6  # relative, of l2 over the mean diagonal


def merge(
    models: Sequence[Model],
    method: str | None = None,
    *,
    l2: float | str | None = None,
    names: Sequence[str] | None = None,
    progress: bool = True,
) -> Model:
    """Make one model from several that were trained on different data with the same structure.

    ==========================  =========================================================================
    ``"samples"``               weights averaged by the samples that each model has seen
    ``"activations_classes"``   weight (p, c) averaged by how often path p was on for class c in each
                                model's samples; where it never was, by samples. Full paths and classes only
    ``"statistics"``            sums added and solved again: the model of all samples together, exactly
    ==========================  =========================================================================

    The temperature of probabilities is the geometric mean of the models', by samples.
    Counts and sums add up too, so that merging is free of order and grouping, to rounding. None of the methods knows
    which samples two models have both seen: they count twice, and models that are equal are warned of.

    Outputs are aligned by their labels, where they have some: the result has the classes of all models, sorted, and a
    model has learnt nothing of those that it lacks, as after ``add_outputs``, nor of those that it has counted no
    sample of and another has. Outputs without labels are aligned by number. Values must have one centre and scale.

    Source: merging of linear models over one structure, arXiv 2312.09971; by samples as FedAvg, McMahan et al., arXiv
    1602.05629; by sums as AFL, arXiv 2405.16240.

    Args:
        models: all :class:`GLAI`, all :class:`PathEstimator`, or all :class:`PathStatistics`, at least one.
        method: as above; statistics alone are always added, and not solved. None: ``"samples"``, or ``"statistics"``
            for those.
        l2: for ``"statistics"``: a number, or ``"gcv"``; None: the share of the mean diagonal that all models were
            solved with.
        names: of the models, for messages; None: their numbers.
        progress: show a bar.

    Returns:
        A new model of the same kind. Its estimator's ``provenance`` says what it was merged from. Merged by
        statistics it keeps their sum, and has the output directions of the first.

    Raises:
        ValueError: different structures, output directions or sizes, labels of different types or in some models only,
            an unknown method or one that these models do not have, no samples recorded.
    """
    if not isinstance(models, Sequence):
        raise TypeError(f"merge: models must be a sequence of models, got one {type(models).__name__}")
    if not models:
        raise ValueError("merge: models must hold at least one model, got none")
    kinds = {type(model) for model in models}
    first = models[0]
    if len(kinds) != 1 or not isinstance(first, (GLAI, PathEstimator, PathStatistics)):
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        hint = "; a learner's GLAI is .model_" if any(hasattr(kind, "partial_fit") for kind in kinds) else ""
        raise TypeError(
            f"merge: models must be all GLAI, all PathEstimator or all PathStatistics, got {found}{hint}"
        )
    method = method or ("statistics" if isinstance(first, PathStatistics) else "samples")
    if method not in METHODS:
        raise ValueError(f"merge: method must be one of {', '.join(METHODS)}, got {method!r}")
    if l2 is not None and (method != "statistics" or isinstance(first, PathStatistics)):
        raise ValueError(f"merge: l2 is for models merged by statistics, got l2={l2!r}")
    if isinstance(l2, str) and l2 != "gcv":
        raise ValueError(f"merge: l2 must be a number or 'gcv', got {l2!r}")
    names = [f"model {i}" for i in range(len(models))] if names is None else names
    if len(names) != len(models):
        raise ValueError(f"merge: names must be of the {len(models)} models, got {len(names)}")
    _warn_of_equal(models, names)
    if isinstance(first, PathStatistics):
        if method != "statistics":
            raise ValueError(f"merge: statistics are merged by 'statistics', got {method!r}")
        return _add_up(models, names, progress)
    if method == "statistics":
        if isinstance(first, PathEstimator):
            raise ValueError(
                "merge: an estimator alone has no statistics, merge GLAI models that have them, or by 'samples'"
            )
        return _merge_statistics(models, names, l2, progress)
    if isinstance(first, GLAI):
        average = GLAI(first.selector, _average([model.estimator for model in models], names, method))
        lower_unseen(average)
        return average
    return _average(models, names, method)


@torch.no_grad()
def _average(estimators: Sequence[PathEstimator], names: Sequence[str], method: str) -> PathEstimator:
    estimators = aligned_estimators(estimators, names)
    _require_alike(estimators, names, with_directions=True)
    first = estimators[0]
    seen = [int(estimator.samples_seen) for estimator in estimators]
    total = sum(seen)
    if total == 0:
        raise ValueError(
            "merge: no model has samples recorded, call estimator.record(gates, targets) for the data of each"
        )
    if method == "activations_classes":
        _require_class_counts(estimators, names)
    merged = PathEstimator(
        first.n_paths,
        first.in_features,
        first.out_features,
        first.directions,
        n_units=first.n_units,
        structure_id=first.structure_id,
        dtype=first.dtype,
        device=first.on_counts.device,
    )
    for estimator in estimators:
        merged.on_counts += estimator.on_counts
    # A training puts classes without samples below all others, which says nothing of the samples that another has.
    learnt = [estimator.on_counts.sum(0) > 0 for estimator in estimators]
    unlearnt = [(merged.on_counts.sum(0) > 0) & ~of for of in learnt]
    # In float64, so that the order of the models does not show beyond the last rounding.
    for name, parameter in merged.named_parameters():
        average = torch.zeros_like(parameter, dtype=torch.float64)
        for estimator, n, nothing in zip(estimators, seen, unlearnt, strict=True):
            share: float | Tensor = n / total
            if method == "activations_classes":
                share = _share_of_activations(estimator.on_counts, merged.on_counts, n / total)
                share = share.unsqueeze(1) if parameter.ndim == 3 else share  # [P, 1, C] of [P, D, C]
            part = estimator.get_parameter(name).double() * share
            if nothing.any() and name in OF_OUTPUTS:
                part[..., nothing] = 0.0
            average += part
        parameter.copy_(average)
    merged.samples_seen.fill_(total)
    merged.take_outputs(first)
    merged.temperature = _temperature(estimators, seen)
    merged.provenance = _provenance(method, names, seen)
    return merged


def _share_of_activations(counts: Tensor, total: Tensor, share_of_samples: float) -> Tensor:
    """Return the share ``[P, C]`` that this model has of all samples of class c with path p on."""
    return torch.where(total > 0, counts.double() / total.clamp(min=1), share_of_samples)


def _merge_statistics(
    models: Sequence[GLAI], names: Sequence[str], l2: float | str | None, progress: bool
) -> GLAI:
    estimators = aligned_estimators([model.estimator for model in models], names)
    _require_alike(estimators, names, with_directions=False)
    for model, name in zip(models, names, strict=True):
        if not model.has_statistics:
            raise ValueError(
                f"merge: {name} has no statistics, train it with solver='statistics' or merge by 'samples'"
            )
    if l2 is None:
        share = _common_share(estimators, names)
    total: PathStatistics | None = None
    seen, labels = [], estimators[0].class_labels
    with epoch_progress(progress) as bar:
        for model, name in zip(bar.track(models, description="statistics"), names, strict=True):
            part = model.read_statistics()
            assert part is not None
            seen.append(part.n_samples)
            total = _added(total, part if labels is None else with_outputs(part, labels), name)
    assert total is not None
    if l2 is None:
        l2 = share * total.mean_diagonal
    first = estimators[0]
    estimator = total.solve(l2, first.directions, dtype=first.dtype, progress=progress)
    estimator.take_outputs(first)
    estimator.temperature = _temperature(estimators, seen)
    estimator.provenance |= _provenance("statistics", names, seen)
    merged = GLAI(models[0].selector, estimator, total)
    lower_unseen(merged)
    return merged


def _temperature(estimators: Sequence[PathEstimator], seen: Sequence[int]) -> float:
    """Return the geometric mean of the models' temperatures, by samples: none of theirs is there to fit one on."""
    logs = [math.log(estimator.temperature) * n for estimator, n in zip(estimators, seen, strict=True)]
    return math.exp(math.fsum(logs) / (sum(seen) or 1))


def _add_up(parts: Sequence[PathStatistics], names: Sequence[str], progress: bool) -> PathStatistics:
    total: PathStatistics | None = None
    labels = joined_outputs(parts, names)
    with epoch_progress(progress) as bar:
        for part, name in zip(bar.track(parts, description="statistics"), names, strict=True):
            total = _added(total, part if labels is None else with_outputs(part, labels), name)
    assert total is not None
    return total


def _added(total: PathStatistics | None, part: PathStatistics, name: str) -> PathStatistics:
    if total is None:
        return part.copy()
    try:
        return total.merge(part)
    except ValueError as error:
        raise ValueError(f"{error} ({name})") from None


def _common_share(estimators: Sequence[PathEstimator], names: Sequence[str]) -> float:
    """Return l2 over the mean diagonal that all models were solved with."""
    shares = []
    for estimator, name in zip(estimators, names, strict=True):
        solved: dict[str, Any] = estimator.provenance
        if not {"l2", "mean_diagonal"} <= solved.keys():
            raise ValueError(f"merge: l2 must be given, {name} does not say which it was solved with")
        shares.append(float(solved["l2"]) / float(solved["mean_diagonal"]))
        if abs(shares[-1] - shares[0]) > SAME_SHARE * abs(shares[0]):
            raise ValueError(
                f"merge: l2 must be given, {names[0]} was solved with {shares[0]:.4g} of its mean diagonal and "
                f"{name} with {shares[-1]:.4g}"
            )
    return shares[0]


def _require_alike(
    estimators: Sequence[PathEstimator], names: Sequence[str], *, with_directions: bool
) -> None:
    first = estimators[0]
    if first.structure_id is None:
        raise ValueError(
            f"merge: {names[0]} states no structure_id, so that it cannot be told whose paths it weighs"
        )
    for other, name in zip(estimators, names, strict=True):
        if other.structure_id != first.structure_id:
            raise ValueError(
                f"merge: models must share one structure, {names[0]} has structure_id {_short(first.structure_id)} "
                f"and {name} has {_short(other.structure_id)}"
            )
        if bool(other.n_units) != bool(first.n_units):
            raise ValueError(
                f"merge: models must be of one kind, {names[0]} has {first.kind} and {name} has {other.kind}"
            )
        if _sizes(other) != _sizes(first) or other.dtype != first.dtype:
            raise ValueError(
                f"merge: weights must be {first.dtype} {_sizes(first)} like {names[0]}'s, "
                f"{name} has {other.dtype} {_sizes(other)}"
            )
        differ = first.outputs_differ(other)
        if differ is None and first.has_values != other.has_values:
            classes = other if first.has_values else first
            differ = "kind of outputs, values or classes" if bool(classes.on_counts.any()) else None
        if differ is not None:
            raise ValueError(
                f"merge: models must have the same {differ}, {names[0]} has {first.outputs_text()} and {name} has "
                f"{other.outputs_text()}"
            )
        if with_directions and other.directions_id != first.directions_id:
            raise ValueError(
                f"merge: models must share their output directions, {names[0]} has directions_id "
                f"{_short(first.directions_id)} and {name} has {_short(other.directions_id)}"
            )


def _require_class_counts(estimators: Sequence[PathEstimator], names: Sequence[str]) -> None:
    for estimator, name in zip(estimators, names, strict=True):
        if estimator.directions is not None:
            raise ValueError(
                f"merge: 'activations_classes' is for full paths, {name} has output directions; "
                "merge by 'samples' or 'statistics'"
            )
        if int(estimator.samples_seen) and not bool(estimator.on_counts.any()):
            raise ValueError(
                f"merge: 'activations_classes' needs counts per class, {name} has none; record them with "
                "estimator.record(gates, targets), or merge by 'samples'"
            )


def _provenance(method: str, names: Sequence[str], seen: Sequence[int]) -> dict[str, Any]:
    parties = [{"name": name, "samples": n} for name, n in zip(names, seen, strict=True)]
    return {"merge": method, "parties": parties}


def _sizes(estimator: PathEstimator) -> list[int]:
    return [estimator.n_paths, estimator.in_features, estimator.out_features]


def _warn_of_equal(models: Sequence[Model], names: Sequence[str]) -> None:
    parts = [model.estimator if isinstance(model, GLAI) else model for model in models]
    for (i, first), (j, second) in itertools.combinations(enumerate(parts), 2):
        if equal_models(first, second):
            warnings.warn(
                f"merge: {names[i]} and {names[j]} are equal, and the samples of both count", stacklevel=3
            )


def _short(sha256: str | None) -> str:
    return "none" if sha256 is None else f"{sha256[:12]}…"
