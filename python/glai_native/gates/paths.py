"""This module numbers paths: one unit per hidden layer, row-major, the always-on unit last in its layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from glai_native.gates.packed import PackedGates, common_structure, require_unit_gates
from glai_native.gates.packing import pack_gates, path_gates
from glai_native.machine.watching import is_watched

# Gates that exist unpacked at a time while those of kept paths are put together: what a core's cache holds.
UNPACKED_GATES = 2**20


class Structure(Protocol):
    """Whose units and paths gates are of: a selector, or a store of its gates.

    Attributes:
        structure_id: its SHA-256.
        widths: units per hidden layer.
        kept_paths: int64 ``[K]``, ascending, the paths of a pruned structure by number; None: all.
    """

    structure_id: str
    widths: tuple[int, ...]
    kept_paths: Tensor | None


def structure_gates(owner: str, structure: Structure, layers: Sequence[PackedGates]) -> PackedGates:
    """Make path gates ``[N, P]`` of a structure, the kept ones, from the unit bits of its hidden layers.

    Raises:
        ValueError: layers of another structure or of other widths; ``owner`` is named in the error.
    """
    require_unit_gates(owner, layers, structure.widths, structure.structure_id)
    kept = structure.kept_paths
    return path_gates(layers) if kept is None else kept_path_gates(layers, kept)


def count_paths(widths: Sequence[int]) -> int:
    """Return P = (h_1+1)·…·(h_L+1)."""
    return math.prod([width + 1 for width in widths])


def all_paths(widths: Sequence[int]) -> Tensor:
    """Return the numbers of all paths, int64 ``[P]``."""
    return torch.arange(count_paths(widths), device="cpu")


def units_of_paths(paths: Tensor, widths: Sequence[int]) -> list[Tensor]:
    """Return paths' units j_1 … j_L: int64 numbers ``[K]`` to one int64 ``[K]`` per layer; unit h_l is always on."""
    units = []
    for width in reversed(widths):
        units.append(paths % (width + 1))
        paths = paths // (width + 1)
    return units[::-1]


def paths_of_units(units: Sequence[Tensor], widths: Sequence[int]) -> Tensor:
    """Return the numbers of paths from their units, the inverse of :func:`units_of_paths`."""
    paths = torch.zeros_like(units[0])
    for unit, width in zip(units, widths, strict=True):
        paths = paths * (width + 1) + unit
    return paths


def require_kept_paths(owner: str, kept_paths: Tensor, widths: Sequence[int]) -> None:
    """Raise unless kept_paths are int64 numbers ``[K >= 1]``, ascending, that end with the path that is always on."""
    total = count_paths(widths)
    if kept_paths.dtype != torch.int64 or kept_paths.ndim != 1 or not len(kept_paths):
        raise ValueError(
            f"{owner}: kept_paths must be int64 [K >= 1], "
            f"got {str(kept_paths.dtype).removeprefix('torch.')} {list(kept_paths.shape)}"
        )
    ascending = bool((kept_paths[1:] > kept_paths[:-1]).all())
    if not ascending or int(kept_paths[0]) < 0 or int(kept_paths[-1]) != total - 1:
        raise ValueError(
            f"{owner}: kept_paths must ascend within [0, P={total}) and end with path {total - 1}, which is always "
            f"on, got {int(kept_paths.min())} to {int(kept_paths[-1])}{'' if ascending else ' out of order'}"
        )


def kept_path_gates(layers: Sequence[PackedGates], kept_paths: Tensor) -> PackedGates:
    """Make gates ``[N, K]`` of some paths from the unit bits of each hidden layer.

    They are put together from the units of the kept paths alone, so that work and memory do not depend on how many
    paths the layers make.

    Args:
        layers: unit bits per hidden layer, first layer first, of the same samples.
        kept_paths: int64 ``[K]``, their row-major numbers among all paths.
    """
    first = layers[0]
    units = units_of_paths(kept_paths.to(first.device), [layer.n_gates for layer in layers])
    blocks = []
    rows = max(1, UNPACKED_GATES // len(kept_paths))
    if is_watched(first.words):  # whose graph is for any number of samples
        parts = [list(layers)]
    else:
        starts = range(0, max(len(first), 1), rows)
        parts = [[layer[start : start + rows] for layer in layers] for start in starts]
    for part in parts:
        # Units by samples, so that whole rows are gathered: ten times as fast as columns.
        bits = [layer.unpack().T for layer in part]
        on = torch.ones((1, bits[0].shape[1]), dtype=torch.bool, device=first.device)
        paths = torch.cat([bits[0], on]).index_select(0, units[0])
        for layer, unit in zip(bits[1:], units[1:], strict=True):
            paths &= torch.cat([layer, on]).index_select(0, unit)
        blocks.append(pack_gates(paths.T))
    gates = blocks[0] if len(blocks) == 1 else PackedGates.cat(blocks)
    gates.structure_id = common_structure("path_gates", layers)
    return gates
