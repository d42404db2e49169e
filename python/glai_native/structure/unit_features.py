"""This file computes unit features: what the units of a structure's last hidden layer give, and z beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glai_native.data.checks import require_samples
from glai_native.machine.precision import in_own_precision
from glai_native.structure.selector import PathSelector


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
    activation = z
    for weight, bias in hidden:
        activation = nn.functional.linear(activation, weight, bias).relu()
    return torch.cat([activation, z], dim=1)
