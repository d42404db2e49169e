"""This module gives a network's own numbers to an estimator, so that their outputs are equal."""

from __future__ import annotations

import torch
from torch import Tensor

from glai_native.estimator.directions import scale_of_own_directions
from glai_native.structure.selector import PathSelector


def own_parameters(
    selector: PathSelector, directions: Tensor | None, *, units: bool = False
) -> dict[str, Tensor]:
    """Compute the parameters of the estimator whose output is the network's own, by name; those left out are 0.

    Args:
        selector: one that has its output layer.
        directions: V ``[P, C]``; None: full paths, or units.
        units: the estimator reads unit features.

    Raises:
        ValueError: the directions are not the network's own, along which it cannot be given.
    """
    assert selector.output is not None
    output_weight, output_bias = selector.output
    if units:
        weight = torch.cat(
            [output_weight.T, output_weight.new_zeros((selector.z_features, len(output_weight)))]
        )
        return {"weight": weight.unsqueeze(0), "bias": output_bias.unsqueeze(0)}
    scale = None if directions is None else scale_of_own_directions(selector, directions)
    if directions is not None and scale is None:
        raise ValueError(
            "PathEstimator.from_selector: directions must be the network's own, output_directions(selector); "
            "along others it cannot be given, PathEstimator(..., directions) starts from zeros"
        )
    carried, constant = into_last_units(selector)
    if scale is not None:
        constant[-1] = 0.0  # path P-1 has its own
        return {"u": carried / scale, "beta": constant / scale, "constant_bias": output_bias}
    step = with_constants(output_weight.double(), output_bias.double())  # [C, h_L + 1]
    step = step.T.repeat(selector.n_paths // step.shape[1], 1)  # [P, C]
    return {"weight": carried.unsqueeze(2) * step.unsqueeze(1), "bias": constant.unsqueeze(1) * step}


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
