"""A structure is trained on features that need not fit in memory, a window of them at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glai_native.data.checks import require_finite, require_targets, scale_sample_weight
from glai_native.data.stored_rows import StoredRows, Window
from glai_native.structure.projection import InputProjection
from glai_native.structure.selector import PathSelector
from glai_native.structure.settling import PROBE_SAMPLES, HeldOut, StructureMonitor, settle
from glai_native.structure.steps import Batches, network_steps

BATCH = 128  # as train_structure's


def train_stored_structure(
    mlp: nn.Sequential,
    x: StoredRows,
    y: Tensor,
    projection: InputProjection,
    monitor: StructureMonitor,
    *,
    learning_rate: float,
    sample_weight: Tensor | None,
    validation: tuple[Tensor, ...] | None,
    seed: int,
    progress: bool,
) -> PathSelector:
    """Train a network as :func:`train_structure` does, which joins equal samples, as this does not.

    Args:
        mlp: as there; reads z, on the CPU.
        x: raw features of N rows, read once an epoch.
        y: class indices ``[N]``, or values ``[N, C]``.
        projection: raw x to z.
        monitor: new.
        learning_rate: Adam's.
        sample_weight: ``[N]``, > 0; None: 1 each.
        validation: as there.
        seed: as there.
        progress: show a bar.

    Raises:
        ValueError: data that do not fit each other or the network, or are not finite.
    """
    dtype = next(mlp.parameters()).dtype
    n_outputs = list(mlp.parameters())[-1].shape[0]
    y = require_targets("train_structure", y, len(x), n_outputs, name="y")
    weight = (
        None if sample_weight is None else scale_sample_weight("train_structure", sample_weight).to(dtype)
    )
    x = x.as_floats(projection.centred_in)

    def projected(rows: Tensor) -> Tensor:
        z: Tensor = projection(rows).to(dtype)
        require_finite("train_structure", "x", z)
        return z

    held_out = None if validation is None else HeldOut.of(projection, n_outputs, dtype, *validation)
    generator = torch.Generator().manual_seed(seed)
    seen = torch.randperm(len(x), generator=generator, device="cpu")[:PROBE_SAMPLES].sort().values
    probe = projected(x.read(seen.numpy()))
    rows = min(BATCH, len(x))
    steps = network_steps(mlp, probe, rows, learning_rate)

    def batches(window: Window) -> Batches:
        of = window.rows
        return Batches(projected(window.x), y[of], None if weight is None else weight[of], window.order)

    settle(
        mlp,
        lambda: steps.run_epoch(map(batches, x.windows(generator, rows)), len(x)),
        probe,
        None if weight is None else weight[seen],
        held_out,
        monitor,
        progress,
    )
    return PathSelector(mlp, projection)
