"""Output directions: V ``[P, C]``, the frozen vectors along which paths send what they carry (DESIGN, section 2).

The last row is zero: path P-1, always on, keeps weights of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from glai_native.files import hash_values
from glai_native.structure import PathSelector


def output_directions(selector: PathSelector, out_features: int | None = None, seed: int = 0) -> Tensor:
    """Directions for the paths of a structure: the selector's output weights of each path's last unit.

    Rows are random instead where that unit is the always-on one, and all are where the selector has no output layer of
    ``out_features`` outputs: normal, with the mean square of the output layer's weights, or 1/C without one (a path's
    direction then has length 1 on average).

    Args:
        selector: the frozen structure.
        out_features: C; None: as many as the selector's output layer has.
        seed: of the random rows; equal seeds give equal rows on every device.

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
    directions = _normal((selector.n_paths, out_features), seed)
    if output is None or output[0].shape[0] != out_features:
        directions *= out_features**-0.5
    else:
        weight = output[0].double().cpu()
        directions *= weight.square().mean().sqrt()
        directions[carries_output(selector)] = weight.T.repeat(selector.n_paths // (weight.shape[1] + 1), 1)
    directions[-1] = 0
    return directions.to(selector.hidden[0][0])


def carries_output(selector: PathSelector) -> Tensor:
    """Whether a path's last unit is one of the network's, not the always-on one: bool ``[P]``."""
    last_units = selector.widths[-1] + 1
    return torch.arange(selector.n_paths) % last_units != last_units - 1


def extend_directions(directions: Tensor, k: int, seed: int = 0) -> Tensor:
    """Directions with ``k`` more outputs: random columns of the mean square of those that are there.

    Args:
        directions: V, ``[P, C]``.
        k: how many columns to append.
        seed: equal seeds give equal columns, so that owners of copies extend them alike.

    Returns:
        ``[P, C + k]``; row P-1 stays zero.
    """
    if k < 1:
        raise ValueError(f"extend_directions: k must be >= 1, got {k}")
    added = _normal((len(directions), k), seed) * directions[:-1].double().square().mean().sqrt().cpu()
    added[-1] = 0
    return torch.cat([directions, added.to(directions)], dim=1)


def directions_id(directions: Tensor) -> str:
    """SHA-256 of shape and values, as float64, so that a wider copy has the same."""
    return hash_values(["glai-directions", 1], [directions])


def require_directions(owner: str, directions: Tensor, n_paths: int, out_features: int) -> None:
    """Refuses what are no finite directions ``[P, C]`` with a last row of zeros."""
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


def _normal(shape: tuple[int, int], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
