"""Samples are added here to the sums of statistics, or taken out of them."""

from __future__ import annotations

import torch

from glai_native.machine.memory import require_memory
from glai_native.ops.gated_matmul import gated_matmul_weight_grad
from glai_native.ops.path_matrices import path_gram
from glai_native.solvers.samples import Samples
from glai_native.solvers.statistics.unknowns import PathSums

# Samples that are widened to the statistics' dtype at a time; a multiple of what path_gram takes in one pass.
CHUNK_ROWS = 4 * 4096


def require_memory_of_sums(
    n_paths: int, in_features: int, out_features: int, dtype: torch.dtype, device: torch.device
) -> None:
    """Raise MemoryError, before they are made, where the sums of such an estimator take more than there is."""
    size = n_paths * (in_features + 1)
    require_memory(
        "PathStatistics",
        f"the gram matrix of P={n_paths} paths over D={in_features} features, {size:,} squared,",
        size * size * dtype.itemsize,
        device,
        "use fewer paths, or project z to fewer components",
    )
    require_memory(
        "PathStatistics",
        f"the sums of {size:,} path features for C={out_features:,} outputs",
        size * out_features * dtype.itemsize,
        device,
        "number classes 0, 1, ... without gaps",
    )


@torch.no_grad()
def add_samples(sums: PathSums, samples: Samples, sign: int) -> None:
    """Add samples ``sign`` times, 1 or -1, in place, to all but the counts; what fails leaves a part of them there."""
    for z, part, values, weight in samples.chunks(CHUNK_ROWS, sums.gram.dtype):
        if sign < 0:
            weight = -(z.new_ones(len(z)) if weight is None else weight)
        features = torch.cat([z, z.new_ones((len(z), 1))], dim=1)
        weighted = values if weight is None else values * weight.unsqueeze(1)
        path_gram(features[:, :-1], part, weight, out=sums.gram)
        gated_matmul_weight_grad(features, part, weighted, out=sums.rhs, accumulate=True)
        sums.squares.add_((weighted * values).sum(0))
