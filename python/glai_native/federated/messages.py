"""Nouns of this package as Flower's records, and back."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from glai_native.estimator.estimator import PathEstimator
from glai_native.structure.selector import STRUCTURE_FILE, PathSelector

# Names of records in a message.
SUMS, MODEL, STRUCTURE, CONFIG, STATED = "sums", "model", "structure", "config", "stated"
SAMPLES = "n_samples"
MASKED_BYTES = (
    "masked_bytes"  # what a party sent under secure aggregation, in place of the sums that a reply shows
)
AROUND = "around"  # what features are taken from before they are summed


def to_arrays(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Named tensors as an ArrayRecord; dtypes and shapes are kept."""
    return ArrayRecord(
        {name: Array(np.ascontiguousarray(t.detach().cpu().numpy())) for name, t in tensors.items()}
    )


def from_arrays(record: ArrayRecord) -> dict[str, Tensor]:
    """And back."""
    return {name: torch.from_numpy(np.array(array.numpy())) for name, array in record.items()}


def weighted(tensors: Mapping[str, Tensor], n_samples: int) -> dict[str, Tensor]:
    """What a party adds to a weighted average: each tensor times its number of samples, and that number."""
    return {name: t.detach() * n_samples for name, t in tensors.items()} | {
        SAMPLES: torch.tensor([n_samples], device="cpu")
    }


def averaged(sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weighted average from the sum over parties of what :func:`weighted` made."""
    total = int(sums[SAMPLES])
    return {name: t / total for name, t in sums.items() if name != SAMPLES}


def add_sums(total: Mapping[str, Tensor] | None, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sums of one more party, floats in float64."""
    wide = {name: t.double() if t.is_floating_point() else t for name, t in sums.items()}
    return wide if total is None else {name: total[name] + t for name, t in wide.items()}


def require_shapes(tensors: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> None:
    """Refuses tensors whose names or shapes are other ones."""
    found = {name: list(t.shape) for name, t in tensors.items()}
    for name in sorted(shapes.keys() | found.keys()):
        wanted = list(shapes[name]) if name in shapes else None
        if found.get(name) != wanted:
            raise ValueError(
                f"federate: {name} must be {wanted or 'absent'}, got {found.get(name, 'nothing')}"
            )


def structure_records(
    selector: PathSelector, directions: Tensor | None
) -> dict[str, ConfigRecord | ArrayRecord]:
    """The structure file's bytes, and V with it: what is sent once."""
    arrays = {} if directions is None else {"directions": directions}
    return {
        STRUCTURE: ConfigRecord({"file": selector.to_bytes()}),
        f"{STRUCTURE}.directions": to_arrays(arrays),
    }


def read_structure(content: RecordDict) -> tuple[PathSelector, Tensor | None]:
    """The structure of a message or of a party's state, checked against the id that it states."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / STRUCTURE_FILE
        file = content.config_records[STRUCTURE]["file"]
        assert isinstance(file, bytes)
        path.write_bytes(file)
        selector = PathSelector.load(path)
    return selector, from_arrays(content.array_records[f"{STRUCTURE}.directions"]).get("directions")


def estimator_from(
    arrays: ArrayRecord, selector: PathSelector, n_classes: int, directions: Tensor | None
) -> PathEstimator:
    """The estimator whose parameters a message carries."""
    estimator = PathEstimator(
        selector.n_paths,
        selector.z_features,
        n_classes,
        directions,
        structure_id=selector.structure_id,
        device="cpu",
    )
    tensors = from_arrays(arrays)
    parameters = dict(estimator.named_parameters())
    require_shapes(tensors, {name: parameter.shape for name, parameter in parameters.items()})
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])
    return estimator


def payload_bytes(content: RecordDict) -> int:
    """Of a message: what its arrays hold, and its bytes; names, numbers and Flower's envelope are not counted."""
    masked = content.config_records.get(STATED, ConfigRecord()).get(MASKED_BYTES)
    if masked is not None:
        return int(cast(int, masked))
    arrays = sum(
        int(np.prod(array.shape)) * np.dtype(array.dtype).itemsize
        for record in content.array_records.values()
        for array in record.values()
    )
    files = sum(
        len(value)
        for record in content.config_records.values()
        for value in record.values()
        if isinstance(value, bytes)
    )
    return arrays + files
