"""What parties answer about integer features: sums of their samples, each a whole number."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord, RecordDict
from torch import Tensor

from glai_native.data.labels import Label
from glai_native.federated.integers import SQUARE_LIMBS, SUM_LIMBS, UNIT_LIMBS, narrowed, to_limbs
from glai_native.federated.messages import SAMPLES, STRUCTURE
from glai_native.federated.partition import Party
from glai_native.federated.settings import labels_of
from glai_native.ops.integer_sums import IntegerLayer
from glai_native.ops.path_matrices import pack_upper
from glai_native.solvers.exact.ledger import HASH_BYTES
from glai_native.solvers.exact.sums import IntegerStatistics
from glai_native.structure.centring import Moments, quantised
from glai_native.structure.integer_checks import as_samples
from glai_native.structure.integer_features import FEATURES_FILE, IntegerFeatures
from glai_native.structure.integer_layers import random_weights, squares_of_units
from glai_native.structure.measured_rows import count_classes, measured_rows

LEDGER = "ledger"


def class_names(class_labels: str, n_classes: int) -> list[Label]:
    """What statistics call the classes of a federation: their labels, or their indices."""
    return labels_of(class_labels) or list(range(n_classes))


def features_record(features: IntegerFeatures) -> dict[str, ConfigRecord]:
    """The features' file: what is sent once."""
    return {STRUCTURE: ConfigRecord({"file": features.to_bytes()})}


def read_features(content: RecordDict) -> IntegerFeatures:
    """The features of a message or of a party's state, checked against the id that they state."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FEATURES_FILE
        file = content.config_records[STRUCTURE]["file"]
        assert isinstance(file, bytes)
        path.write_bytes(file)
        return IntegerFeatures.load(path)


def moments_of(party: Party) -> dict[str, Tensor]:
    """Sums of the raw features and of their squares, and how many rows have each class of hash."""
    x = _samples(party, party.x.shape[1])
    moments = Moments.of(x)
    return {
        "sums": to_limbs(moments.sums, SUM_LIMBS),
        "squares": to_limbs(moments.squares, SQUARE_LIMBS),
        "rows": count_classes(x),
        SAMPLES: _count(len(x)),
    }


def units_of(party: Party, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Sums of the squares of a layer's units over the rows that are measured, and how many these are."""
    mean, scale = tensors["mean"], tensors["scale"]
    below = layers_from(tensors, config["shifts"])
    if "units_seed" in config:
        seed, units, windows = (int(config[name]) for name in ("units_seed", "units", "windows"))
        weight, bias = random_weights(seed, units, len(mean), windows)
    else:
        weight, bias = tensors["weight"], tensors["bias"]
    rows = measured_rows(_samples(party, len(mean)), int(config["classes"]))
    squares = squares_of_units(quantised(rows, mean, scale), below, weight, bias)
    return {"squares": to_limbs(squares, UNIT_LIMBS), SAMPLES: _count(len(rows))}


def layers_to(layers: Sequence[IntegerLayer]) -> dict[str, Tensor]:
    """Layers of units as named tensors; their shifts go apart."""
    return {
        f"{name}_{i}": getattr(layer, name) for i, layer in enumerate(layers) for name in layer._fields[:3]
    }


def layers_from(tensors: Mapping[str, Tensor], shifts: Sequence[int]) -> list[IntegerLayer]:
    """And back."""
    return [
        IntegerLayer(tensors[f"weight_{i}"], tensors[f"bias_{i}"], tensors[f"multiplier_{i}"], shift)
        for i, shift in enumerate(shifts)
    ]


def sums_of(
    party: Party, features: IntegerFeatures, labels: Sequence[Label], ledger: bool
) -> dict[str, Tensor]:
    """Integer sums over all samples: the gram's upper triangle, cross and counts; with a ledger, a hash of each."""
    statistics = IntegerStatistics(features, len(labels), ledger=ledger)
    statistics.class_labels = list(labels)
    statistics.update(party.x, party.y)
    sums = {
        "gram": narrowed(pack_upper(statistics.gram)),
        "cross": narrowed(statistics.cross),
        "counts": statistics.counts,
        SAMPLES: _count(statistics.n_samples),
    }
    if statistics.ledger is not None:
        hashes = np.frombuffer(statistics.ledger.hashes.tobytes(), dtype=np.uint8)
        sums[LEDGER] = torch.from_numpy(hashes.copy()).reshape(-1, HASH_BYTES)
    return sums


def _samples(party: Party, in_features: int) -> Tensor:
    return as_samples(f"party {party.name}", party.x, in_features).cpu()


def _count(n: int) -> Tensor:
    return torch.tensor([n], device="cpu")
