"""This module makes output directions V ``[P, C]``, frozen vectors along which paths send what they carry.

The last row is zero: path P-1, always on, keeps weights of its own (DESIGN, section 2).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from glai_native.data.labels import Label
from glai_native.machine.files import hash_values
from glai_native.structure.selector import PathSelector


def output_directions(
    selector: PathSelector, out_features: int | None = None, seed: int = 0, *, random: bool = False
) -> Tensor:
    """Make directions for the paths of a structure: the selector's output weights of each path's last unit, scaled.

    Rows are standard normal instead where that unit is the always-on one, and all are where the selector has no output
    layer of ``out_features`` outputs (or one of zeros). The output weights are divided by their root mean square, so
    that entries have variance 1 wherever they come from: the function that an estimator can learn does not depend on
    the scale of V, but the steps of gradient descent do. (With one epoch's selector of 256 units on 20,000 samples of
    MNIST, Adam at 1e-3 for four epochs reached 95.7 % with them, 91.3 % with the output weights as they were.)

    Source: this project's (DESIGN section 2, "Output directions"), beyond the papers.

    Args:
        selector: the frozen structure.
        out_features: C; None: as many as the selector's output layer has.
        seed: of the random rows; equal seeds give equal rows on every device.
        random: all rows are random, whatever output layer there is.

    Returns:
        ``[P, C]`` of the selector's dtype, on its device; row P-1 is zero.

    Raises:
        ValueError: no ``out_features``, and the selector was loaded from a structure file (no output layer).
    """
    output = selector.output
    if out_features is None:
        if output is None:
            raise ValueError(
                "output_directions: out_features must be given, this selector has no output layer (it was loaded "
                "from a structure file)"
            )
        out_features = output[0].shape[0]
    if out_features < 1:
        raise ValueError(f"output_directions: out_features must be >= 1, got {out_features}")
    directions = _normal(selector.n_paths, range(out_features), seed)
    weight = None if output is None or random else output[0].double().cpu()
    if weight is not None and len(weight) == out_features and bool(weight.any()):
        _by_last_unit(selector, directions)[:] = weight.T / weight.square().mean().sqrt()
    directions[-1] = 0
    return directions.to(selector.hidden[0][0])


def scale_of_own_directions(selector: PathSelector, directions: Tensor) -> Tensor | None:
    """Return the factor from output weights of paths' last units to V, infinite if they are 0; None: there is none."""
    if selector.output is None:
        return None
    weight = selector.output[0].double().T
    if not bool(weight.any()):  # nothing flows along any V: u is 0
        return weight.new_tensor(float("inf"))
    rows = _by_last_unit(selector, directions.double())
    scale = (rows * weight).sum() / (len(rows) * weight.square().sum())
    of = torch.finfo(directions.dtype)
    same = torch.allclose(rows, scale * weight.expand_as(rows), rtol=4 * of.eps, atol=of.tiny)
    return scale if same else None


def _by_last_unit(selector: PathSelector, directions: Tensor) -> Tensor:
    """Return a view of the rows of V whose last unit is not the always-on one: ``[units before, h_L, C]``."""
    return directions.view(-1, selector.widths[-1] + 1, directions.shape[1])[:, :-1]


def extend_directions(
    directions: Tensor, k: int, seed: int = 0, labels: Sequence[Label] | None = None
) -> Tensor:
    """Extend directions by ``k`` outputs: random columns of the mean square of those that are there.

    The column of a class with a label is drawn for that label, and has that mean square itself: owners of copies who
    meet other classes, in any order, come to the same V once each has all of them.

    Source: this project's (DESIGN section 2, "Output directions"), beyond the papers.

    Args:
        directions: V, ``[P, C]``.
        k: how many columns to append.
        seed: equal seeds give equal columns, so that owners of copies extend them alike, at once or one by one.
        labels: of the new classes, where classes have labels.

    Returns:
        ``[P, C + k]``; row P-1 stays zero.
    """
    if k < 1:
        raise ValueError(f"extend_directions: k must be >= 1, got {k}")
    n_paths, n_outputs = directions.shape
    scale = directions[:-1].double().square().mean().sqrt().cpu()
    if labels is None:
        added = _normal(n_paths, range(n_outputs, n_outputs + k), seed) * scale
    else:
        added = _normal(n_paths, [_number_of(label) for label in labels], seed)
        added /= added[:-1].square().mean(0).sqrt().clamp(min=torch.finfo(torch.float64).tiny)
        added *= _rounded(float(scale))
    added[-1] = 0
    return torch.cat([directions, added.to(directions)], dim=1)


def directions_id(directions: Tensor) -> str:
    """Return the SHA-256 of shape and values, as float64, so that a wider copy has the same."""
    return hash_values(["glai-directions", 1], [directions])


def require_directions(owner: str, directions: Tensor, n_paths: int, out_features: int) -> None:
    """Raise unless directions are finite, floating ``[P, C]``, with a last row of zeros."""
    if not isinstance(directions, Tensor):
        raise TypeError(f"{owner}: directions must be a torch.Tensor, got {type(directions).__name__}")
    if not directions.is_floating_point() or directions.shape != (n_paths, out_features):
        raise ValueError(
            f"{owner}: directions must be floating [P={n_paths}, C={out_features}], "
            f"got {str(directions.dtype).removeprefix('torch.')} {list(directions.shape)}"
        )
    if not bool(torch.isfinite(directions).all()):
        raise ValueError(f"{owner}: directions must be finite, got NaN or infinite values")
    if bool((directions[-1] != 0).any()):
        raise ValueError(
            f"{owner}: the last row of directions, of the path that is always on, must be zero; "
            "output_directions(selector) makes such"
        )


def _number_of(label: Label) -> int:
    """Return a number of its own for each label; outputs without one have theirs below 2^64."""
    text = json.dumps([type(label).__name__, label])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big") | 1 << 127


def _rounded(scale: float) -> float:
    """Return a scale to 12 bits, so that the order in which columns came, and its rounding, does not show."""
    if not math.isfinite(scale):  # of no paths but the constant one
        return 1.0
    fraction, exponent = math.frexp(scale)
    return math.ldexp(round(fraction * 4096) / 4096, exponent)


def _normal(n_paths: int, outputs: Sequence[int], seed: int) -> Tensor:
    """Draw a column for each output, of a generator of its own: columns that are added later differ from all before."""
    columns = [np.random.default_rng([seed, output]).standard_normal(n_paths) for output in outputs]
    return torch.from_numpy(np.stack(columns, axis=1))
