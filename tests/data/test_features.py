"""Features of any kind: what float32 holds stays float32, what it would lose beside its mean does not."""

import numpy as np
import pytest
import torch

from glai_native.data.features import float_features

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=(50, 2))
SECONDS = 1.7e9 + RNG.integers(0, 60, (50, 1))


@pytest.mark.parametrize(
    ("x", "dtype"),
    [
        (NORMAL, np.float32),
        (NORMAL.astype(np.float16), np.float32),
        (np.hstack([NORMAL, SECONDS]), np.float64),
        (SECONDS.astype(np.int64), np.float64),
        (SECONDS.astype(np.int32), np.float64),
        (SECONDS.astype(np.uint64), np.float64),
        (SECONDS.astype(object), np.float64),
        (SECONDS.astype(np.float32), np.float32),  # lost before it came
        (-SECONDS, np.float64),
        (1e-9 * NORMAL + 1, np.float64),
        (np.full((50, 1), 1.7e9 + 1), np.float32),  # says nothing
        (np.full((50, 1), 0.1) * np.array([[1], [1 + 2.0**-52]] * 25), np.float32),  # rounding alone
        (NORMAL + 1000, np.float32),
        (NORMAL > 0, np.float32),
        (NORMAL.astype("U8"), np.float32),
        (RNG.integers(0, 256, (50, 3), dtype=np.uint8), np.float32),
        (np.zeros((0, 3)), np.float32),
    ],
)
def test_dtype(x, dtype):
    found = float_features("a", x)
    assert found.dtype == dtype
    assert np.array_equal(found, x.astype(np.float64).astype(dtype))


def test_a_projection_that_is_there_says_in_what_it_centres():
    assert float_features("a", SECONDS[:1], centred_in=torch.float64).dtype == np.float64
    assert float_features("a", SECONDS, centred_in=torch.float32).dtype == np.float32


def changed(row, column, value, dtype=np.float64):
    x = NORMAL.astype(dtype)
    x[row, column] = value
    return x


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (changed(7, 1, np.nan), "a: X must be finite numbers in float32, got NaN in row 7, column 1; "),
        (changed(0, 0, -np.inf), r"got infinity \(inf\) in row 0, column 0$"),
        (changed([3, 9], [1, 0], np.nan), "got NaN in row 3, column 1 and 1 more"),
        (changed(2, 1, 1e300), r"got 1e\+300, too large, in row 2, column 1"),
        (changed(2, 1, np.nan, np.float32), "got NaN in row 2, column 1"),
        (
            changed(4, 1, None, object),
            "got NaN in row 4, column 1|must be numbers, got None in row 4, column 1",
        ),
        (changed(5, 0, "red", object), "a: X must be numbers, got 'red' in row 5, column 0 of dtype object"),
        (changed(5, 0, "red", "U9"), "X must be numbers, got .*'red'.* in row 5, column 0 of dtype <U9"),
        (NORMAL + 1j, "X must be real numbers, got complex128"),
        (NORMAL.astype("M8[s]"), "X must be plain numbers, got datetime64"),
    ],
)
def test_what_is_no_number_is_named(x, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        float_features("a", x, "X")


def test_a_column_that_has_a_name_is_named():
    with pytest.raises(ValueError, match=r"in row 7, column 1 \('age'\)"):
        float_features("a", changed(7, 1, np.nan), "X", ["size", "age"])
