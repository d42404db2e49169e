"""Integer statistics are summed here over the ranks of a process group, to the digest of all samples in one place."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import numpy as np
import torch
import torch.distributed as dist

from glai_native.machine.ranks import Ranks, or_default
from glai_native.solvers.exact.ledger import HASH_BYTES, Ledger
from glai_native.solvers.exact.sums import IntegerStatistics
from glai_native.solvers.exact.targets import FixedPoint

# Of a gram matrix that is summed at a time.
PIECE_BYTES = 1 << 26


@torch.no_grad()
def all_reduce_integers(
    statistics: IntegerStatistics, group: dist.ProcessGroup | None = None
) -> IntegerStatistics:
    """Sum the integer statistics of all ranks, in place; each then holds those of all samples, and their ledger.

    They are summed in a copy: where that fails, the statistics are what they were.

    Args:
        statistics: this rank's, of the same map, outputs and steps as the others'.
        group: None: the default process group, or this process alone where there is none.

    Raises:
        ValueError: they are not of one kind; on all ranks, before anything is summed.
    """
    ranks = Ranks("all_reduce", or_default(group))
    with ranks.together():
        if not isinstance(statistics, IntegerStatistics):
            raise TypeError(
                f"all_reduce: statistics must be IntegerStatistics, got {type(statistics).__name__}"
            )
    facts = {
        "features_id": statistics.features_id,
        "the statistics' C": str(statistics.out_features),
        "targets": statistics.targets,
        "class_labels": json.dumps(statistics.class_labels),
        "per_class": str(statistics.class_grams is not None),
        "ledger": str(statistics.ledger is not None),
    }
    point = statistics.fixed_point
    if point is not None:  # a rank without samples may know of none
        facts |= {"step": json.dumps(point.step.tolist()), "centre": json.dumps(point.centre.tolist())}
    known = ranks.require_alike(facts)
    with ranks.together():
        total = statistics.copy()
    for tensor in total._sums():
        if tensor is not None:
            rows = tensor.reshape(-1, tensor.shape[-1])
            for piece in rows.split(max(1, PIECE_BYTES // (8 * rows.shape[1]))):
                ranks.add_up(piece)
    counts = [json.loads(text) for text in ranks.gather(json.dumps([total.n_samples, *total._squares]))]
    total.n_samples, *total._squares = (sum(column) for column in zip(*counts, strict=True))
    if "step" in known:
        step, centre = (json.loads(known[name]) for name in ("step", "centre"))
        total.fixed_point = FixedPoint.told("all_reduce", step, centre, total.out_features)
    if total.ledger is not None:
        total.ledger = _united(ranks.gather(_text_of(total.ledger)))
    total.changes, total.state = None, uuid4().hex
    statistics.__dict__ = total.__dict__
    return statistics


def _text_of(ledger: Ledger) -> str:
    ids, are_texts = ledger.ids, ledger.ids is not None and ledger.ids.dtype != np.int64
    known = None if ids is None else ids.tolist()
    return json.dumps([ledger.hashes.tobytes().hex(), known, are_texts, ledger.as_integers])


def _united(texts: list[str]) -> Ledger:
    ledger = Ledger.empty()
    for text in texts:
        hashes, ids, are_texts, as_integers = json.loads(text)
        kept: Any = ids if ids is None else np.array(ids, dtype=object if are_texts else np.int64)
        one = np.frombuffer(bytes.fromhex(hashes), dtype=f"S{HASH_BYTES}")
        ledger = ledger.united(Ledger(one, kept, as_integers))
    return ledger
