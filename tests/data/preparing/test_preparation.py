"""A preparation is scikit-learn's own, comes back from JSON to the bit, and treats each row by itself."""

import json

import numpy as np
import pytest
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from glai_native.data.preparing.columns import typed_columns
from glai_native.data.preparing.frames import raw_columns
from glai_native.data.preparing.preparation import Preparation

N = 300


def make_frame(seed=0, n=N):
    rng = np.random.default_rng(seed)
    towns = np.array(["Vigo", "Gent", "Oslo", None, "once"], dtype=object)[rng.integers(0, 4, n)]
    towns[0] = "once"
    area = rng.normal(1e9, 3, n)
    area[::7] = np.nan
    return {
        "town": towns,
        "area": area,
        "rooms": rng.integers(1, 9, n),
        "all gone": np.full(n, np.nan),
        "constant": np.ones(n),
    }


def fitted(frame):
    columns = typed_columns("d", raw_columns("d", frame))
    return Preparation.fit("d", columns), columns


def test_it_is_scikit_learn_s():
    frame = make_frame()
    preparation, columns = fitted(frame)
    names = ["area", "rooms", "all gone", "constant"]
    x = np.stack([columns.by_name[name] for name in names], 1)
    numbers = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    encoder = OneHotEncoder(handle_unknown="ignore", min_frequency=2, sparse_output=False)
    parts = [
        *(numbers.fit_transform(column[:, None]) for column in x.T.copy()),
        np.isnan(x[:, [0, 2]]),
        encoder.fit_transform(columns.by_name["town"][:, None]),
    ]
    found = preparation.transform("d", columns)
    assert (found.dtype, found.shape) == (np.float32, (N, preparation.n_features))
    np.testing.assert_array_equal(found, np.concatenate(parts, 1).astype(np.float32))
    assert preparation.n_features == 4 + 2 + 5  # Gent, Oslo, Vigo, none, and what was there once
    assert preparation.described()["gaps_in"] == ["area", "all gone"]


def test_rows_are_prepared_one_by_one_or_together_to_the_same_bits(monkeypatch):
    frame = make_frame()
    preparation, columns = fitted(frame)
    whole = preparation.transform("d", columns)
    for size in (1, 7, N):
        parts = [preparation.transform("d", columns[i : i + size]) for i in range(0, N, size)]
        np.testing.assert_array_equal(np.concatenate(parts).view(np.int32), whole.view(np.int32))
    monkeypatch.setattr("glai_native.data.preparing.preparation.ROWS", 11)
    np.testing.assert_array_equal(preparation.transform("d", columns), whole)
    assert preparation.transform("d", columns[:0]).shape == (0, preparation.n_features)


def test_json_brings_it_back_to_the_bit():
    frame = make_frame()
    preparation, columns = fitted(frame)
    again = Preparation.from_json(json.loads(json.dumps(preparation.to_json())))
    assert again == preparation
    np.testing.assert_array_equal(again.features_of("d", frame), preparation.transform("d", columns))
    other, columns = fitted(make_frame(1))
    assert other != preparation
    part = Preparation.fit("d", columns, 2 * N)
    assert part.described() == {"fitted_on": "300 of 600 rows", **other.described()}
    again = Preparation.from_json(json.loads(json.dumps(part.to_json())))
    assert (again, again.fitted_on) == (other, (N, 2 * N))


@pytest.mark.parametrize(
    "change",
    [
        lambda kept: kept.pop("columns"),
        lambda kept: kept.update(version=2),
        lambda kept: kept.update(fitted_on=[3]),
        lambda kept: kept["columns"].append(kept["columns"][0]),
        lambda kept: kept["columns"].clear(),
        lambda kept: kept["columns"][0].__setitem__(0, 3),
        lambda kept: kept["columns"][0].__setitem__(1, "texts"),
        lambda kept: kept["columns"][0][2].append(7),
        lambda kept: kept["columns"][0][3].append("Vigo"),
        lambda kept: kept["columns"][1].__setitem__(4, 0.0),
        lambda kept: kept["columns"][1].__setitem__(2, None),
        lambda kept: kept["columns"][1].pop(),
    ],
)
def test_json_that_is_none(change):
    kept = json.loads(json.dumps(fitted(make_frame())[0].to_json()))
    change(kept)
    with pytest.raises(ValueError, match=r"."):
        Preparation.from_json(kept)


def test_what_the_first_rows_did_not_have():
    preparation, _ = fitted(make_frame())
    row = {name: values[1:2].copy() for name, values in make_frame().items()}
    names = [*range(preparation.n_features)]
    towns = names[-5:]
    row["town"][0] = "Paris"
    assert not preparation.features_of("d", row)[0, towns].any()
    row["town"][0] = "once"
    assert preparation.features_of("d", row)[0, towns].tolist() == [0, 0, 0, 0, 1]
    row["rooms"] = np.array([np.nan])
    assert np.isfinite(preparation.features_of("d", row)).all()  # filled, and nothing marks it
    row["area"] = np.array(["large"], dtype=object)
    with pytest.raises(
        ValueError, match="d: row 0, column 'area': 'large' is not a number, and the model was trained"
    ):
        preparation.features_of("d", row)
    del row["area"]
    with pytest.raises(ValueError, match="must have the 5 columns that the model .* got none called 'area'"):
        preparation.features_of("d", row)
    with pytest.raises(
        ValueError, match=r"x must be \[N, K=5\] like the columns that the model .* got \[2, 3\]"
    ):
        preparation.features_of_array("d", np.ones((2, 3)))


def test_what_cannot_be_prepared():
    preparation, _ = fitted({"a": np.array([1, 1 + 1e-7])})
    with pytest.raises(
        ValueError, match=r"row 1, column 'a': 3e\+38 is too far from 1, about which the model"
    ):
        preparation.features_of("d", {"a": np.array([1, 3e38])})
    names = np.array([str(i) + "x" for i in range(10_001)], dtype=object)
    with pytest.raises(
        ValueError, match="column 'a' must have at most 10,000 categories, got 10,001 different texts"
    ):
        fitted({"a": names})
    with pytest.raises(ValueError, match="must have rows and columns to learn from, got none"):
        fitted({"a": np.empty(0)})


def test_many_categories_share_a_column():
    names = np.array([f"t{i % 150}" for i in range(450)] + ["often"] * 9, dtype=object)
    preparation, columns = fitted({"a": names})
    assert preparation.n_features == 100
    features = preparation.transform("d", columns)
    assert (features.sum(1) == 1).all()
    again = Preparation.from_json(json.loads(json.dumps(preparation.to_json())))
    np.testing.assert_array_equal(again.transform("d", columns), features)
