"""Merging linear models of one structure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

from glai_native.estimator import PathEstimator
from glai_native.model import GLAI

Model = TypeVar("Model", GLAI, PathEstimator)

METHODS = ("samples",)


def merge(models: Sequence[Model], method: str = "samples") -> Model:
    """One model from several that were trained on different data with the same structure.

    Args:
        models: all :class:`GLAI` or all :class:`PathEstimator`, at least one.
        method: ``"samples"``: weights averaged by the samples each has seen (``PathEstimator.record``).

    Returns:
        A new model of the same kind; its counts are the sums.

    Raises:
        ValueError: different structures, output directions or sizes, full paths beside directions, an unknown method,
            or no samples recorded.
    """
    if method not in METHODS:
        raise ValueError(f"merge: method must be one of {', '.join(METHODS)}, got {method!r}")
    if isinstance(models, nn.Module):
        raise TypeError(f"merge: models must be a sequence of models, got one {type(models).__name__}")
    if not models:
        raise ValueError("merge: models must hold at least one model, got none")
    kinds = {type(model) for model in models}
    if len(kinds) != 1 or not isinstance(models[0], (GLAI, PathEstimator)):
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise TypeError(f"merge: models must be all GLAI or all PathEstimator, got {names}")
    if isinstance(models[0], GLAI):
        estimator = _merge_estimators([model.estimator for model in models])
        return GLAI(models[0].selector, estimator)
    return _merge_estimators(models)


@torch.no_grad()
def _merge_estimators(estimators: Sequence[PathEstimator]) -> PathEstimator:
    first = estimators[0]
    if first.structure_id is None:
        raise ValueError(
            "merge: model 0 states no structure_id, so that it cannot be told whose paths it weighs"
        )
    for i, other in enumerate(estimators):
        if other.structure_id != first.structure_id:
            raise ValueError(
                f"merge: models must share one structure, model 0 has structure_id {_short(first.structure_id)} "
                f"and model {i} has {_short(other.structure_id)}"
            )
        if _sizes(other) != _sizes(first) or other.dtype != first.dtype:
            raise ValueError(
                f"merge: weights must be {first.dtype} {_sizes(first)} like model 0's, "
                f"model {i} has {other.dtype} {_sizes(other)}"
            )
        if other.directions_id != first.directions_id:
            raise ValueError(
                f"merge: models must share their output directions, model 0 has directions_id "
                f"{_short(first.directions_id)} and model {i} has {_short(other.directions_id)}"
            )
    seen = [int(estimator.samples_seen) for estimator in estimators]
    total = sum(seen)
    if total == 0:
        raise ValueError(
            "merge: no model has samples recorded, call estimator.record(gates, targets) for the data of each"
        )
    merged = PathEstimator(
        first.n_paths,
        first.in_features,
        first.out_features,
        first.directions,
        structure_id=first.structure_id,
        dtype=first.dtype,
    ).to(first.on_counts.device)
    # In float64, so that the order of the models does not show beyond the last rounding.
    for name, parameter in merged.named_parameters():
        average = torch.zeros_like(parameter, dtype=torch.float64)
        for estimator, n in zip(estimators, seen, strict=True):
            average += estimator.get_parameter(name).double() * (n / total)
        parameter.copy_(average)
    merged.samples_seen.fill_(total)
    for estimator in estimators:
        merged.on_counts += estimator.on_counts
    return merged


def _sizes(estimator: PathEstimator) -> list[int]:
    return [estimator.n_paths, estimator.in_features, estimator.out_features]


def _short(sha256: str | None) -> str:
    return "none" if sha256 is None else f"{sha256[:12]}…"
