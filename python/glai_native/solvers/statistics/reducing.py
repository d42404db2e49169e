"""Statistics are summed here over the ranks of a process group."""

from __future__ import annotations

from uuid import uuid4

import torch
import torch.distributed as dist

from glai_native.machine.ranks import Ranks, or_default
from glai_native.solvers.statistics.sums import PathStatistics

# Of the gram's upper triangle that is packed and summed at a time.
PIECE_BYTES = 1 << 26


@torch.no_grad()
def all_reduce(statistics: PathStatistics, group: dist.ProcessGroup | None = None) -> PathStatistics:
    """Sum the statistics of all ranks, in place: each then holds those of all samples, with equal bits.

    Each rank has taken in samples of its own before (``update``, or ``accumulate`` over its :func:`rank_rows`); calling
    it twice would count them twice. They are summed in a copy, the gram matrix in pieces of 64 MB: where that fails,
    the statistics are what they were. Sums differ from those of one process by rounding alone.

    Args:
        statistics: this rank's, on a device that the group's backend serves: the CPU for gloo, a GPU for NCCL.
        group: None: the default process group, or this process alone where there is none.

    Returns:
        ``statistics``.

    Raises:
        ValueError: structure_id, sizes or dtype differ between ranks; on all of them, before anything is summed.
    """
    ranks = Ranks("all_reduce", or_default(group))
    with ranks.together():
        if not isinstance(statistics, PathStatistics):
            raise TypeError(f"all_reduce: statistics must be PathStatistics, got {type(statistics).__name__}")
    sizes = f"P={statistics.n_paths}, D={statistics.in_features}, C={statistics.out_features}"
    facts = {"the statistics' [P, D, C]": f"[{sizes}]", "their dtype": str(statistics.dtype)}
    if not statistics.means_nothing:
        facts["what their outputs mean"] = statistics.outputs_text()
    if statistics.structure_id is not None:  # a rank without samples may know of none
        facts["structure_id"] = statistics.structure_id
    structure_id = ranks.require_alike(facts).get("structure_id")
    with ranks.together():
        total = statistics.copy()
    total.structure_id = structure_id
    gram, *sums = total._sums()
    for rows in _triangle_pieces(len(gram), PIECE_BYTES // gram.element_size()):
        piece = ranks.add_up(torch.cat([gram[i, i:] for i in rows]))
        for i, row in zip(rows, piece.split([len(gram) - i for i in rows]), strict=True):
            gram[i, i:] = row
    for tensor in sums:
        ranks.add_up(tensor)
    counts = torch.tensor([statistics.n_samples], device=statistics.device)
    total.n_samples = int(ranks.add_up(counts))
    statistics.become(total)
    statistics.state = uuid4().hex
    return statistics


def _triangle_pieces(size: int, elements: int) -> list[range]:
    """Return the rows of an upper triangle in runs of about so many elements; a run has at least one row."""
    pieces, begin = [], 0
    while begin < size:
        end = min(size, begin + max(1, elements // (size - begin)))
        pieces.append(range(begin, end))
        begin = end
    return pieces
