"""Rows are drawn uniformly and alike however many are added at a time, and stay within their bytes."""

import numpy as np
import pytest

from glai_native.data.preparing import drawn
from glai_native.data.preparing.drawn import RowDraw
from glai_native.data.preparing.frames import RawColumn

N = 4000


def table(n=N):
    texts = np.array([None if i % 7 == 0 else "x" * (i % 50) for i in range(n)], dtype=object)
    numbers = np.arange(n, dtype=np.float64)
    numbers[::9] = np.nan
    return {"row": np.arange(n), "number": numbers, "text": texts, "on": np.arange(n) % 2 > 0}


def draw(columns, size, seed=0, categories=()):
    found, n = RowDraw(seed), len(columns["row"])
    for i in range(0, n, size):
        found.add({name: RawColumn(values[i : i + size]) for name, values in columns.items()})
    return found.drawn("d", categories)


@pytest.mark.parametrize(("name", "most"), [("MOST_ROWS", 300), ("MOST_BYTES", 30_000)])
def test_the_same_rows_are_drawn_of_chunks_of_any_size(monkeypatch, name, most):
    monkeypatch.setattr(drawn, name, most)
    whole = draw(table(), N)
    assert len(whole.rows) == 300 if name == "MOST_ROWS" else 200 < len(whole.rows) < 400
    assert (np.diff(whole.rows) > 0).all()
    for size in (1, 64, 999):
        found = draw(table(), size)
        np.testing.assert_array_equal(found.rows, whole.rows)
        for column, values in whole.columns.by_name.items():
            np.testing.assert_array_equal(found.columns.by_name[column], values)
    np.testing.assert_array_equal(whole.columns.by_name["row"], whole.rows)
    assert not np.array_equal(draw(table(), N, seed=1).rows, whole.rows)


def test_every_row_is_as_likely(monkeypatch):
    monkeypatch.setattr(drawn, "MOST_ROWS", 20)
    counts = np.zeros(100)
    for seed in range(500):
        counts[draw(table(100), 30, seed).rows] += 1
    assert ((counts - 100) ** 2 / 80).sum() < 99 + 5 * np.sqrt(2 * 99)  # chi squared


def test_few_rows_are_all_drawn_and_one_at_least(monkeypatch):
    found = draw(table(), 77)
    np.testing.assert_array_equal(found.rows, np.arange(N))
    assert found.fit("d").fitted_on is None
    assert found.fit("d", np.arange(N // 2)).fitted_on is None
    monkeypatch.setattr(drawn, "MOST_BYTES", 1)
    assert draw(table(), 77).fit("d").fitted_on == (1, N)


def test_rows_that_are_not_trained_on_are_not_seen(monkeypatch):
    monkeypatch.setattr(drawn, "MOST_ROWS", 1000)
    found = draw(table(), 500)
    preparation = found.fit("d", np.arange(N // 2)[::-1])
    seen = found.rows[found.rows < N // 2]
    assert preparation.fitted_on == (len(seen), N // 2)
    assert preparation.columns["row"].mean == pytest.approx(seen.mean())


def test_texts_in_rows_that_are_not_drawn_are_named(monkeypatch):
    monkeypatch.setattr(drawn, "MOST_ROWS", 100)
    columns = table()
    columns["row"] = columns["row"].astype(object)
    row = int(np.setdiff1d(np.arange(N), draw(table(), N).rows)[-1])
    columns["row"][row] = "many"
    for size in (N, 64):
        with pytest.raises(
            ValueError,
            match=f"d: row {row}, column 'row': 'many' is not a number, and the 100 of 4,000 rows that were drawn .* "
            "hold no texts there; correct it, leave it empty where it is missing, or name 'row' among the categories",
        ):
            draw(columns, size)
    assert draw(columns, 64, categories=["row"]).columns.categories == ["row", "text"]
