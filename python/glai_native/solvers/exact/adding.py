"""Samples are added here to integer sums, or taken out of them: all of them, or none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from glai_native.machine.interrupts import uninterrupted
from glai_native.machine.memory import require_memory
from glai_native.ops.integer_sums import class_sums, integer_gram
from glai_native.solvers.exact.samples import IntegerSamples

# Rows of features that are float64 at a time, where they meet values.
VALUE_BYTES = 1 << 22


class IntegerSums(NamedTuple):
    """Sums over samples, each of which an int64 holds.

    Attributes:
        gram: ``[M, M]``, ``sum_n phi[n,i]·phi[n,j]`` where i <= j; zero below.
        cross: ``[M, C]``, ``sum_n phi[n,i]·t[n,c]``.
        counts: ``[C]``, samples of each class; zero where targets are values.
        class_grams: ``[C, M, M]``, gram of each class; None where they are not kept.
    """

    gram: Tensor
    cross: Tensor
    counts: Tensor
    class_grams: Tensor | None


def require_memory_of_sums(n_features: int, n_outputs: int, per_class: bool, device: torch.device) -> None:
    """Raise MemoryError, before they are made, where such sums take more than there is."""
    grams = n_outputs + 1 if per_class else 1
    what = f"the gram matrix of M={n_features:,} features"
    if per_class:
        what += f", and one of each of C={n_outputs:,} classes,"
    advice = "use fewer units" + (", or per_class=False" if per_class else "")
    require_memory("IntegerStatistics", what, grams * n_features**2 * 8, device, advice)
    what = f"the sums of M={n_features:,} features for C={n_outputs:,} outputs"
    require_memory(
        "IntegerStatistics", what, n_features * n_outputs * 8, device, "number classes without gaps"
    )


@contextmanager
def added(sums: IntegerSums, squares: list[int], samples: IntegerSamples, sign: int) -> Iterator[None]:
    """Add samples ``sign`` times, 1 or -1, in place; what fails, here or within, is as if it had never begun.

    Integers added can be taken out again without a trace, so that no copy of the sums is needed: chunks that were
    added before a failure are made anew and taken out.

    Args:
        sums: added to.
        squares: of values, ``[C]``, added to; of classes none.
        samples: checked.
        sign: 1 or -1.
    """
    done = 0
    try:
        for phi, targets in samples.chunks(sums.gram.device):
            with uninterrupted():
                _add_chunk(sums, squares, phi, targets, sign)
                done += 1
        yield
    except BaseException:
        with uninterrupted():
            for _, (phi, targets) in zip(range(done), samples.chunks(sums.gram.device), strict=False):
                _add_chunk(sums, squares, phi, targets, -sign)
        raise


def _add_chunk(sums: IntegerSums, squares: list[int], phi: Tensor, targets: Tensor, sign: int) -> None:
    """Add one chunk; what fails leaves the sums as they were."""
    n_outputs = sums.cross.shape[1]
    if targets.ndim == 2:
        cross, more = _value_sums(phi, targets), targets.square().sum(0).tolist()
        integer_gram(phi, out=sums.gram, sign=sign)
        sums.cross.add_(cross, alpha=sign)
        squares[:] = [a + sign * b for a, b in zip(squares, more, strict=True)]
        return
    counts = torch.bincount(targets, minlength=n_outputs)
    parts = []
    if sums.class_grams is not None:
        parts = [(int(c), phi[targets == c]) for c in counts.nonzero().squeeze(1)]
    class_sums(phi, targets, sums.cross, sign=sign)
    try:
        integer_gram(phi, out=sums.gram, sign=sign)
    except BaseException:
        class_sums(phi, targets, sums.cross, sign=-sign)
        raise
    for c, members in parts:  # of fewer samples each, for which there is room where there was for all
        assert sums.class_grams is not None
        integer_gram(members, out=sums.class_grams[c], sign=sign)
    sums.counts.add_(counts, alpha=sign)


def _value_sums(phi: Tensor, targets: Tensor) -> Tensor:
    """Return ``sum_n phi[n,i]·t[n,c]`` int64 ``[M, C]``; float64 holds each product and their sum exactly."""
    sums = torch.zeros((phi.shape[1], targets.shape[1]), dtype=torch.float64, device=phi.device)
    height = max(1, VALUE_BYTES // (8 * phi.shape[1]))
    for rows, values in zip(phi.split(height), targets.split(height), strict=True):
        sums += rows.double().T @ values.double()
    return sums.long()


def require_held(owner: str, sums: IntegerSums, n_left: int, *, known: bool) -> None:
    """Raise where samples were taken out that sums did not hold, so far as the sums that are left show.

    Args:
        owner: who is asked, named in the error.
        sums: what is left.
        n_left: of how many samples.
        known: a ledger holds them to have been there: sums of classes, which take longest, need not show it.
    """
    diagonal = sums.gram.diagonal()
    counted = sums.counts.sum() > 0
    held = bool((diagonal >= 0).all()) and bool((sums.counts >= 0).all())
    if held and not known and bool(counted):  # features are 0 to 127, and so are their sums over a class
        held = bool((sums.cross >= 0).all()) and bool((sums.cross <= 127 * sums.counts).all())
    if held and not n_left:
        held = not any(bool(each.any()) for each in (sums.gram, sums.cross, sums.counts))
    if not held:
        raise ValueError(
            f"{owner}: the samples must be among those that the statistics hold, got some that are not, or that were "
            "taken out before"
        )
