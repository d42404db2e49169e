"""Samples of integer statistics are checked here, and handed on in chunks of features."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glai_native.data.checks import require_dense
from glai_native.data.labels import Label
from glai_native.solvers.exact.ledger import hash_samples, read_ids
from glai_native.solvers.exact.targets import FixedPoint, as_tensor, read_classes, read_values
from glai_native.structure.integer_checks import as_samples
from glai_native.structure.integer_features import IntegerFeatures

# Features that exist at a time, in bytes, within these numbers of rows: a call adds to the whole gram matrix.
CHUNK_BYTES = 1 << 23
CHUNK_ROWS = (1024, 16384)
# A sample's weight repeats it; of more repetitions nobody has need, and they cost as so many samples.
MOST_REPEATS = (1 << 16) - 1

Ids = Sequence[int] | Sequence[str] | np.ndarray[Any, Any] | Tensor


@dataclass(frozen=True, eq=False)
class IntegerSamples:
    """Checked samples.

    Attributes:
        features: their map.
        source: raw x, float32 ``[N, D]``, or features, uint8 ``[N, M]``.
        targets: int64, classes ``[N]`` or fixed-point values ``[N, C]``.
        repeats: int64 ``[N]``, > 0; None: 1 each.
        ids: int64 or texts ``[N]``; None: no sample has one.
        rows: int64 ``[N]``, which rows of the caller's they are; None: all, in order.
    """

    features: IntegerFeatures
    source: Tensor
    targets: Tensor
    repeats: Tensor | None
    ids: np.ndarray[Any, Any] | None
    rows: Tensor | None = None

    @property
    def total(self) -> int:
        """How many samples they are, repetitions included."""
        return len(self.source) if self.repeats is None else int(self.repeats.sum())

    def of_positive_weight(self) -> IntegerSamples:
        """Leave out samples of weight 0."""
        if self.repeats is None or bool((self.repeats > 0).all()):
            return self
        rows = self.repeats.nonzero().squeeze(1)
        source = self.source[rows.to(self.source.device)]
        ids = None if self.ids is None else self.ids[rows.numpy()]
        return replace(
            self, source=source, targets=self.targets[rows], repeats=self.repeats[rows], ids=ids, rows=rows
        )

    def chunks(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield features uint8 ``[n, M]`` and targets, each sample as often as it counts."""
        height = min(max(CHUNK_BYTES // self.features.n_features, CHUNK_ROWS[0]), CHUNK_ROWS[1])
        for begin in range(0, len(self.source), height):
            part = slice(begin, begin + height)
            phi = self.mapped(part, device)
            targets = self.targets[part].to(device)
            if self.repeats is None:
                yield phi, targets
                continue
            index = torch.repeat_interleave(self.repeats[part]).to(device)
            for rows in index.split(height):
                yield phi[rows], targets[rows]

    def mapped(self, rows: slice, device: torch.device | None = None) -> Tensor:
        """Return features uint8 ``[n, M]`` of some rows, on the device where they lie, or another."""
        phi = self.source[rows].to(device)
        return phi if phi.dtype == torch.uint8 else self.features.transform(phi)

    def entries(self, names: Sequence[Label] | None) -> tuple[np.ndarray[Any, Any], Any, Tensor | None]:
        """Return what a ledger knows: hash and id of each sample, as often as it counts, and the caller's rows.

        Args:
            names: of the classes, labels or indices; None: targets are values.
        """
        if names is None:
            texts = [row.tobytes() for row in self.targets.numpy().astype("<i8")]
        else:
            named = [json.dumps(one).encode() for one in names]
            texts = [named[c] for c in self.targets.tolist()]
        hashes = hash_samples(self._inputs(), texts)
        if self.repeats is None:
            return hashes, self.ids, self.rows
        times = self.repeats.numpy()
        rows = torch.arange(len(self.source), device="cpu") if self.rows is None else self.rows
        ids = None if self.ids is None else self.ids.repeat(times)
        return hashes.repeat(times), ids, rows.repeat_interleave(self.repeats)

    def _inputs(self) -> Tensor:
        """Return q + 64 uint8 ``[N, D]`` on the CPU, what a sample is known by."""
        if self.source.dtype == torch.uint8:
            return self.source[:, self.features.n_units : -1].cpu()
        return self.features.inputs(self.source)


@dataclass(frozen=True, eq=False)
class Given:
    """Samples as a caller gives them: raw x, or features where they are ``mapped``."""

    source: Any
    targets: Any
    sample_weight: Any
    ids: Any
    mapped: bool = False

    def checked(
        self, owner: str, features: IntegerFeatures, kind: str, n_outputs: int, point: FixedPoint | None
    ) -> tuple[IntegerSamples, FixedPoint | None]:
        """Return samples that can be added up, and how their values are kept, told here where nobody has told it.

        Raises:
            ValueError: by row where one is at fault.
        """
        read = read_features(owner, self.source, features) if self.mapped else None
        source = as_samples(owner, self.source, features.in_features) if read is None else read
        n = len(source)
        repeats, ids = read_repeats(owner, self.sample_weight, n), read_ids(owner, self.ids, n)
        if kind == "classes":
            whole = read_classes(owner, self.targets, n, n_outputs).cpu()
        else:
            values = read_values(owner, self.targets, n, n_outputs)
            counts = torch.ones(n, dtype=torch.bool, device="cpu") if repeats is None else repeats > 0
            if point is None and bool(counts.any()):
                point = FixedPoint.of_first(values, repeats)
            if point is None:
                whole = values.new_zeros(values.shape, dtype=torch.int64)
            else:  # what does not count may pass the range
                whole = point.whole(owner, values.where(counts.unsqueeze(1), point.centre))
        return IntegerSamples(features, source, whole, repeats, ids).of_positive_weight(), point


def read_features(owner: str, phi: Tensor, features: IntegerFeatures) -> Tensor:
    """Return features uint8 ``[N, M]``; raise unless they can be those of the map."""
    width = features.n_features
    if not isinstance(phi, Tensor):
        raise TypeError(f"{owner}: features must be a torch.Tensor, got {type(phi).__name__}")
    require_dense(owner, "features", phi)
    if phi.dtype != torch.uint8 or phi.ndim != 2 or phi.shape[1] != width:
        found = f"{str(phi.dtype).removeprefix('torch.')} {list(phi.shape)}"
        raise ValueError(f"{owner}: features must be uint8 [N, M={width}], got {found}")
    if phi.numel():
        if int(phi.max()) > 127 or not bool((phi[:, -1] == 127).all()):
            raise ValueError(f"{owner}: features must be 0 to 127 with the constant 127 in the last column")
        if not int(phi[:, features.n_units : -1].min()) > 0:
            raise ValueError(f"{owner}: features must hold q + 64, from 1 on, in the columns of the inputs")
    return phi


def read_repeats(owner: str, weight: Tensor | np.ndarray[Any, Any] | None, n_samples: int) -> Tensor | None:
    """Return weights as int64 ``[N]``; raise, by row, unless they are integers >= 0; None: 1 each."""
    if weight is None:
        return None
    weight = as_tensor(weight)  # type: ignore[arg-type]
    if not isinstance(weight, Tensor):
        raise TypeError(f"{owner}: sample_weight must be a torch.Tensor, got {type(weight).__name__}")
    require_dense(owner, "sample_weight", weight)
    if weight.shape != (n_samples,) or weight.is_complex():
        raise ValueError(f"{owner}: sample_weight must be [N={n_samples}], got {list(weight.shape)}")
    weight = weight.detach().cpu()
    fits = (weight >= 0) & (weight <= MOST_REPEATS)
    if weight.is_floating_point():
        fits &= weight == weight.floor()
    if not bool(fits.all()):
        row = int((~fits).nonzero()[0])
        raise ValueError(
            f"{owner}: sample_weight must be integers from 0 to {MOST_REPEATS:,}, repetitions of a sample, got "
            f"{weight[row].item()} in row {row}"
        )
    return weight.long()
