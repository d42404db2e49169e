"""Samples that are trained on are read here as they come: a tensor whole, a large memory map some rows at a time."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from glai_native.data.stored_rows import StoredRows
from glai_native.gates.packed import PackedGates
from glai_native.solvers.samples import Samples
from glai_native.solvers.streamed import StreamedSamples
from glai_native.structure.selector import PathSelector

# What stays where it is stored.
Stored = StoredRows | np.memmap
# Up to here a memory map is read whole.
WHOLE_BYTES = 1 << 25


# Of samples that are not in memory, features of the part that a structure is trained on, and how many at least.
PART_BYTES, PART_SAMPLES = 1 << 25, 1 << 15


def read_part(x: Stored, rows: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return a part of features that are not in memory, drawn from ``rows``, and which rows of x it is, in order."""
    stored = x if isinstance(x, StoredRows) else StoredRows("train_selector", x)
    most = max(PART_SAMPLES, PART_BYTES // (4 * stored.n_features))
    if len(rows) > most:
        random = torch.Generator().manual_seed(seed)
        rows = rows[torch.randperm(len(rows), generator=random, device="cpu")[:most]].sort().values
    return stored.read(rows.numpy()), rows


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
    centred_in = selector.projection.centred_in
    rows = x if isinstance(x, StoredRows) else StoredRows(owner, x)
    rows = rows.as_floats(centred_in)
    if rows.n_bytes <= WHOLE_BYTES:
        whole = rows.read(slice(None))
        return Samples.of_raw(owner, selector, whole, y, n_outputs, None, weight, of_units=of_units)
    return StreamedSamples.of_raw(owner, selector, rows, y, n_outputs, weight)
