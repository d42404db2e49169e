"""Held-out figures waver from epoch to epoch: this file says when one was clearly better than those before."""

from __future__ import annotations

import math
from collections.abc import Sequence

from glai_native.solvers.solution import SgdEpoch

# Of an accuracy: a share of its standard error. The best of many epochs that are alike keeps growing by less: on
# Tiny-ImageNet features by a tenth of a standard error every few epochs, while the loss rose from the second on.
CLEAR_ERRORS = 0.25
CLEAR_LOSS = 0.005  # of the loss, relative


def clear_progress(history: Sequence[SgdEpoch], n_held_out: int, of_values: bool) -> int:
    """Return the number of the last epoch that was clearly better than each before it; 0: there is none.

    Args:
        history: all epochs, each with its held-out loss and score.
        n_held_out: samples that these are means over.
        of_values: whether the score is the negative squared error, which the loss then says too.
    """
    last, most, least = 0, -math.inf, math.inf
    for epoch in history:
        score, loss = epoch.validation_score, epoch.validation_loss
        error = math.sqrt(max(most * (1 - most), 0.0) / n_held_out) if last and not of_values else 0.0
        higher = not of_values and score > most + CLEAR_ERRORS * error
        lower = loss < least * (1 - CLEAR_LOSS)
        if higher or lower:
            last = epoch.epoch
            most, least = max(most, score), min(least, loss)
    return last
