"""The digest of integer statistics: equal for every history that leaves the same samples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glai_native.data.labels import Label
from glai_native.estimator.outputs import sorting_order
from glai_native.solvers.exact.adding import IntegerSums
from glai_native.solvers.exact.targets import FixedPoint

DIGEST_FORMAT = ["glai-exact-digest", 1]


def digest_of(
    sums: IntegerSums,
    n_samples: int,
    features_id: str,
    labels: Sequence[Label] | None,
    point: FixedPoint | None,
    squares: Sequence[int],
) -> str:
    """Return the SHA-256 of what the sums are of, and of the sums, 64 hexadecimal digits.

    Classes without samples are no part of it. The others enter in the order of their labels, or of their indices where
    they have no labels, so that it does not depend on which came first. Values enter with their steps, and with their
    centre where that is not 0.

    Args:
        sums: of them gram, cross and counts; not those of each class.
        n_samples: N.
        features_id: of the map.
        labels: of the C classes; None: they have none, or targets are values.
        point: of values; None: targets are classes, or there have been none.
        squares: of values, ``[C]``; of classes none.
    """
    order = torch.arange(sums.cross.shape[1], device="cpu") if labels is None else sorting_order(labels)
    header: list[Any] = [*DIGEST_FORMAT, features_id, n_samples]
    if squares:
        header += ["values", [] if point is None else _hex(point.step), list(squares)]
        header += [_hex(point.centre)] if point is not None and point.is_centred else []
    else:
        order = order[sums.counts.cpu()[order] > 0]
        named = order.tolist() if labels is None else [labels[i] for i in order.tolist()]
        header += ["indices" if labels is None else "labels", named, sums.counts.cpu()[order].tolist()]
    digest = hashlib.sha256(json.dumps(header).encode())
    digest.update(_little(sums.cross.cpu()[:, order]))
    gram = sums.gram.cpu()
    for i, row in enumerate(gram):
        digest.update(_little(row[i:]))
    return digest.hexdigest()


def _hex(numbers: Tensor) -> list[str]:
    return [number.hex() for number in numbers.tolist()]


def _little(values: Tensor) -> memoryview:
    """Return the bytes of int64 numbers in C's order, little end first."""
    return np.ascontiguousarray(values.numpy().astype("<i8", copy=False)).data
