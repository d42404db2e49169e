"""Targets and weights of a path kernel's samples are kept here, by which others join them, and some leave."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glai_native.data.checks import all_finite, as_values
from glai_native.gates.packed import PackedGates
from glai_native.machine.files import TensorFile
from glai_native.solvers.dual.features import PathFeatures
from glai_native.solvers.samples import Samples
from glai_native.structure.projection import InputProjection
from glai_native.structure.selector import PathSelector

KINDS = ("none", "classes", "values")  # of targets, as a file says it
VERSIONS_WITHOUT = ("1", "2")  # of a file, which keep none
SHOWN = 10  # rows in an error
# Of a weight: what is less after a subtraction is its rounding, and weights given again may differ by so much.
ROUNDING, SLACK = 16 * float(np.finfo(np.float64).eps), 1e-9


@dataclass(frozen=True)
class KeptTargets:
    """What the centres were solved for, where every sample is one.

    Attributes:
        y: int64 class indices ``[M]``, or values ``[M, C]`` as they were learnt, in the dtype of z.
        weight: float64 ``[M]``, > 0; None: 1 each.
    """

    y: Tensor
    weight: Tensor | None

    @classmethod
    def of(cls, samples: Samples, rows: Tensor | None) -> KeptTargets:
        """Keep those of samples in the order of ``rows`` (None: their own)."""
        y, weight = samples.y, samples.weight
        if samples.has_values:
            y = as_values(y, samples.n_outputs, samples.z.dtype)
        if rows is not None:
            return cls(y[rows], None if weight is None else weight[rows].double())
        # Copies: the caller's own may change.
        return cls(y.clone(), None if weight is None else weight.double().clone())

    @property
    def has_values(self) -> bool:
        """Whether the targets are values, not class indices."""
        return self.y.is_floating_point()

    def permuted(self, order: Tensor) -> KeptTargets:
        """Return the same targets for outputs of which i is what ``order[i]`` was."""
        order = order.to(self.y.device)
        return KeptTargets(self.y[:, order] if self.has_values else order.argsort()[self.y], self.weight)


def kept_to_state(kept: KeptTargets | None) -> tuple[dict[str, Tensor], str]:
    """Return the tensors that a file keeps, and what kind of targets they are."""
    if kept is None:
        return {}, KINDS[0]
    state = {"y": kept.y} | ({} if kept.weight is None else {"weight": kept.weight})
    return state, KINDS[1 + kept.has_values]


def read_kept(file: TensorFile, z: Tensor, n_outputs: int) -> KeptTargets | None:
    """Return what a file keeps of targets; None: nothing, as files before version 3.

    Raises:
        ValueError: it is not of M samples, or no targets and weights; the file is named.
    """
    if file.metadata.get("version") in VERSIONS_WITHOUT:
        return None
    kind = file.metadata.get("targets")
    file.require("targets", kind in KINDS, "none, classes or values")
    if kind == KINDS[0]:
        return None
    n, weight = len(z), None
    if kind == "classes":
        y = file.tensor("y", (torch.int64,), (n,)).clone()
        sound = not n or 0 <= int(y.min()) <= int(y.max()) < n_outputs
    else:
        y = file.tensor("y", (z.dtype,), (n, n_outputs)).clone()
        sound = not y.numel() or all_finite(y)
    if "weight" in file:
        weight = file.tensor("weight", (torch.float64,), (n,)).clone()
        sound = sound and (not n or (math.isfinite(float(weight.sum())) and bool((weight > 0).all())))
    if not sound:
        raise ValueError(
            f"{file.path}: tensors 'y' and 'weight' must be of C={n_outputs} outputs and weights > 0, got others"
        )
    return KeptTargets(y, weight)


def mean_diagonal(features: PathFeatures, weight: Tensor | None) -> float:
    """Return the mean of the kernel's diagonal, k(n, n), weighted by ``[N]``."""
    diagonal = features.z.double().square().sum(1) + 1
    for layer in features.layers:
        diagonal *= layer.unpack().sum(1) + 1
    weight = torch.ones_like(diagonal) if weight is None else weight.to(diagonal)
    return float((diagonal * weight).sum() / weight.sum())


def joined(centres: PathFeatures, kept: KeptTargets, new: Samples) -> Samples:
    """Return the centres and new samples, which have as many outputs or more; equal ones are one."""
    values = as_values(new.y, new.n_outputs, new.z.dtype) if new.has_values else new.y
    weight = None
    if kept.weight is not None or new.weight is not None:
        weights = _weights(kept.weight, len(centres)), _weights(new.weight, len(new))
        weight = torch.cat(weights).to(new.z.device)
    samples = Samples(
        torch.cat([centres.z, new.z]),
        torch.cat([kept.y, values]),
        new.n_outputs,
        weight,
        layers=[PackedGates.cat(pair) for pair in zip(centres.layers, new.layers, strict=True)],
    )
    return samples.canonical()


