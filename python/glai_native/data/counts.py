"""Counts and seeds are integers of any library: Python's, NumPy's, a tensor's scalar."""

from __future__ import annotations

import operator


def require_integer(owner: str, name: str, value: object) -> int:
    """Return an integer as Python's, whose arithmetic has no end; raise unless it is one."""
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ValueError(f"{owner}: {name} must be an int, got {value!r}") from None


def require_count(owner: str, name: str, value: object, least: int = 1) -> int:
    """Return a count as Python's int; raise unless it is an integer >= ``least``."""
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = least - 1
    if count < least:
        raise ValueError(f"{owner}: {name} must be an int >= {least}, got {value!r}")
    return count


def require_seed(owner: str, seed: object) -> int:
    """Return a seed as Python's int; raise unless it is an integer in [0, 2**32), which NumPy's generators take."""
    try:
        number = operator.index(seed)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if not 0 <= number < 1 << 32:
        raise ValueError(f"{owner}: seed must be an int in [0, 2**32), got {seed!r}")
    return number
