"""Raw features of any kind become the floats that training takes here: float32, where that holds what they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

# A column is kept in float64 where float32's rounding would be more than this part of its range: times in seconds since
# 1970 over a day, for example. Below a few roundings of float64 itself it is constant, whatever it is kept in.
FINEST_PART = 2.0**-12
CONSTANT_PART = 2.0**-48
HALF_ULP = 2.0**-24  # of a float32 of magnitude 1


def float_features(
    owner: str,
    x: NDArray[Any],
    name: str = "x",
    columns: Sequence[str] | None = None,
    *,
    centred_in: torch.dtype | None = None,
) -> NDArray[Any]:
    """Return features ``[N, D]`` as float32, or float64 where float32 would lose a column beside its mean.

    Gates and numbers read centred features; who centres takes the mean away in the dtype that this returns.

    Args:
        owner: who is asked, named in the errors.
        x: numbers of any dtype, or objects and text that read as numbers.
        name: what the owner calls it.
        columns: names of the columns, where they have some.
        centred_in: what a projection that is there already centres in, whatever these few samples would need.

    Raises:
        ValueError: a value is no number, not finite, or beyond float32; its row and column are named.
    """
    if x.dtype.kind not in "biuf":
        x = _as_numbers(owner, x, name, columns)
    if not x.size:
        return x.astype(np.float32)
    least, most = (x.min(0).astype(np.float64), x.max(0).astype(np.float64))
    largest = np.maximum(np.abs(least), np.abs(most))
    if not bool((largest <= np.finfo(np.float32).max).all()):  # NaN is no number to compare
        raise _not_finite(owner, x, name, columns)
    if centred_in is not None:
        return np.ascontiguousarray(x, dtype=np.float64 if centred_in == torch.float64 else np.float32)
    spread = most - least
    lost = (largest * HALF_ULP > spread * FINEST_PART) & (spread > largest * CONSTANT_PART)
    fine = x.dtype.itemsize > 4 or (x.dtype.kind in "iu" and x.dtype.itemsize == 4)
    return np.ascontiguousarray(x, dtype=np.float64 if fine and bool(lost.any()) else np.float32)


def _as_numbers(owner: str, x: NDArray[Any], name: str, columns: Sequence[str] | None) -> NDArray[np.float64]:
    if x.dtype.kind in "mMcV":
        kind = {"c": "real", "V": "plain"}.get(x.dtype.kind, "plain")
        raise ValueError(f"{owner}: {name} must be {kind} numbers, got {x.dtype}; convert it first")
    try:
        return x.astype(np.float64)
    except (ValueError, TypeError) as error:
        for (row, column), value in np.ndenumerate(x):
            try:
                float(value)
            except (ValueError, TypeError):
                raise type(error)(
                    f"{owner}: {name} must be numbers, got {value!r} in {_place(row, column, columns)} of dtype "
                    f"{x.dtype} ({error}); encode text as numbers first, scikit-learn's OneHotEncoder does"
                ) from None
        raise


def _not_finite(owner: str, x: NDArray[Any], name: str, columns: Sequence[str] | None) -> ValueError:
    with np.errstate(over="ignore", invalid="ignore"):
        bad = ~np.isfinite(x.astype(np.float32))
    row, column = (int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
    value, others = x[row, column], int(bad.sum()) - 1
    found = "NaN" if value != value else "infinity (inf)" if np.isinf(value) else f"{value:g}, too large,"
    more = f" and {others:,} more" if others else ""
    gaps = "; scikit-learn's SimpleImputer fills gaps" if value != value else ""
    return ValueError(
        f"{owner}: {name} must be finite numbers in float32, got {found} in {_place(row, column, columns)}{more}{gaps}"
    )


def _place(row: int, column: int, columns: Sequence[str] | None) -> str:
    named = f" ({columns[column]!r})" if columns is not None else ""
    return f"row {row}, column {column}{named}"
