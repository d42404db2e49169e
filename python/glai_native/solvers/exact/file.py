"""The file of integer statistics: sums, of gram matrices the upper triangles, the ledger, the features' map."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from glai_native.machine.files import TensorFile, is_integer
from glai_native.machine.pieces import tensors_to_pieces
from glai_native.ops.path_matrices import unpack_upper
from glai_native.solvers.exact.adding import IntegerSums
from glai_native.solvers.exact.alike import MOST_SAMPLES
from glai_native.solvers.exact.ledger import HASH_BYTES, Ledger
from glai_native.solvers.exact.targets import FixedPoint
from glai_native.structure.integer_features import IntegerFeatures

EXACT_FILE = "exact.safetensors"
EXACT_FORMAT = "glai-integer-statistics"
# 1 has values without a centre, and a map of the first rule of windows, or none of a seed; 2 centres. What needs no
# more is written as before, for whoever reads that alone.
EXACT_VERSION = 3
FEATURES_PREFIX = "features."
# How those of a .csv were read. What files say that are older than this is left out: integers as integers, and texts,
# which other ids made of integers, as written.
IDS_AS_WRITTEN, IDS_AS_INTEGERS = "as written", "as integers"
INTEGERS = (torch.int64,)


@dataclass(frozen=True)
class FileContent:
    """What a file of integer statistics says, beside what its outputs mean.

    Attributes:
        features: the map.
        targets: ``"classes"`` or ``"values"``.
        n_samples: N.
        sums: gram matrices are whole, zero below the diagonal.
        squares: of values, ``[C]``; of classes none.
        fixed_point: of values, or None.
        ledger: None where none was kept.
    """

    features: IntegerFeatures
    targets: str
    n_samples: int
    sums: IntegerSums
    squares: list[int]
    fixed_point: FixedPoint | None
    ledger: Ledger | None


def content_to_pieces(content: FileContent, entries: Mapping[str, str]) -> list[bytes | memoryview]:
    """Return a file's content in pieces, most of which are the sums' own memory; ``entries`` join the metadata."""
    sums, point = content.sums, content.fixed_point
    is_centred = point is not None and point.is_centred
    metadata = {
        "format": EXACT_FORMAT,
        "version": str(EXACT_VERSION if content.features.is_of_newer_rule else 2 if is_centred else 1),
        "features_id": content.features.features_id,
        "sizes": json.dumps(list(sums.cross.shape)),
        "targets": content.targets,
        "n_samples": str(content.n_samples),
        "squares": json.dumps(content.squares),
    }
    state: dict[str, Tensor | list[Tensor]] = {
        "gram": _upper(sums.gram),
        "cross": sums.cross.cpu(),
        "counts": sums.counts.cpu(),
    }
    if sums.class_grams is not None:
        state |= {f"class_gram_{c}": _upper(gram) for c, gram in enumerate(sums.class_grams)}
    if point is not None:
        state |= {"step": point.step} | ({"centre": point.centre} if is_centred else {})
    if content.ledger is not None:
        state |= _ledger_state(content.ledger)
        metadata |= _ids_entry(content.ledger)
    state |= {FEATURES_PREFIX + name: each for name, each in content.features.to_state().items()}
    return tensors_to_pieces(state, metadata | dict(entries))


def _upper(gram: Tensor) -> list[Tensor]:
    """Return the rows of the upper triangle, which is what a file holds."""
    return [row[i:] for i, row in enumerate(gram.cpu())]


def _ledger_state(ledger: Ledger) -> dict[str, Tensor | list[Tensor]]:
    """Return the hashes uint8 ``[N, 16]``, and ids int64 ``[N]``, or their texts' bytes and lengths."""
    hashes = np.frombuffer(ledger.hashes.tobytes(), dtype=np.uint8).reshape(-1, HASH_BYTES)
    state: dict[str, Tensor | list[Tensor]] = {"ledger": torch.from_numpy(hashes.copy())}
    if ledger.ids is None:
        return state
    if ledger.ids.dtype == np.int64:
        return state | {"ledger_ids": torch.from_numpy(ledger.ids)}
    texts = [text.encode() for text in ledger.ids.tolist()]
    lengths = torch.tensor([len(text) for text in texts], dtype=torch.int64, device="cpu")
    joined = torch.from_numpy(np.frombuffer(b"".join(texts), dtype=np.uint8).copy())
    return state | {"ledger_ids": joined, "ledger_id_lengths": lengths}


def _ids_entry(ledger: Ledger) -> dict[str, str]:
    if ledger.ids is None or ledger.as_integers == (ledger.ids.dtype == np.int64):
        return {}
    return {"ids": IDS_AS_INTEGERS if ledger.as_integers else IDS_AS_WRITTEN}


def open_exact(path: Path) -> TensorFile:
    """Open a file of integer statistics and check it; of its content only that it is as it was written."""
    return TensorFile(path, EXACT_FORMAT, newest=EXACT_VERSION, whole_from=1)


