"""An estimator's file, and what it says of its making: JSON, of which re-training and merging read numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from glai_native.data.checks import FLOATS
from glai_native.estimator.directions import directions_id
from glai_native.machine.files import TensorFile, is_integer, is_number

ESTIMATOR_FILE = "estimator.safetensors"
ESTIMATOR_FORMAT = "glai-estimator"
ESTIMATOR_VERSION = 3  # 1 and 2, of files with directions, have a checksum over their tensors alone
ENTRY = "provenance"
UNITS = "n_units"  # of an estimator that reads unit features; other files lack it


class Sizes(NamedTuple):
    """What an estimator's file says of its kind: P, D and C, V or None, how many units it reads, and its dtype."""

    n_paths: int
    in_features: int
    out_features: int
    directions: Tensor | None
    n_units: int
    dtype: torch.dtype


def open_estimator(path: Path) -> TensorFile:
    """Open an estimator file and check it; of its content only that it is as it was written."""
    return TensorFile(path, ESTIMATOR_FORMAT, newest=ESTIMATOR_VERSION)


def read_sizes(file: TensorFile) -> Sizes:
    """Return what a file says of its kind, checked."""
    if "directions" not in file:
        weight = file.tensor("weight", FLOATS, (None, None, None))
        n_paths, in_features, out_features = weight.shape
        n_units = file.integer(UNITS, 1, in_features - 1) if UNITS in file.metadata else 0
        file.require(UNITS, not n_units or n_paths == 1, "of one path, which is always on")
        return Sizes(n_paths, in_features, out_features, None, n_units, weight.dtype)
    directions = file.tensor("directions", FLOATS, (None, None))
    stated, found = file.sha256("directions_id"), directions_id(directions)
    if found != stated:
        raise ValueError(
            f"{file.path}: directions_id must be {stated[:12]}… as the file states, but its directions have "
            f"{found[:12]}…; the file is damaged"
        )
    n_paths, out_features = directions.shape
    in_features = file.tensor("u", (directions.dtype,), (n_paths, None)).shape[1]
    return Sizes(n_paths, in_features, out_features, directions, 0, directions.dtype)


def provenance_to_json(provenance: Mapping[str, Any]) -> str:
    """Return the metadata entry of a provenance; raise for numbers that reading it would refuse."""
    try:
        return json.dumps(provenance, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"PathEstimator: provenance must hold finite numbers alone ({error})") from None


def read_provenance(file: TensorFile) -> dict[str, Any]:
    """Return the provenance of an estimator's file, checked; empty where it has none.

    Raises:
        ValueError: no JSON object, or numbers in it that nothing can have been made with.
    """
    if ENTRY not in file.metadata:
        return {}
    provenance = file.json(ENTRY)
    file.require(ENTRY, isinstance(provenance, dict), "a JSON object")
    for name in ("l2", "mean_diagonal"):
        if name in provenance:
            file.require(ENTRY, is_number(provenance[name], 0), f"an object whose {name} is a number >= 0")
    if "merge" in provenance:
        parties = provenance.get("parties")
        sound = isinstance(parties, list) and all(
            isinstance(party, dict)
            and isinstance(party.get("name"), str)
            and is_integer(party.get("samples"))
            for party in parties
        )
        file.require(ENTRY, sound, "an object that names the parties of a merge, and their samples")
    for name, kind in (("solver", str), ("merge", str), ("federation", dict)):
        file.require(ENTRY, isinstance(provenance.get(name, kind()), kind), f"an object whose {name} is one")
    return dict(provenance)
