"""A table that is read in chunks is split and prepared as it is read whole."""

import numpy as np
import pytest

from glai_native.data import streaming
from glai_native.data import trained_on as samples_of
from glai_native.data.preparing import drawn
from glai_native.data.sources import Rows
from glai_native.data.streaming import size_of, stream_source
from glai_native.data.tables import NO_TABLE, Preparing

pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

N = 300


def make_frame(n=N):
    """Columns that look otherwise in some chunks than in others."""
    rng = np.random.default_rng(0)
    rows = np.arange(n)
    area = rng.normal(1e5, 7, n)
    area[200::3] = np.nan
    code = np.char.zfill(rng.integers(1, 8, n).astype(str), 2).astype(object)
    code[100:] = "A7"
    columns = {"id": rows + 5, "area": area, "code": code, "zip": rng.integers(1000, 1003, n)}
    columns["on"] = np.where(rows < 100, rows % 2 > 0, None)
    columns["late"] = np.where(rows < 220, None, "there").astype(object)
    columns["half"] = np.where(rows < 200, "True", rows % 3).astype(object)
    columns["town"] = rng.choice(["Gent", "Oslo", "Vigo", "NA"], n)
    return pandas.DataFrame(columns).assign(gone=np.nan, label=rng.choice(["a", "b", "c"], n))


def write(frame, path):
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.astype({"half": str}).to_parquet(path, row_group_size=110)
    return path


def together(rows):
    chunks = list(rows.chunks())
    joined = [np.concatenate([getattr(one, name) for one in chunks]) for name in ("x", "y", "ids")]
    return Rows(*joined)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("share", [None, 0.3])
@pytest.mark.parametrize("size", [7, 90, 1000])
def test_it_is_the_table_read_whole(tmp_path, monkeypatch, suffix, share, size):
    path = write(make_frame(), tmp_path / f"d{suffix}")
    told = {"preparing": Preparing(["zip"]), "tested_on": samples_of.TestedOn(share), "seed": 3}
    whole = samples_of.trained_on(path, **told)
    monkeypatch.setattr(streaming, "ROWS", size)
    found = samples_of.streamed_on(path, **told)
    assert found.source.names == whole.source.names
    assert found.source.names.preparation.to_json() == whole.source.names.preparation.to_json()
    assert found.task == whole.task
    for part in ("train", "test"):
        one, other = getattr(found, part), getattr(whole, part)
        assert len(one) == len(other)
        if len(other):
            one, other = together(one), other[np.argsort(other.ids)]
            np.testing.assert_array_equal(one.x.view(np.int32), other.x.view(np.int32))
            assert (one.y.tolist(), one.ids.tolist()) == (other.y.tolist(), other.ids.tolist())


def test_ids_are_texts_in_all_chunks_where_one_is(tmp_path, monkeypatch):
    ids = [*map(str, range(N - 1)), "007"]
    for rows, expected in ((ids, ids), (range(N), [*range(N)])):
        path = write(make_frame()[["zip", "label"]].assign(id=rows), tmp_path / "d.csv")
        monkeypatch.setattr(streaming, "ROWS", 90)
        assert stream_source(path, None, NO_TABLE).parts["all"].ids.tolist() == expected
        assert samples_of.trained_on(path).source.parts["all"].ids.tolist() == expected


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_part_that_is_drawn_prepares_alike_in_chunks_of_any_size(tmp_path, monkeypatch, suffix):
    path = write(make_frame(), tmp_path / f"d{suffix}")
    monkeypatch.setattr(drawn, "MOST_ROWS", 120)
    found = []
    for size in (7, 90, 1000):
        monkeypatch.setattr(streaming, "ROWS", size)
        found.append(
            samples_of.streamed_on(
                path, preparing=Preparing(), tested_on=samples_of.TestedOn(0.3)
            ).source.names.preparation
        )
    assert found[0].to_json() == found[1].to_json() == found[2].to_json()
    assert found[0].fitted_on[1] == 210
    assert 50 < found[0].fitted_on[0] < 110


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_what_contradicts_the_part_is_named_by_row_and_column(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(streaming, "ROWS", 50)
    monkeypatch.setattr(drawn, "MOST_ROWS", 40)
    frame = make_frame()
    draw = stream_source(write(frame, tmp_path / f"d{suffix}"), None, NO_TABLE, preparing=Preparing())
    row = int(np.setdiff1d(np.arange(N), draw.drawn.rows)[-1])
    frame["area"] = frame["area"].astype(object)
    frame.loc[row, "area"] = np.inf
    path = write(frame.astype({"area": float}), tmp_path / f"inf{suffix}")
    samples = samples_of.streamed_on(path, preparing=Preparing(), tested_on=samples_of.TestedOn())
    with pytest.raises(ValueError, match=f"inf.*: row {row}, column 'area': inf is not a finite number"):
        together(samples.train)
    frame.loc[row, "area"] = "much"
    path = write(frame.astype({"area": str}) if suffix == ".parquet" else frame, tmp_path / f"text{suffix}")
    with pytest.raises(
        ValueError, match=f"text.*: row {row}, column 'area': 'much' is not a number, and the 40 of"
    ):
        stream_source(path, None, NO_TABLE, preparing=Preparing())
    with pytest.raises(ValueError, match="its columns must be prepared before they are read"):
        next(draw.parts["all"].chunks())
    with pytest.raises(ValueError, match=r"--drop must name columns of .*, got 'tow'"):
        stream_source(path, None, NO_TABLE, preparing=Preparing(dropped=["tow"]))


def test_a_table_of_no_rows(tmp_path):
    (tmp_path / "d.csv").write_text("a,label\n")
    with pytest.raises(ValueError, match=r"d\.csv: must hold samples, got none"):
        stream_source(tmp_path / "d.csv", None, NO_TABLE, preparing=Preparing())


def test_a_parquet_is_as_large_as_its_values(tmp_path):
    frame = pandas.DataFrame({name: np.zeros(5000) for name in "abc"})
    frame.to_parquet(tmp_path / "d.parquet")
    frame.to_csv(tmp_path / "d.csv", index=False)
    assert size_of(tmp_path / "d.parquet") == 4 * 3 * 5000 > (tmp_path / "d.parquet").stat().st_size
    assert size_of(tmp_path / "d.csv") == size_of(tmp_path) - (tmp_path / "d.parquet").stat().st_size


def test_parts_of_a_parquet_of_numbers_are_joined_to_chunks(tmp_path, monkeypatch):
    rows = np.arange(20)
    frame = pandas.DataFrame({"a": rows, "b": rows / 7, "label": rows % 2, "id": rows + 100})
    frame.to_parquet(tmp_path / "d.parquet", row_group_size=7)
    monkeypatch.setattr(streaming, "ROWS", 8)
    found = stream_source(tmp_path / "d.parquet", None, NO_TABLE).parts["all"]
    assert [len(one) for one in found.chunks()] == [8, 8, 4]
    joined = together(found)
    assert np.array_equal(joined.x, frame[["a", "b"]])
    assert np.array_equal(joined.y, frame["label"])
    assert np.array_equal(joined.ids, frame["id"])
