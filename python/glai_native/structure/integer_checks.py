"""What a map of integer features is made from and reads is checked here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glai_native.data.arrays import array_tensor
from glai_native.data.checks import all_finite, require_samples
from glai_native.data.counts import require_count, require_seed
from glai_native.ops.integer_sums import IntegerLayer
from glai_native.structure.centring import SCALES
from glai_native.structure.integer_layers import (
    MOST_INPUT,
    MOST_MULTIPLIER,
    MOST_SHIFT,
    MOST_SUM,
    MOST_UNIT,
    MOST_WEIGHT,
    require_fan_in,
)
from glai_native.structure.selector import PathSelector


def require_kind(
    owner: str,
    n_units: int | None,
    selector: PathSelector | None,
    seed: int,
    scale: str,
    weights: str = "random",
) -> tuple[int | None, int]:
    """Raise unless the kind of map can be made; return n_units and seed as integers."""
    if scale not in SCALES:
        named = ", ".join(map(repr, SCALES))
        raise ValueError(f"{owner}: scale must be one of {named}, got {scale!r}")
    if weights not in ("random", "covariance"):
        raise ValueError(f"{owner}: weights must be 'random' or 'covariance', got {weights!r:.80}")
    if selector is not None and not isinstance(selector, PathSelector):
        raise TypeError(f"{owner}: selector must be a PathSelector, got {type(selector).__name__}")
    if selector is None or n_units is not None:
        n_units = require_count(owner, "n_units", n_units)
    if selector is not None and n_units not in (None, selector.widths[-1]):
        raise ValueError(
            f"{owner}: n_units must be the {selector.widths[-1]} of the selector's last layer, got {n_units}"
        )
    return n_units, require_seed(owner, seed)


def as_samples(owner: str, x: Tensor | np.ndarray[Any, Any], in_features: int) -> Tensor:
    """Return x ``[N, D]`` of any real type as float32, rounded to nearest.

    Raises:
        ValueError: another shape, or NaN or infinite values, by row and column; also those that float32 cannot hold.
    """
    if isinstance(x, np.ndarray) and x.dtype.kind in "buif":
        x = array_tensor(x.astype(np.float32, copy=False))
    if not isinstance(x, Tensor) or x.is_complex():
        found = x.dtype if isinstance(x, Tensor | np.ndarray) else type(x).__name__
        raise TypeError(f"{owner}: x must be a tensor or array of real numbers, got {found}")
    require_samples(owner, x, in_features)
    x = x.detach().to(torch.float32).contiguous()
    if x.numel() and not all_finite(x):
        row, column = (~torch.isfinite(x)).nonzero()[0].tolist()
        raise ValueError(
            f"{owner}: x must be finite float32 numbers, got {float(x[row, column])} in row {row}, column {column}"
        )
    return x


def as_frozen(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor of one's own on the CPU, of the type that it must have."""
    if not isinstance(tensor, Tensor) or tensor.dtype != dtype:
        found = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise ValueError(f"IntegerFeatures: numbers must be {dtype}, got {found}")
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def require_sound(mean: Tensor, scale: Tensor, layers: Sequence[IntegerLayer]) -> None:
    """Raise unless all fit each other, and no unit's sum can pass 32 bits."""
    if mean.ndim != 1 or not len(mean) or scale.shape != mean.shape:
        raise ValueError(
            f"IntegerFeatures: mean and scale must be [D >= 1], got {list(mean.shape)} and {list(scale.shape)}"
        )
    if not (all_finite(mean) and all_finite(scale) and bool((scale > 0).all())):
        raise ValueError("IntegerFeatures: mean must be finite and scale finite and > 0")
    if not layers:
        raise ValueError("IntegerFeatures: layers must be at least one, got none")
    fan_in, most = len(mean), MOST_INPUT
    for i, (weight, bias, multiplier, shift) in enumerate(layers):
        units = weight.shape[:1]
        if weight.ndim != 2 or weight.shape[1] != fan_in or not len(weight) or bias.shape != units != ():
            raise ValueError(
                f"IntegerFeatures: layer {i} must be of weight [H, {fan_in}] and bias [H], "
                f"got {list(weight.shape)} and {list(bias.shape)}"
            )
        if (
            multiplier.shape != units
            or not 0 <= int(multiplier.min()) <= int(multiplier.max()) <= MOST_MULTIPLIER
        ):
            raise ValueError(
                f"IntegerFeatures: layer {i} must have multipliers [H] from 0 to {MOST_MULTIPLIER}"
            )
        if not 1 <= shift <= MOST_SHIFT:
            raise ValueError(
                f"IntegerFeatures: layer {i} must have a shift from 1 to {MOST_SHIFT}, got {shift}"
            )
        room = MOST_SUM - require_fan_in(fan_in, most)
        if int(weight.min()) < -MOST_WEIGHT or int(bias.long().abs().max()) > room:
            raise ValueError(
                f"IntegerFeatures: layer {i} must have weights from -{MOST_WEIGHT} and biases to {room:,}, so that 32 "
                "bits hold its sums"
            )
        fan_in, most = len(weight), MOST_UNIT
