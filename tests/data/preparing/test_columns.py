"""Columns of any frame become numbers or categories, and what is neither is named by row and column."""

import datetime

import numpy as np
import pytest
import torch

from glai_native.data.preparing.columns import typed_columns
from glai_native.data.preparing.frames import raw_columns

pandas = pytest.importorskip("pandas")
arrow = pytest.importorskip("pyarrow")

A = [1.5, None, 3.0, -2.0]
TOWN = ["Vigo", None, "Oslo", "Vigo"]


class Streams:
    """All that is asked of a frame of polars: that it hands itself out."""

    def __init__(self, table):
        self._table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


class Interchanges:
    """An older frame, of the interchange protocol alone."""

    def __init__(self, table):
        self._table = table

    def __dataframe__(self, nan_as_null=False, allow_copy=True):
        return self._table.__dataframe__(nan_as_null, allow_copy)


def table():
    towns = arrow.array(TOWN).dictionary_encode()
    return arrow.table({"a": A, "on": [True, False, True, None], "n": [1, 2, None, 4], "town": towns})


def of_pandas():
    frame = pandas.DataFrame({"a": A, "on": pandas.array([True, False, True, None], dtype="boolean")})
    return frame.assign(n=pandas.array([1, 2, None, 4], dtype="Int64"), town=pandas.Categorical(TOWN))


def of_polars():
    polars = pytest.importorskip("polars")
    towns = polars.Series(TOWN, dtype=polars.Categorical)
    return polars.DataFrame({"a": A, "on": [True, False, True, None], "n": [1, 2, None, 4], "town": towns})


FRAMES = {
    "pandas": of_pandas,
    "polars": of_polars,
    "arrow": table,
    "stream": lambda: Streams(table()),
    "interchange": lambda: Interchanges(table().drop_columns("town").append_column("town", [TOWN])),
    "mapping": lambda: {
        "a": np.array(A, dtype=object),
        "on": np.array([1, 0, 1, np.nan], dtype=np.float16),
        "n": [1, 2, np.nan, 4],
        "town": np.array(TOWN, dtype=object),
    },
}


@pytest.mark.parametrize("kind", FRAMES)
def test_frames_of_all_kinds_are_the_same_columns(kind):
    columns = typed_columns("d", raw_columns("d", FRAMES[kind]()))
    assert list(columns.by_name) == ["a", "on", "n", "town"]
    assert (columns.categories, len(columns)) == (["town"], 4)
    np.testing.assert_array_equal(columns.by_name["a"], [1.5, np.nan, 3, -2])
    np.testing.assert_array_equal(columns.by_name["on"], [1, 0, 1, np.nan])
    np.testing.assert_array_equal(columns.by_name["n"], [1, 2, np.nan, 4])
    assert columns.by_name["town"].tolist() == TOWN
    part = columns[np.array([3, 1])]
    assert (len(part), part.by_name["town"].tolist()) == (2, ["Vigo", None])


def test_frames_of_others_need_pyarrow(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for frame in (Streams(table()), Interchanges(table())):
        with pytest.raises(
            ValueError, match=r"d: reading a .*\.(Streams|Interchanges) needs pyarrow: pip install"
        ):
            raw_columns("d", frame)
    assert [*raw_columns("d", of_pandas())] == ["a", "on", "n", "town"]


def test_arrays_and_half_precision():
    x = np.arange(6).reshape(3, 2)
    for array in (x, x.astype(np.float16), torch.from_numpy(x), torch.from_numpy(x).bfloat16()):
        columns = typed_columns("d", raw_columns("d", array))
        np.testing.assert_array_equal(np.stack([*columns.by_name.values()], 1), x)
    assert list(columns.by_name) == ["x0", "x1"]
    halves = arrow.table({"h": arrow.array(np.array([0.5, 2], dtype=np.float16))})
    assert typed_columns("d", raw_columns("d", halves)).by_name["h"].tolist() == [0.5, 2]
    with pytest.raises(
        ValueError, match=r"X must be a data frame, a mapping of columns or an array \[N, K\]"
    ):
        raw_columns("d", np.arange(3))


def test_numbers_may_be_names():
    columns = typed_columns(
        "d", raw_columns("d", {"zip": [7, 7.0, np.nan], "on": [True, False, True]}), ["zip", "on"]
    )
    assert columns.by_name["zip"].tolist() == ["7", "7", None]
    assert columns.by_name["on"].tolist() == ["1", "0", "1"]


def test_texts_that_read_as_numbers_are_numbers():
    columns = typed_columns("d", raw_columns("d", {"a": np.array([" 1", "2e3", None], dtype=object)}))
    np.testing.assert_array_equal(columns.by_name["a"], [1, 2000, np.nan])
    mixed = np.array(["A1", "12", "B", "C"], dtype=object)
    assert typed_columns("d", raw_columns("d", {"a": mixed})).categories == ["a"]


@pytest.mark.parametrize(
    ("values", "known", "sentence"),
    [
        (
            ["1", "2", "abc"],
            None,
            "d: row 2, column 'age': 'abc' is not a number, as 2 of the 3 values there are; correct",
        ),
        (["1", "2", "abc"], None, "or name 'age' among the categories"),
        (["1", "1_0", "3"], None, "row 1, column 'age': '1_0' is not a number"),
        (
            ["x"],
            {"age": False},
            "row 0, column 'age': 'x' is not a number, and the model was trained on numbers",
        ),
        (
            [1, np.inf],
            None,
            "row 1, column 'age': inf is not a finite number in float32; correct it, or leave it empty",
        ),
        ([1e39, 1], None, r"row 0, column 'age': 1e\+39 is not a finite number in float32"),
        ([1j], None, "column 'age' must hold numbers or texts, got complex128"),
        ([datetime.date(2024, 1, 1)], None, "column 'age' must hold numbers or texts, got date"),
    ],
)
def test_what_is_neither(values, known, sentence):
    array = np.array(values, dtype=object if isinstance(values[0], str | datetime.date) else None)
    with pytest.raises(ValueError, match=sentence):
        typed_columns("d", raw_columns("d", {"age": array}), known=known)


def test_dates_and_columns_of_other_lengths():
    when = pandas.DataFrame({"when": pandas.to_datetime(["2024-01-01"])})
    for frame in (when, arrow.table(when)):
        with pytest.raises(
            ValueError, match=r"d: column 'when' must hold numbers or texts, got .*; convert it"
        ):
            raw_columns("d", frame)
    with pytest.raises(ValueError, match="columns must be .* equally long"):
        typed_columns("d", raw_columns("d", {"a": [1, 2], "b": [1]}))
