"""Many processes, GPUs or hosts train under ``torch.distributed``: sums over ranks, one structure for all, torchrun.

Training takes its group as ``process_group=`` (:func:`glai_native.train_estimator`, :func:`glai_native.fit`). What it
gains depends on the backend: every step waits for one sum of all gradients, while statistics are summed once. In a loop
of one's own a :class:`~glai_native.PathEstimator` goes into ``DistributedDataParallel`` like any module; its buffers
are counts that no step changes, so they need not be broadcast::

    torch.distributed.init_process_group()
    selector = glai.distributed.broadcast_selector(lambda: glai.train_structure(mlp, x, y))
    estimator = glai.PathEstimator.from_selector(selector)
    model = torch.nn.parallel.DistributedDataParallel(estimator, broadcast_buffers=False)
    rows = glai.distributed.rank_rows(len(x))
    z, y = selector.project(x[rows]), y[rows]
    gates = selector.gates_of(z)
    ...  # the usual steps: model(z[ids], gates[ids]); gradients are means over ranks

With NCCL all tensors lie on the rank's own GPU, ``torch.cuda.set_device(local_rank)``.
"""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import safetensors.torch
import torch.distributed as dist

from glai_native.machine.ranks import Ranks, or_default
from glai_native.solvers.exact.reducing import all_reduce_integers
from glai_native.solvers.exact.sums import IntegerStatistics
from glai_native.solvers.statistics import reducing
from glai_native.solvers.statistics.sums import PathStatistics
from glai_native.structure.selector import STRUCTURE_FILE, PathSelector

# For which ranks wait while the first one trains the structure; one that has died ends the wait at once.
STRUCTURE_WAIT = datetime.timedelta(days=7)


def rank_rows(n: int, group: dist.ProcessGroup | None = None) -> slice:
    """Return which of n rows are this rank's; the shares of all ranks are in order and differ by at most one row.

    Args:
        n: how many there are in all.
        group: None: the default process group, or this process alone where there is none.
    """
    return Ranks("rank_rows", or_default(group)).share(n)


Statistics = TypeVar("Statistics", PathStatistics, IntegerStatistics)


def all_reduce(statistics: Statistics, group: dist.ProcessGroup | None = None) -> Statistics:
    """Sum the statistics of all ranks, in place: each then holds those of all samples, with equal bits.

    Each rank has taken in samples of its own before (``update``, or ``accumulate`` over its :func:`rank_rows`); calling
    it twice would count them twice. They are summed in a copy, the gram matrix in pieces of 64 MB: where that fails,
    the statistics are what they were. Path statistics differ from those of one process by rounding alone, integer ones
    not at all.

    Args:
        statistics: this rank's, on a device that the group's backend serves: the CPU for gloo, a GPU for NCCL.
        group: None: the default process group, or this process alone where there is none.

    Returns:
        ``statistics``.

    Raises:
        ValueError: they are not of one kind on all ranks; on all of them, before anything is summed.
    """
    if isinstance(statistics, IntegerStatistics):
        all_reduce_integers(statistics, group)
    else:
        reducing.all_reduce(statistics, group)
    return statistics


def broadcast_selector(
    make: Callable[[], PathSelector], group: dist.ProcessGroup | None = None
) -> PathSelector:
    """Call ``make`` on the first rank alone, and give its structure to all, the output layer included.

    Args:
        make: trains or loads a selector.
        group: None: the default process group, or this process alone where there is none.

    Returns:
        What ``make`` returned; on the other ranks a copy with the same structure_id, on the CPU.

    Raises:
        RuntimeError: ``make`` failed on the first rank; the message is its.
    """
    ranks = Ranks("broadcast_selector", or_default(group))
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
    """Yield the processes that torchrun has started, as a gloo group; None where it has not.

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
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=STRUCTURE_WAIT)
        yield dist.group.WORLD
    except BaseException:
        if store.add("glai_native errors", 1) > 1:
            raise SystemExit(2) from None
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
