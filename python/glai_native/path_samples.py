"""Samples as statistics take them: checked, and widened a chunk at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from glai_native.gates import PackedGates, require_structure
from glai_native.projection import FLOATS, require_samples
from glai_native.targets import as_values, magnitude, require_finite, require_sample_weight, require_targets


@dataclass(frozen=True)
class PathSamples:
    """N samples, none of weight 0.

    Attributes:
        x: z ``[N, D]``, float32 or float64, finite.
        gates: their path gates ``[N, P]``.
        targets: int64 class indices ``[N]``, or values ``[N, C]``.
        weight: ``[N]``, > 0; None: 1 for each.
    """

    x: Tensor
    gates: PackedGates
    targets: Tensor
    weight: Tensor | None

    def __len__(self) -> int:
        return len(self.x)

    def require_range(self, owner: str, largest_sum: float, dtype: torch.dtype) -> None:
        """Refuses samples whose sums of squares could overflow: one such would be the end of all sums.

        Args:
            owner: who adds them, named in the error.
            largest_sum: of those that they are added to.
            dtype: of the sums.
        """
        values = [self.x, self.targets] if self.targets.is_floating_point() else [self.x]
        largest = max([1.0, *(magnitude(v) for v in values)])
        weight = 1.0 if self.weight is None else magnitude(self.weight)
        if not largest_sum + len(self) * weight * largest * largest < torch.finfo(dtype).max:
            name = str(dtype).removeprefix("torch.")
            raise ValueError(
                f"{owner}: x and targets must have weighted squares whose sums fit in {name}, got values up to "
                f"{largest:.3g} and weights up to {weight:.3g}"
            )

    def chunks(
        self, height: int, n_outputs: int, dtype: torch.dtype
    ) -> Iterator[tuple[Tensor, PackedGates, Tensor, Tensor | None]]:
        """``height`` samples at a time in ``dtype``; targets as values ``[n, C]``."""
        for begin in range(0, len(self), height):
            rows = slice(begin, begin + height)
            yield (
                self.x[rows].to(dtype),
                self.gates[rows],
                as_values(self.targets[rows], n_outputs, dtype),
                None if self.weight is None else self.weight[rows].to(dtype),
            )


def read_path_samples(
    owner: str,
    x: Tensor,
    gates: PackedGates,
    targets: Tensor,
    sample_weight: Tensor | None,
    sizes: tuple[int, int, int],
    device: torch.device,
    structure_id: str | None,
) -> PathSamples:
    """Refuses what are no samples of P paths, D features and C outputs, the ``sizes``; leaves out those of weight 0."""
    n_paths, in_features, n_outputs = sizes
    require_samples(owner, x, in_features)
    if x.dtype not in FLOATS:
        found = str(x.dtype).removeprefix("torch.")
        raise ValueError(f"{owner}: x must be float32 or float64 [N, D={in_features}], got {found}")
    if not isinstance(gates, PackedGates):
        raise TypeError(f"{owner}: gates must be PackedGates, got {type(gates).__name__}")
    if (len(gates), gates.n_gates) != (len(x), n_paths):
        raise ValueError(
            f"{owner}: gates must be of N={len(x)} samples and P={n_paths} paths, "
            f"got N={len(gates)} and P={gates.n_gates}"
        )
    if x.device != device:
        raise ValueError(f"{owner}: x must be on {device} like the statistics, got {x.device}")
    require_structure(owner, gates, structure_id)
    require_finite(owner, "x", x)
    targets = require_targets(owner, targets, len(x), n_outputs)
    sample_weight = require_sample_weight(owner, sample_weight, len(x))
    if sample_weight is not None and not bool(sample_weight.all()):
        # Cross-validation counts residuals: those that weigh nothing would make every fit look tested.
        keep = sample_weight > 0
        x, gates, targets, sample_weight = x[keep], gates[keep], targets[keep], sample_weight[keep]
    return PathSamples(x, gates, targets, sample_weight)