def read_exact(file: TensorFile, features: IntegerFeatures | None) -> FileContent:
    """Return what an open file says.

    Args:
        file: of this format.
        features: the map that it must be of, which is then not made anew; None: any.

    Raises:
        ValueError: it is of another map, or what it says does not fit together.
    """
    stated = file.sha256("features_id")
    if features is None:
        features = IntegerFeatures.from_file(file, FEATURES_PREFIX)
    elif features.features_id != stated:
        raise ValueError(f"{file.path}: features_id must be {features.features_id[:12]}…, got {stated[:12]}…")
    sizes, targets = file.sizes("sizes"), file.entry("targets")
    file.require("sizes", len(sizes) == 2 and sizes[0] == features.n_features, "M and C")
    file.require("targets", targets in ("classes", "values"), "'classes' or 'values'")
    size, n_outputs = sizes
    n_samples, squares = file.integer("n_samples", 0, MOST_SAMPLES), file.json("squares")
    expected = n_outputs if targets == "values" else 0
    sound = isinstance(squares, list) and len(squares) == expected
    file.require(
        "squares", sound and all(is_integer(one, most=1 << 80) for one in squares), f"{expected} integers"
    )
    per_class = None
    if "class_gram_0" in file:
        per_class = torch.zeros((n_outputs, size, size), dtype=torch.int64, device="cpu")
        for c, gram in enumerate(per_class):
            _read_upper(file, f"class_gram_{c}", gram)
    sums = IntegerSums(
        torch.zeros((size, size), dtype=torch.int64, device="cpu"),
        file.tensor("cross", INTEGERS, (size, n_outputs)).clone(),
        file.tensor("counts", INTEGERS, (n_outputs,)).clone(),
        per_class,
    )
    _read_upper(file, "gram", sums.gram)
    point = _read_fixed_point(file, n_outputs)
    try:
        require_sums_of(n_samples, sums, targets, point)
    except ValueError as error:
        raise ValueError(f"{file.path}: {error}") from None
    return FileContent(features, targets, n_samples, sums, squares, point, _read_ledger(file, n_samples))


def _read_fixed_point(file: TensorFile, n_outputs: int) -> FixedPoint | None:
    if "step" not in file:
        return None
    step = file.tensor("step", (torch.float64,), (n_outputs,)).clone()
    if "centre" not in file:
        return FixedPoint(step, torch.zeros_like(step))
    return FixedPoint(step, file.tensor("centre", (torch.float64,), (n_outputs,)).clone())


def _read_upper(file: TensorFile, name: str, out: Tensor) -> None:
    unpack_upper(file.tensor(name, INTEGERS, (len(out) * (len(out) + 1) // 2,)), out)


def require_sums_of(n_samples: int, sums: IntegerSums, targets: str, point: FixedPoint | None) -> None:
    """Raise unless the constant's sums count the samples, and those of each class."""
    last = int(sums.gram[-1, -1])
    sound = last == 127 * 127 * n_samples and bool((sums.gram.diagonal() >= 0).all())
    if targets == "classes":
        counted = int(sums.counts.min()) >= 0 and int(sums.counts.sum()) == n_samples
        sound = sound and point is None and counted and torch.equal(sums.cross[-1], 127 * sums.counts)
    elif point is not None:
        finite = bool(point.step.isfinite().all()) and bool(point.centre.isfinite().all())
        sound = sound and finite and bool((point.step > 0).all())
    if not sound:
        raise ValueError(f"the sums must be those of N={n_samples:,} samples, got others")


def _read_ledger(file: TensorFile, n_samples: int) -> Ledger | None:
    if "ledger" not in file:
        return None
    content = file.tensor("ledger", (torch.uint8,), (n_samples, HASH_BYTES)).numpy()
    hashes = np.frombuffer(content.tobytes(), dtype=f"S{HASH_BYTES}")
    if not bool((hashes[:-1] <= hashes[1:]).all()):
        raise ValueError(f"{file.path}: tensor 'ledger' must be sorted")
    if "ledger_ids" not in file:
        return Ledger(hashes, None)
    read = file.metadata.get("ids")
    file.require(
        "ids", read in (None, IDS_AS_WRITTEN, IDS_AS_INTEGERS), f"{IDS_AS_WRITTEN!r} or {IDS_AS_INTEGERS!r}"
    )
    if "ledger_id_lengths" not in file:
        integers = file.tensor("ledger_ids", INTEGERS, (n_samples,)).numpy().copy()
        return Ledger(hashes, integers, read != IDS_AS_WRITTEN)
    lengths = file.tensor("ledger_id_lengths", INTEGERS, (n_samples,)).tolist()
    joined = file.tensor("ledger_ids", (torch.uint8,), (None,)).numpy().tobytes()
    if any(length < 0 for length in lengths) or sum(lengths) != len(joined):
        raise ValueError(f"{file.path}: tensor 'ledger_id_lengths' must add up to the {len(joined):,} of ids")
    ids, begin = np.empty(n_samples, dtype=object), 0
    for i, length in enumerate(lengths):
        try:
            ids[i] = joined[begin : begin + length].decode()
        except UnicodeDecodeError:
            raise ValueError(f"{file.path}: tensor 'ledger_ids' must be texts, got others") from None
        begin += length
    return Ledger(hashes, ids, read == IDS_AS_INTEGERS)
