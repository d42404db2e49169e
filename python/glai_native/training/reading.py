"""Samples that are trained on are read here as they come: a tensor whole, a large memory map some rows at a time."""

from __future__ import annotations

from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor

from glai_native.data.checks import count_outputs, require_sample_weight, require_samples
from glai_native.data.stored_rows import MOST_BYTES, StoredRows
from glai_native.gates.packed import PackedGates
from glai_native.solvers.choice import DUAL_SAMPLES
from glai_native.solvers.samples import Samples
from glai_native.solvers.streamed import StreamedSamples
from glai_native.structure.selector import PathSelector
from glai_native.training.numbering import Numbering

# What stays where it is stored.
Stored = StoredRows | np.memmap
# Up to here a memory map is read whole; twice as much of samples so few that the dual, which needs all, may be tried.
WHOLE_BYTES = 1 << 25
# Numbers of a chunk behind which what was freed is given back, which takes milliseconds.
LARGE_CHUNK = 1 << 18
# Of features that are not in memory, the part that settles a projection, and how many samples of it at least.
PART_BYTES, PART_SAMPLES = 1 << 23, 1 << 14


def stored_rows(owner: str, x: Stored) -> StoredRows:
    """Return features that stay where they are stored."""
    return x if isinstance(x, StoredRows) else StoredRows(owner, x)


def stored_or_whole(x: StoredRows) -> Tensor | StoredRows:
    """Return features in memory where they are few; structure and numbers see the same samples held out so."""
    return x if _is_large(*x.shape) else x.read(slice(None))


def read_part(x: StoredRows, seed: int) -> tuple[Tensor, Tensor]:
    """Return features of some rows, drawn, and which they are, in order."""
    most = max(min(PART_SAMPLES, MOST_BYTES // (4 * x.n_features)), PART_BYTES // (4 * x.n_features), 1)
    random = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(x), generator=random, device="cpu")[:most].sort().values
    return x.read(rows.numpy()), rows


def rows_of(x: Tensor | StoredRows, rows: Tensor) -> Tensor:
    """Return some rows of features, in memory."""
    return x[rows] if isinstance(x, Tensor) else x.read(rows.numpy())


def part_of(x: Tensor | StoredRows, rows: Tensor) -> Tensor | StoredRows:
    """Return some rows of features, those in memory where they are."""
    return x[rows] if isinstance(x, Tensor) else x.part(rows.numpy())


def stays_stored(x: object) -> TypeGuard[np.memmap]:
    """Return whether x is a memory map that is not read whole."""
    return isinstance(x, np.memmap) and x.ndim == 2 and _is_large(*x.shape)


def _is_large(n_samples: int, n_features: int) -> bool:
    """Return whether features are left where they are stored."""
    return 4 * n_samples * n_features > WHOLE_BYTES * (2 if n_samples <= DUAL_SAMPLES else 1)


def read_samples(
    owner: str,
    selector: PathSelector,
    x: Tensor | Stored,
    y: Tensor,
    n_outputs: int,
    gates: PackedGates | None = None,
    weight: Tensor | None = None,
    *,
    of_units: bool = False,
) -> Samples | StreamedSamples:
    """Read raw x ``[N, in_features]`` and what belongs to it, as :meth:`Samples.of_raw`.

    Raises:
        ValueError: data that do not fit each other or the structure; ``owner`` is named in the error.
    """
    if isinstance(x, Tensor):
        return Samples.of_raw(owner, selector, x, y, n_outputs, gates, weight, of_units=of_units)
    if gates is not None:
        raise ValueError(
            f"{owner}: gates must be None with x that is not in memory, they are computed from it"
        )
    rows = stored_or_whole(stored_rows(owner, x).as_floats(selector.projection.centred_in))
    if isinstance(rows, Tensor):
        return Samples.of_raw(owner, selector, rows, y, n_outputs, None, weight, of_units=of_units)
    samples = StreamedSamples.of_raw(owner, selector, rows, y, n_outputs, weight)
    return samples.units() if of_units else samples


def read_chunk(
    selector: PathSelector, chunk: tuple[Tensor, ...], numbering: Numbering, known: int, units: bool
) -> Samples | None:
    """Return a chunk's samples, of ``known`` outputs or, where there are new classes, more; None: all weigh nothing."""
    if not isinstance(chunk, tuple | list) or len(chunk) not in (2, 3):
        raise ValueError(f"must be (x, y), which a sample_weight may follow, got {type(chunk).__name__}")
    x, targets, *weights = chunk
    require_samples("fit", x, selector.in_features)
    weight = require_sample_weight("fit", weights[0] if weights else None, len(x))
    if weight is not None and not bool(weight.any()):
        return None
    y = numbering(targets)
    n_outputs = max(count_outputs("fit", y, weight), len(numbering.labels or ()))
    if known:  # only classes may come later
        values = isinstance(y, Tensor) and y.is_floating_point()
        n_outputs = known if values else max(known, n_outputs)
    numbering.with_outputs(n_outputs)  # refused before the rest is read
    return Samples.of_raw("fit", selector, x, y, n_outputs, weight=weight, of_units=units)
