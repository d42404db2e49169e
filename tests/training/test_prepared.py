"""``glai.prepared``: learners of tables, the same to the bit whatever the history, and from their files."""

import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

import glai_native as glai

TELL = {"structure_epochs": 2, "solver": "statistics"}


def make_frame(seed=0, n=100):
    rng = np.random.default_rng(seed)
    town = np.array(["Gent", "Oslo", None], dtype=object)[rng.integers(0, 3, n)]
    area = rng.normal(100, 30, n)
    price = 2 * area + 90 * (town == "Oslo")
    area[::9] = np.nan
    return {
        "town": town,
        "area": area,
        "price": price,
        "kind": np.where(price > 225, "dear", "cheap").astype(object),
    }


def part(frame, rows):
    return {name: values[rows] for name, values in frame.items()}


def features(frame):
    return {name: frame[name] for name in ("area", "town")}


@pytest.mark.parametrize(
    "learner",
    [
        glai.GLAIClassifier((4,), **TELL),
        glai.GLAIRegressor((4,), **TELL),
        glai.ExactClassifier(8),
        glai.ExactRegressor(8),
    ],
    ids=lambda learner: type(learner).__name__,
)
def test_learners_of_all_kinds(tmp_path, learner):
    frame = make_frame()
    label = "price" if "Regressor" in type(learner).__name__ else "kind"
    x = features(frame)
    model = glai.prepared(clone(learner)).fit(x | {label: frame[label]}, label)
    apart = glai.prepared(clone(learner)).fit(dict(reversed([*x.items()])), frame[label])
    assert model.score(x, frame[label]) == apart.score(x, frame[label]) > 0.8
    model.save(tmp_path / "m")
    loaded = glai.prepared(tmp_path / "m")
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    assert (loaded.label_, loaded.preparation_) == (label, model.preparation_)
    if label == "kind":
        np.testing.assert_array_equal(loaded.predict_proba(x), model.predict_proba(x))
        assert loaded.classes_.tolist() == ["cheap", "dear"]
    loaded.partial_fit(part(x | {label: frame[label]}, slice(0, 20)), label)
    assert loaded.preparation_ == model.preparation_
    with pytest.warns(UserWarning, match="column 'floor' of X is left out, since fit has not seen it"):
        model.predict(x | {"floor": np.ones(100)})
    with pytest.raises(ValueError, match="got none called 'town'"):
        model.predict({"area": x["area"]})


@pytest.mark.filterwarnings("ignore:merge. .* samples are, to 7 bits, in both")  # those whose area is missing
def test_histories_that_leave_the_same_samples_have_one_digest(tmp_path):
    frame, more = make_frame(), make_frame(1)
    first = glai.prepared(glai.ExactClassifier(8)).fit(frame, "kind")
    digest = first.digest()
    for size in (7, 50):
        for begin in range(0, 100, size):
            first.partial_fit(part(more, slice(begin, begin + size)), "kind")
    first.forget(more, "kind").forget(more, more["kind"])
    assert first.digest() == digest
    with pytest.raises(ValueError, match="must be among those that were learnt"):
        first.forget(more, "kind")
    told = {"preparation": first.preparation_}
    other = glai.prepared(glai.ExactClassifier(structure=first.learner_.features_), **told).fit(more, "kind")
    both = first + other
    assert both.digest() == clone_of(first, tmp_path).partial_fit(more, "kind").digest()
    strange = glai.prepared(glai.ExactClassifier(8)).fit(more, "kind")
    with pytest.raises(
        ValueError, match="must prepare their tables alike, .* preparation=first.preparation_"
    ):
        first.merge(strange)


def clone_of(model, folder):
    model.save(folder / "clone")
    return glai.prepared(folder / "clone")


def test_scikit_learn_s_manner():
    frame = make_frame()
    model = glai.prepared(glai.ExactRegressor(8), categories=["town"])
    assert clone(model).get_params()["categories"] == ["town"]
    pandas = pytest.importorskip("pandas")
    x = pandas.DataFrame(features(frame))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cross_val_score(model, x, frame["price"], cv=3).min() > 0.5


def test_bad_input_loses_nothing(tmp_path):
    frame = make_frame()
    model = glai.prepared(glai.ExactRegressor(8)).fit(frame | {"kind": frame["town"]}, "price")
    digest, bad = (
        model.digest(),
        part(frame, slice(0, 3)) | {"area": np.array(["1", "2", "abc"], dtype=object)},
    )
    for work in (model.partial_fit, model.forget, model.score):
        with pytest.raises(ValueError, match="prepared: row 2, column 'area': 'abc' is not a number"):
            work(bad, "price")
    with pytest.raises(ValueError, match="y must be targets or name a column of X .*, got 'prices'"):
        model.fit(frame, "prices")
    with pytest.raises(ValueError, match="column 'area' must say of each row what it is, got none in row 0"):
        model.fit(frame, "area")
    assert model.digest() == digest
    with pytest.raises(ValueError, match="categories must name columns of X, got 'zip'"):
        glai.prepared(glai.ExactRegressor(8), categories=["zip"]).fit(frame, "price")
    with pytest.raises(
        ValueError, match="forget is of ExactClassifier and ExactRegressor, got GLAIRegressor"
    ):
        glai.prepared(glai.GLAIRegressor((4,), **TELL)).fit(features(frame), frame["price"]).forget(
            frame, "price"
        )
    with pytest.raises(FileNotFoundError, match="must hold a model"):
        glai.prepared(tmp_path)
