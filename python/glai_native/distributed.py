"""Many processes, GPUs or hosts under ``torch.distributed``: sums over ranks, one structure for all, torchrun.

Training takes its group as ``process_group=`` (:func:`glai_native.train_estimator`, :func:`glai_native.fit`). What it
gains depends on the backend: every step waits for one sum of all gradients, while statistics are summed once. In a loop
of one's own a :class:`~glai_native.PathEstimator` goes into ``DistributedDataParallel`` like any module; its buffers
are counts that no step changes, so they need not be broadcast::

    torch.distributed.init_process_group()
    selector = glai.distributed.broadcast_selector(lambda: glai.train_structure(mlp, x, y))
    estimator = glai.PathEstimator.from_selector(selector)
    model = torch.nn.parallel.DistributedDataParallel(estimator, broadcast_buffers=False)
    rows = glai.distributed.rank_rows(len(x))
    z, gates, y = selector.project(x[rows]), selector.gates(x[rows]), y[rows]
    ...  # the usual steps: model(z[ids], gates[ids]); gradients are means over ranks

With NCCL all tensors lie on the rank's own GPU, ``torch.cuda.set_device(local_rank)``.
"""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
import torch
import torch.distributed as dist

from glai_native.ranks import Ranks
from glai_native.statistics import PathStatistics
from glai_native.structure import STRUCTURE_FILE, PathSelector

# Of the gram's upper triangle that is packed and summed at a time.
PIECE_BYTES = 1 << 26
# For which ranks wait while the first one trains the structure; one that has died ends the wait at once.
PATIENCE = datetime.timedelta(days=7)


def _or_default(group: dist.ProcessGroup | None) -> dist.ProcessGroup | None:
    return dist.group.WORLD if group is None and dist.is_available() else group


def rank_rows(n: int, group: dist.ProcessGroup | None = None) -> slice:
    """Which of n rows are this rank's; the shares of all ranks are in order and differ by at most one row.

    Args:
        n: how many there are in all.
        group: None: the default process group, or this process alone where there is none.
    """
    return Ranks("rank_rows", _or_default(group)).share(n)


@torch.no_grad()
def all_reduce(statistics: PathStatistics, group: dist.ProcessGroup | None = None) -> PathStatistics:
    """Sums the statistics of all ranks, in place: each then holds those of all samples, with equal bits.

    Each rank has taken in samples of its own before (``update``, or ``accumulate`` over its :func:`rank_rows`); calling
    it twice would count them twice. The gram matrix goes in pieces of its upper triangle, 64 MB of memory more than
    the statistics take. Sums differ from those of one process by rounding alone.

    Args:
        statistics: this rank's, on a device that the group's backend serves: the CPU for gloo, a GPU for NCCL.
        group: None: the default process group, or this process alone where there is none.

    Returns:
        ``statistics``.

    Raises:
        ValueError: structure_id, sizes or dtype differ between ranks; on all of them, before anything is summed.
    """
    ranks = Ranks("all_reduce", _or_default(group))
    with ranks.together():
        if not isinstance(statistics, PathStatistics):
            raise TypeError(f"all_reduce: statistics must be PathStatistics, got {type(statistics).__name__}")
    sizes = f"P={statistics.n_paths}, D={statistics.in_features}, C={statistics.out_features}"
    facts = {"the statistics' [P, D, C]": f"[{sizes}]", "their dtype": str(statistics.dtype)}
    if statistics.structure_id is not None:  # a rank without samples may know of none
        facts["structure_id"] = statistics.structure_id
    statistics.structure_id = ranks.require_alike(facts).get("structure_id")
    gram, *sums = statistics._sums()
    for rows in _triangle_pieces(len(gram), PIECE_BYTES // gram.element_size()):
        piece = ranks.add_up(torch.cat([gram[i, i:] for i in rows]))
        for i, row in zip(rows, piece.split([len(gram) - i for i in rows]), strict=True):
            gram[i, i:] = row
    for tensor in sums:
        ranks.add_up(tensor)
    counts = torch.tensor([statistics.n_samples], device=statistics.device)
    statistics.n_samples = int(ranks.add_up(counts))
    return statistics


def _triangle_pieces(size: int, elements: int) -> list[range]:
    """Rows of an upper triangle in runs of about so many elements; a run has at least one row."""
    pieces, begin = [], 0
    while begin < size:
        end = min(size, begin + max(1, elements // (size - begin)))
        pieces.append(range(begin, end))
        begin = end
    return pieces


def broadcast_selector(
    make: Callable[[], PathSelector], group: dist.ProcessGroup | None = None
) -> PathSelector:
    """Calls ``make`` on the first rank alone, and gives its structure to all, the output layer included.

    Args:
        make: trains or loads a selector.
        group: None: the default process group, or this process alone where there is none.

    Returns:
        What ``make`` returned; on the other ranks a copy with the same structure_id, on the CPU.

    Raises:
        RuntimeError: ``make`` failed on the first rank; the message is its.
    """
    ranks = Ranks("broadcast_selector", _or_default(group))
    made: PathSelector | None = None
    structure = output = b""
    with ranks.together():
        if ranks.is_first:
            made = make()
            structure = made.to_bytes()
            output = safetensors.torch.save(dict(zip(("weight", "bias"), made.output or (), strict=False)))
    structure, output = ranks.broadcast_bytes(structure), ranks.broadcast_bytes(output)
    if made is not None:
        return made
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / STRUCTURE_FILE
        path.write_bytes(structure)
        selector = PathSelector.load(path)
    layer = safetensors.torch.load(output)
    for name, tensor in layer.items():
        setattr(selector, f"output_{name}", tensor)
    return selector


@contextmanager
def torchrun_group() -> Iterator[dist.ProcessGroup | None]:
    """The processes that torchrun has started, as a gloo group; None where it has not.

    Where several of them fail, the first one's error goes on to the caller; the others exit with status 2 and without
    a word, so that who prints errors prints one.
    """
    if not dist.is_available() or not dist.is_torchelastic_launched():
        yield None
        return
    from torch.distributed.rendezvous import (
        rendezvous,
    )  # absent where torch is built without torch.distributed

    store, rank, size = next(rendezvous("env://"))
    try:
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=PATIENCE)
        yield dist.group.WORLD
    except BaseException:
        if store.add("glai_native errors", 1) > 1:
            raise SystemExit(2) from None
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
