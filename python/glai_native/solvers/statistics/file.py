"""The file of statistics holds sums and counts as tensors, of the gram matrix its upper triangle; sizes as metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from glai_native.data.checks import FLOATS, require_counts, require_finite
from glai_native.machine.files import TensorFile, tensors_to_bytes

STATISTICS_FILE = "statistics.safetensors"
STATISTICS_FORMAT = "glai-statistics"
STATISTICS_VERSION = 2  # 1 has a checksum over its tensors alone


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
        "version": str(STATISTICS_VERSION),
        "structure_id": structure_id or "",
        "sizes": json.dumps(sizes),
        "n_samples": str(n_samples),
    }
    return tensors_to_bytes(dict(sums), metadata | dict(entries))


def open_statistics(path: Path) -> TensorFile:
    """Open a statistics file and check it; of its content only that it is as it was written."""
    return TensorFile(path, STATISTICS_FORMAT, newest=STATISTICS_VERSION)


def read_statistics(file: TensorFile, structure_id: str | None) -> tuple[dict[str, Tensor], int, str | None]:
    """Return sums, N and structure_id of a file; ``structure_id`` is what it must be of, None: any."""
    path = file.path
    found = file.sha256("structure_id") or None
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
    return sums, file.integer("n_samples"), found


def require_sums(owner: str, sums: Mapping[str, Tensor], n_samples: int) -> None:
    """Raise unless sums fit each other, are finite, and count no samples below 0."""
    rhs = sums["rhs"]
    if rhs.ndim != 3 or rhs.dtype not in FLOATS:
        raise ValueError(f"{owner}: rhs must be floating [P, D+1, C], got {rhs.dtype} {list(rhs.shape)}")
    n_paths, width, n_outputs = rhs.shape
    size = n_paths * width
    expected = {
        "gram": (rhs.dtype, (size * (size + 1) // 2,)),
        "squares": (rhs.dtype, (n_outputs,)),
        "on_counts": (torch.int64, (n_paths, n_outputs)),
    }
    for name, (dtype, shape) in expected.items():
        if (sums[name].dtype, tuple(sums[name].shape)) != (dtype, shape):
            raise ValueError(
                f"{owner}: {name} must be {dtype} {list(shape)}, "
                f"got {sums[name].dtype} {list(sums[name].shape)}"
            )
    for name in ("gram", "rhs", "squares"):
        require_finite(owner, name, sums[name])
    require_counts(owner, n_samples, sums["on_counts"])
