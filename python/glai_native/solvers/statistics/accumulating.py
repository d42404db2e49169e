"""Statistics of data that do not fit in memory are added up here, and go on after a kill."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glai_native.data.canonical import count_repeats
from glai_native.data.checks import require_sample_weight, require_targets
from glai_native.data.counts import require_count
from glai_native.gates.packed import PackedGates
from glai_native.gates.store import GateStore
from glai_native.machine.files import crc32, shown
from glai_native.machine.inference import outside_inference_mode
from glai_native.machine.progress import epoch_progress
from glai_native.machine.writing import find_file, remove_leftovers, write_files
from glai_native.solvers.statistics.file import open_statistics
from glai_native.solvers.statistics.sums import PathStatistics


@outside_inference_mode
def accumulate(
    statistics: PathStatistics,
    x: Tensor | np.ndarray[Any, Any],
    gates: GateStore | PackedGates | None,
    targets: Tensor,
    sample_weight: Tensor | None = None,
    *,
    project: Callable[[Tensor], Tensor] | None = None,
    chunk: int = 16384,
    rows: slice | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    save_every: int = 8,
    progress: bool = True,
) -> PathStatistics:
    """Add samples chunk by chunk, so that x and gates may lie on disk.

    With ``checkpoint`` the statistics are saved every few chunks, and when all is done. Called again after a kill, with
    the same arguments, it goes on behind the last one saved and ends with the same bits. The file is one that
    :meth:`PathStatistics.load` reads. Of x only the first chunk is compared with that of the checkpoint.

    They are summed in a copy of ``statistics``, which is what it was until all are in: what fails, or is interrupted,
    adds nothing to it.

    Source: recursive least squares by blocks of samples (Plackett, 1950).

    Args:
        statistics: added to; as it was at the first call also where it goes on.
        x: z ``[N, D]``, a tensor or an array, memory-mapped or not; raw x with ``project``. Moved to the statistics'
            device as it is read, like the rest.
        gates: of the same N samples, stored unit bits or path gates; None for statistics of units.
        targets: class indices ``[N]``, or values ``[N, C]``.
        sample_weight: ``[N]``, >= 0, or None; as for :meth:`PathStatistics.update`.
        project: raw x to z, for instance ``selector.project``, or to unit features; None: x is as ``update`` takes it.
        chunk: samples that are read at a time. Bits depend on it.
        rows: which of the N samples, without a step; None: all. Of many processes each takes
            ``distributed.rank_rows(N)``, with a checkpoint of its own, and ``distributed.all_reduce`` sums.
        checkpoint: the file to save to and go on from; None: none.
        save_every: chunks between two saves.
        progress: show a bar.

    Returns:
        ``statistics``.

    Raises:
        ValueError: sizes that do not fit, or a checkpoint of other data or other statistics.
    """
    n = len(x)
    if gates is not None and len(gates) != n:
        raise ValueError(f"accumulate: gates must be of N={n} samples like x, got N={len(gates)}")
    chunk, save_every = (
        require_count("accumulate", name, value)
        for name, value in (("chunk", chunk), ("save_every", save_every))
    )
    targets = require_targets("accumulate", targets, n, statistics.out_features)
    sample_weight = require_sample_weight("accumulate", sample_weight, n)
    start, stop, step = (rows or slice(None)).indices(n)
    if step != 1:
        raise ValueError(f"accumulate: rows must be a slice without a step, got {rows}")
    job = {
        "rows": str(n) if rows is None else f"{start}:{stop} of {n}",
        "chunk": str(chunk),
        "samples_before": str(statistics.n_samples),
        "targets_crc32": str(crc32(targets)),
        "weights_crc32": "none" if sample_weight is None else str(crc32(sample_weight)),
        "x_crc32": str(crc32(_read(x, slice(start, min(start + chunk, stop))))),
    }
    path = None if checkpoint is None else Path(checkpoint)
    total, begin = statistics.copy(), start
    total._private = True
    if path is not None:
        remove_leftovers(path.parent, [path.name])
        if find_file(path) is not None:
            begin = _resume(path, total, job, sample_weight, slice(start, stop), chunk)
    device = statistics.device
    with epoch_progress(progress) as bar:
        task = bar.add_task("statistics", total=stop - start, completed=begin - start)
        for i, first in enumerate(range(begin, stop, chunk), start=1):
            here = slice(first, min(first + chunk, stop))
            part = _read(x, here).to(device)
            total.update(
                part if project is None else project(part),
                None if gates is None else _gates(gates, here).to(device),
                targets[here].to(device),
                None if sample_weight is None else sample_weight[here].to(device),
            )
            if path is not None and (i % save_every == 0 or here.stop == stop):
                write_files({path: total.to_bytes(next_row=str(here.stop), **job)})
            bar.update(task, completed=here.stop - start)
    statistics.become(total)
    return statistics


def _gates(gates: GateStore | PackedGates, rows: slice) -> PackedGates:
    return gates.batch(rows) if isinstance(gates, GateStore) else gates[rows]


def _read(x: Tensor | np.ndarray[Any, Any], rows: slice) -> Tensor:
    """Return rows of x, in memory."""
    return x[rows] if isinstance(x, Tensor) else torch.from_numpy(np.array(x[rows]))


def _resume(
    path: Path,
    statistics: PathStatistics,
    job: dict[str, str],
    sample_weight: Tensor | None,
    rows: slice,
    chunk: int,
) -> int:
    """Make ``statistics`` those of the checkpoint and return the first of ``rows`` that is not in them."""
    file = open_statistics(path)
    for name, value in job.items():
        found = file.metadata.get(name)
        if found != value:
            raise ValueError(
                f"accumulate: checkpoint {path} is of another job, {name} must be {value}, got {shown(found)}"
            )
    next_row = file.integer("next_row", rows.start, rows.stop)
    whole = next_row == rows.stop or (next_row - rows.start) % chunk == 0
    file.require("next_row", whole, f"the end of a chunk of {chunk} from row {rows.start} on")
    expected = statistics.n_samples
    for first in range(rows.start, next_row, chunk):
        here = slice(first, min(first + chunk, next_row))
        counts = None if sample_weight is None else count_repeats(sample_weight[here])
        expected += here.stop - here.start if counts is None else int(counts.sum())
    file.require(
        "n_samples", file.integer("n_samples") == expected, f"{expected}, those before row {next_row}"
    )
    statistics.restore(PathStatistics.from_file(file, statistics.structure_id))
    return next_row
