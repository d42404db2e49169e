"""Tables are read by the names of their columns, to the last bit, and refused by row and column."""

import numpy as np
import pytest

from glai_native.data.labelled import load_data
from glai_native.data.sources import read_source
from glai_native.data.tables import ID, TableNames, column_names, read_table

pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    columns = {"id": [f"s{i}" for i in range(12)], "a": rng.normal(size=12), "b": rng.integers(0, 9, 12)}
    return pandas.DataFrame(columns | {"on": np.arange(12) % 2 > 0, "class": ["x", "y", "z"] * 4})


def write(frame, path):
    frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_columns_labels_and_ids(frame, tmp_path, suffix):
    table = read_table(write(frame, tmp_path / f"d{suffix}"), None, TableNames(), labelled=True)
    assert table.names == TableNames(["a", "b", "on"], "class")
    np.testing.assert_array_equal(table.x, frame[["a", "b", "on"]].to_numpy(dtype=np.float64))
    assert table.y.tolist() == frame["class"].tolist()
    assert table.ids.tolist() == frame["id"].tolist()
    assert column_names(tmp_path / f"d{suffix}") == list(frame.columns)
    write(frame.drop(columns="class"), tmp_path / f"e{suffix}")
    data = load_data(tmp_path / f"e{suffix}", label="on")
    assert (data.names.label, data.classes, data.x_train.shape[1]) == ("on", [False, True], 2)


def test_numbers_are_those_of_an_npz(frame, tmp_path):
    """pandas' own reading of decimals is off by an ulp now and then."""
    x = np.random.default_rng(1).normal(size=(500, 3)) * 10.0 ** np.arange(-9, 3, 4)
    write(pandas.DataFrame(x, columns=list("abc")), tmp_path / "d.csv")
    np.testing.assert_array_equal(read_source(tmp_path / "d.csv").rows("all").x, x)
    (tmp_path / "e.csv").write_text("a,b\n1,2,\n3,4,\n")  # each line ends in a comma
    np.testing.assert_array_equal(read_source(tmp_path / "e.csv").rows("all").x, [[1, 2], [3, 4]])


def test_a_model_s_columns_are_taken_by_name(frame, tmp_path):
    known = TableNames(["b", "a"], "class")
    mixed = frame[["on", "class", "a", "b"]].assign(town="Vigo")
    table = read_table(write(mixed, tmp_path / "d.csv"), None, known, labelled=True)
    np.testing.assert_array_equal(table.x, frame[["b", "a"]].to_numpy())
    assert (
        read_table(write(mixed.drop(columns="class"), tmp_path / "e.csv"), None, known, labelled=False).y
        is None
    )


@pytest.mark.parametrize(
    ("change", "arguments", "sentence"),
    [
        ({"town": "Vigo"}, {}, "column 'town' must be numbers, got 'Vigo' in row 0; leave it out"),
        ({"a": [*"1234567890", "?", "2"]}, {}, r"column 'a' must be numbers, got '\?' in row 10"),
        (
            {"class": [*"xyzxyzxyzxy", None]},
            {},
            "column 'class' must say of each row what it is, got none in row 11",
        ),
        ({"id": [*range(11), None]}, {}, "column 'id' must say of each row what it is, got none in row 11"),
        (
            {"y": 1},
            {},
            "--label must name the label's column: any of 'y', 'class' may be the label, got columns 'id'",
        ),
        (
            {},
            {"label": "c"},
            r"--label must name a column of .*d\.csv \('id', 'a', 'b', 'on', 'class'\), got 'c'",
        ),
        (
            {},
            {"known": TableNames(["a", "c"])},
            "must have the 2 columns that the model .* got none called 'c'",
        ),
    ],
)
def test_bad_columns(frame, tmp_path, change, arguments, sentence):
    path = write(frame.assign(**change), tmp_path / "d.csv")
    arguments = {"label": None, "known": TableNames()} | arguments
    with pytest.raises(ValueError, match=sentence):
        read_table(path, labelled=True, **arguments)


@pytest.mark.parametrize(
    "odd", ["003", "+3", "-0", "1e3", " 3", "3 ", "2.0", "1_0", "٣", str(1 << 63), "a", "True"]
)
def test_ids_of_a_csv_are_read_as_they_are_written(frame, tmp_path, odd):
    for last, expected in (("-7", [*range(11), -7]), (odd, [*map(str, range(11)), odd])):
        path = write(frame.assign(id=[*map(str, range(11)), last]), tmp_path / "d.csv")
        assert read_table(path, None, TableNames(), labelled=True).ids.tolist() == expected
    path = write(frame[["a", "b"]].assign(id=range(12)), path)
    for label, known in ((ID, TableNames()), ("b", TableNames([ID, "a"]))):
        table = read_table(path, label, known, labelled=True)
        assert table.ids is None
        assert (table.y if label == ID else table.x[:, 0]).tolist() == [*range(12)]  # no ids, but numbers


def test_ids_of_a_parquet_have_their_type(frame, tmp_path):
    for ids in ([*map(str, range(12))], [*range(12)]):
        path = write(frame.assign(id=ids), tmp_path / "d.parquet")
        assert read_table(path, None, TableNames(), labelled=True).ids.tolist() == ids
    path = write(frame.assign(id=np.arange(12) / 2), path)
    with pytest.raises(ValueError, match="column 'id' must hold integers or texts, got float64"):
        read_table(path, None, TableNames(), labelled=True)


def test_gaps_are_named_by_row_and_column(frame, tmp_path):
    for suffix in (".csv", ".parquet"):
        path = write(frame.assign(b=pandas.array([*range(11), None], dtype="Int64")), tmp_path / f"d{suffix}")
        with pytest.raises(ValueError, match=r"must be finite .* got NaN in row 11, column 1 \('b'\)"):
            load_data(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1,2\n3,4\n", "the first line must name the columns, each by a name of its own, got '1', '2'"),
        ("a,b,a\n1,2,3\n", "got 'a' twice"),
        ("", "the first line must name the columns"),
        ("a,label\n1,2\n1,2,3,4\n", r"cannot be read as .csv \(Error tokenizing data"),
        ("a,label\n7,1,0\n8,2,1\n", "rows must have as many values as the first line has names, got more"),
        ("a;b\n1;2\n", "got columns 'a;b'"),
    ],
)
def test_files_that_are_no_tables(tmp_path, text, sentence):
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        load_data(tmp_path / "d.csv")


def test_damaged_files_and_missing_libraries(tmp_path, monkeypatch):
    (tmp_path / "d.csv").write_bytes(b"a,label\n\xff\xfe,2\n")
    (tmp_path / "d.parquet").write_bytes(b"PAR1 no table")
    for suffix in ("csv", "parquet"):
        with pytest.raises(ValueError, match=f"cannot be read as .{suffix}"):
            load_data(tmp_path / f"d.{suffix}")
    with pytest.raises(ValueError, match="--label is of tables, .csv and .parquet, got digits"):
        load_data(None, label="a")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs pandas and pyarrow: pip install pandas pyarrow"):
        load_data(tmp_path / "d.csv")
