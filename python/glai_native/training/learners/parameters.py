"""What a learner is told, as the functions below it take it: one dict of the solver's options, one integer as seed."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.utils import check_random_state
from torch import Tensor


def solver_options(
    owner: str, options: Mapping[str, Any] | None, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """Join ``solver_options`` and parameters of its own that are not None; numbers of other libraries become Python's.

    Raises:
        ValueError: one is given both ways, or ``options`` are no dict.
    """
    if not isinstance(options, Mapping | None):
        raise ValueError(f"{owner}: solver_options must be a dict or None, got {options!r:.80}")
    joined = dict(options or {})
    for name, value in parameters.items():
        if value is None:
            continue
        if name in joined:
            raise ValueError(
                f"{owner}: {name} must be given once, got {name}={value!r} and {joined[name]!r} in solver_options"
            )
        joined[name] = value
    return {
        name: value.item()
        if isinstance(value, (np.generic, np.ndarray, Tensor)) and not value.ndim
        else value
        for name, value in joined.items()
    }


def seed_of(random_state: int | np.random.RandomState | None) -> int:
    """Return an integer as it is; draw one of a RandomState, or for None of NumPy's global one, as scikit-learn does.

    Raises:
        ValueError: it is none of these.
    """
    try:
        return operator.index(random_state)  # type: ignore[arg-type]
    except TypeError:
        return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
