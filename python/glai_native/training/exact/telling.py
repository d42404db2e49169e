"""What sums say is told in the words of the learner that has them; and that ids name several samples."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from glai_native.solvers.exact.ledger import Ledger, read_ids
from glai_native.solvers.exact.sums import IntegerStatistics

_OF_SUMS = re.compile(r"^(update|downdate|accumulate|solve): ")
STACK = 6  # from here to who called the learner


@contextmanager
def in_words_of(owner: str) -> Iterator[None]:
    """Name the learner, whom the caller knows, in errors of its sums."""
    try:
        yield
    except (TypeError, ValueError) as error:
        said, found = _OF_SUMS.subn(f"{owner}: ", str(error), count=1)
        if not found:
            raise
        own = type(error).__module__.startswith("glai_native.")  # whose constructors take a sentence
        kind = type(error) if own else TypeError if isinstance(error, TypeError) else ValueError
        raise kind(said) from error


def warn_of_ids(owner: str, before: Ledger | None, ids: Any, weight: Any) -> None:
    """Warn where samples that were learnt have ids that others have: those of a ledger, or of each other.

    Args:
        owner: who has learnt them.
        before: which samples there were; None: nobody knows.
        ids: of the samples ``[N]``, or None.
        weight: of the samples ``[N]``, or None; of weight 0 none was learnt.
    """
    if before is None or ids is None:
        return
    read = read_ids(owner, ids, len(ids))
    if read is not None:
        _warn(owner, before.in_use(read if weight is None else read[np.asarray(weight) > 0]))


class Encoder:
    """Encodes the targets of chunks, and counts how many samples their weights add.

    Args:
        encode: of the learner.
    """

    def __init__(self, encode: Callable[[IntegerStatistics, Any, Any], Any]) -> None:
        self._encode, self.added = encode, 0

    def __call__(self, statistics: IntegerStatistics, y: Any, sample_weight: Any) -> Any:
        """Return targets as statistics take them."""
        targets = self._encode(statistics, y, sample_weight)
        if sample_weight is not None:
            weight = np.asarray(sample_weight, dtype=np.float64)
            self.added += int((weight[weight > 0] - 1).sum())
        return targets


def warn_of_ids_of_chunks(owner: str, before: Ledger | None, after: Ledger | None, added: int) -> None:
    """Warn as :func:`warn_of_ids`, of all samples between two ledgers, ``added`` of which are repetitions by weight."""
    if before is None or after is None or after.ids is None:
        return
    _warn(owner, after.repeated()[1] - before.repeated()[1] - added, STACK + 1)


def _warn(owner: str, in_use: int, stack: int = STACK) -> None:
    if in_use > 0:
        warnings.warn(
            f"{owner}: of the ids {in_use:,} were in use, by samples that were learnt before or with them; an id then "
            "names several samples",
            stacklevel=stack,
        )