def _weights(weight: Tensor | None, n: int) -> Tensor:
    return torch.ones(n, dtype=torch.float64) if weight is None else weight.double().cpu()


def without(
    owner: str,
    centres: PathFeatures,
    kept: KeptTargets,
    z: Tensor,
    y: Tensor,
    n_outputs: int,
    weight: Tensor | None = None,
    rounding: Tensor | None = None,
) -> Samples:
    """Return the centres that are left when samples are gone, each by its weight.

    Args:
        owner: who is asked, named in the error.
        centres: M samples, of which ``kept`` tells targets and weights.
        kept: those.
        z: projected samples ``[N, D]`` that go.
        y: their targets, as ``kept`` has them.
        n_outputs: C.
        weight: ``[N]``, >= 0; None: 1 each.
        rounding: float64 ``[N]``, by how much z of equal samples may differ; None: not at all.

    Raises:
        ValueError: some are not there, or not so often, by row; or none are left, or of one class.
    """
    left = _weights(kept.weight, len(centres)).numpy().copy()
    places: dict[bytes, list[int]] = {}
    for place, key in enumerate(_contents(centres.z, kept.y)):
        places.setdefault(key, []).append(place)
    missing = []
    amounts: list[float] = _weights(weight, len(z)).tolist()
    for row, key in enumerate(_contents(z, y)):
        wanted = amounts[row]
        found = places.get(key, [])
        if rounding is not None and left[found].sum() < wanted:
            near = _near(centres.z, kept.y, z[row], y[row], float(rounding[row]))
            found = found + [place for place in near if place not in found]
        if not _take(left, found, wanted):
            missing.append(row)
    if missing:
        listed = ", ".join(map(str, missing[:SHOWN])) + (", …" if len(missing) > SHOWN else "")
        weighted = "" if weight is None and kept.weight is None else "; weights are as they were learnt"
        raise ValueError(
            f"{owner}: the samples must be among those that were learnt, got {len(missing):,} that are not, or not so "
            f"often, in row{'s' * (len(missing) > 1)} {listed}; nothing was taken out{weighted}"
        )
    rows = torch.from_numpy(left.nonzero()[0]).to(centres.z.device)
    _require_rest(owner, kept, rows)
    weights = torch.from_numpy(left[left > 0])
    part = centres[rows]
    samples = Samples(
        part.z,
        kept.y[rows],
        n_outputs,
        None if bool((weights == 1).all()) else weights.to(centres.z.device),
        layers=part.layers,
    )
    return samples.canonical()


def _require_rest(owner: str, kept: KeptTargets, rows: Tensor) -> None:
    if not len(rows):
        raise ValueError(f"{owner}: at least one sample must be left, got all; nothing was taken out")
    if not kept.has_values and len(kept.y[rows].unique()) < 2:
        raise ValueError(
            f"{owner}: samples of at least 2 classes must be left, got all of the others; nothing was taken out"
        )


def _take(left: NDArray[np.float64], places: list[int], wanted: float) -> bool:
    """Take a weight from what is left at places, in their order; return whether there was so much."""
    short = wanted
    for place in places:
        taken = min(short, left[place])
        rest = left[place] - taken
        left[place], short = (0.0 if rest <= ROUNDING * left[place] else rest), short - taken
    return short <= SLACK * wanted


def _contents(z: Tensor, y: Tensor) -> Iterator[bytes]:
    """Yield each sample's z and target as bytes, of which equal ones are equal: zeros have no sign."""
    rows = [(part + 0).cpu().contiguous().numpy() for part in (z, y)]
    for one, target in zip(*rows, strict=True):
        yield one.tobytes() + target.tobytes()


def _near(z: Tensor, y: Tensor, one: Tensor, target: Tensor, rounding: float) -> list[int]:
    """Return which samples of the same target differ from one by rounding alone, the nearest first."""
    same = (y == target if y.ndim == 1 else (y == target).all(1)).nonzero()[:, 0]
    distance = (z[same].double() - one.double()).abs().amax(1)
    order = distance.argsort()
    return list(same[order[: int((distance <= rounding).sum())]].tolist())


def rounding_of(selector: PathSelector, x: Tensor, z: Tensor) -> Tensor | None:
    """Return by how much z of x ``[N, in_features]`` may differ from z of the same x among others; None: not at all.

    A rotation is a matrix product, whose last bits depend on the rows beside one.
    """
    projection = selector.projection
    if not isinstance(projection, InputProjection) or projection.rotation is None:
        return None
    assert projection.mean is not None
    assert projection.scale is not None
    # Two products of unit columns, each within the bound that the tests hold ours to.
    bound = 2 * torch.finfo(z.dtype).eps * (8 + math.sqrt(x.shape[1])) * float(projection.scale.abs())
    rounding: Tensor = bound * (x.double() - projection.mean.double()).norm(dim=1)
    return rounding
