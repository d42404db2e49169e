"""What each path of a network carries, so that an estimator can be given the network's own output."""

from __future__ import annotations

import torch
from torch import Tensor

from glai_native.structure.selector import PathSelector


def into_last_units(selector: PathSelector) -> tuple[Tensor, Tensor]:
    """Compute what each path carries into its last unit, in float64: weights over z ``[P, D]``, constants ``[P]``."""
    first_weight, first_bias = (tensor.double() for tensor in selector.hidden[0])
    # Per path so far, [..., h_l + 1]; the always-on unit is last.
    weight = torch.cat([first_weight, torch.zeros_like(first_weight[:1])])
    constant = torch.cat([first_bias, torch.ones_like(first_bias[:1])])
    for layer_weight, layer_bias in selector.hidden[1:]:
        step = with_constants(layer_weight.double(), layer_bias.double())
        step = torch.cat([step, torch.zeros_like(step[:1])])
        step[-1, -1] = 1.0  # always-on to always-on
        weight = weight.unsqueeze(-2) * step.T.unsqueeze(-1)
        constant = constant.unsqueeze(-1) * step.T
    return weight.flatten(0, -2), constant.flatten()


def with_constants(weight: Tensor, bias: Tensor) -> Tensor:
    """Return as ``[out, in + 1]`` what flows into each unit from the units before and from the always-on one."""
    return torch.cat([weight, bias.unsqueeze(1)], dim=1)
