"""The file of statistics holds sums and counts as tensors, of the gram matrix its upper triangle; sizes as metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from glai_native.data.checks import FLOATS
from glai_native.machine.files import TensorFile, tensors_to_bytes

STATISTICS_FILE = "statistics.safetensors"
STATISTICS_FORMAT = "glai-statistics"


def statistics_to_bytes(
    sums: Mapping[str, Tensor],
    sizes: tuple[int, int, int],
    n_samples: int,
    structure_id: str | None,
    entries: Mapping[str, str],
) -> bytes:
    """Return the file's content.

    Args:
        sums: as :meth:`PathStatistics.sums` gives them.
        sizes: P, D and C.
        n_samples: N.
        structure_id: None is kept as an empty text.
        entries: join the metadata.
    """
    metadata = {
        "format": STATISTICS_FORMAT,
        "version": "1",
        "structure_id": structure_id or "",
        "sizes": json.dumps(sizes),
        "n_samples": str(n_samples),
    }
    return tensors_to_bytes(dict(sums), metadata | dict(entries))


def read_statistics(path: Path, structure_id: str | None) -> tuple[dict[str, Tensor], int, str | None]:
    """Return sums, N and structure_id of a file; ``structure_id`` is what it must be of, None: any."""
    file = TensorFile(path, STATISTICS_FORMAT)
    found = file.entry("structure_id") or None
    if structure_id is not None and found != structure_id:
        raise ValueError(
            f"{path}: structure_id must be {structure_id[:12]}…, got {f'{found[:12]}…' if found else 'none'}"
        )
    sizes = file.sizes("sizes")
    if len(sizes) != 3:
        raise ValueError(f"{path}: metadata entry 'sizes' must list P, D and C, got {sizes}")
    n_paths, in_features, out_features = sizes
    rhs = file.tensor("rhs", FLOATS, (n_paths, in_features + 1, out_features))
    size = n_paths * (in_features + 1)
    sums = {
        "rhs": rhs,
        "gram": file.tensor("gram", (rhs.dtype,), (size * (size + 1) // 2,)),
        "squares": file.tensor("squares", (rhs.dtype,), (out_features,)),
        "on_counts": file.tensor("on_counts", (torch.int64,), (n_paths, out_features)),
    }
    return sums, file.entry("n_samples", int), found
