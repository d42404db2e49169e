"""This file computes unit features: what the units of a structure's last hidden layer give, and z beside it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from glai_native.data.checks import require_samples
from glai_native.machine.precision import in_own_precision
from glai_native.machine.watching import is_watched
from glai_native.structure.selector import PathSelector

# Samples whose features are computed at a time, while they are in the cache.
BLOCK_ROWS = 1024


@in_own_precision
def unit_features(selector: PathSelector, z: Tensor) -> Tensor:
    """Compute what an estimator of units reads: the last hidden layer's output h, then z.

    Source: this project's (DESIGN section 2, "Units"); random ReLU features beside linear ones, as in analytic
    continual learning: RanPAC, arXiv 2307.02251.

    Args:
        selector: the frozen structure, of any depth; a pruned one keeps its units, whatever paths it has dropped.
        z: ``[N, D]`` of the network's dtype, as :meth:`PathSelector.project` gives it; differentiable.

    Returns:
        ``[N, h_L + D]`` of z's dtype.

    Raises:
        ValueError: z is of another width or dtype than the network's.
    """
    require_samples("unit_features", z, selector.z_features, "z")
    hidden = selector.hidden
    dtype = hidden[0][0].dtype
    if z.dtype != dtype:
        names = [str(d).removeprefix("torch.") for d in (dtype, z.dtype)]
        raise ValueError(
            f"unit_features: z must be {names[0]} like the network's weights, got {names[1]}; "
            "selector.project(x) makes it"
        )
    if is_watched(z) or (torch.is_grad_enabled() and z.requires_grad):
        return torch.cat([_layers(z, hidden), z], dim=1)
    features = z.new_empty((len(z), len(hidden[-1][0]) + z.shape[1]))
    with torch.no_grad():
        for rows, block in zip(features.split(BLOCK_ROWS), z.split(BLOCK_ROWS), strict=True):
            _write(rows, block, hidden)
    return features


def _layers(z: Tensor, hidden: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    activation = z
    for weight, bias in hidden:
        activation = nn.functional.linear(activation, weight, bias).relu()
    return activation


def _write(features: Tensor, z: Tensor, hidden: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Write the features of a block where they stay, so that nothing as large is made beside them."""
    *before, (weight, bias) = hidden
    units, inputs = features.split([len(weight), z.shape[1]], dim=1)
    torch.addmm(bias, _layers(z, before), weight.T, out=units)
    units.relu_()
    inputs.copy_(z)
