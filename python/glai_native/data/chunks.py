"""Of samples that come in chunks an error says in which."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

# Who says so, at the beginning of an error: not whom the caller has asked.
_OWNER = re.compile(r"^[A-Za-z_]\w*(\.\w+)?: ")


@contextmanager
def of_chunk(owner: str, number: int, begin: int | None = None) -> Iterator[None]:
    """Name the chunk in an error of its samples, whose rows are counted within it.

    Args:
        owner: who was asked.
        number: of the chunk, counted from 0, as the caller has cut them.
        begin: its first row, where it was not the caller who has cut them; None: it was.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        where = f"chunk {number}" if begin is None else f"rows from {begin:,} on"
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{owner}: {where}: {_OWNER.sub('', str(error), count=1)}") from error
