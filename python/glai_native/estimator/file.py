"""An estimator's file, and what it says of its making: JSON, of which re-training and merging read numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glai_native.machine.files import TensorFile, is_integer, is_number

ESTIMATOR_FILE = "estimator.safetensors"
ESTIMATOR_FORMAT = "glai-estimator"
ESTIMATOR_VERSION = 3  # 1 and 2, of files with directions, have a checksum over their tensors alone
ENTRY = "provenance"


def open_estimator(path: Path) -> TensorFile:
    """Open an estimator file and check it; of its content only that it is as it was written."""
    return TensorFile(path, ESTIMATOR_FORMAT, newest=ESTIMATOR_VERSION)


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
