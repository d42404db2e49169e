"""What the scikit-learn estimators are given: fine features, gaps, text, rare classes."""

import numpy as np
import pytest
from sklearn.base import clone

import glai_native as glai


def seconds_of_an_hour(n=300):
    """A time in seconds since 1970, whose minute decides the class, and another feature."""
    rng = np.random.default_rng(0)
    second = rng.integers(0, 60, n)
    return np.stack([1.7e9 + second, 10 * rng.normal(size=n)], 1), second > 30, np.sin(second / 10)


@pytest.mark.parametrize("solver", ["dual", "sgd", "statistics"])
@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_a_feature_finer_than_float32_beside_its_mean_is_learned(solver, dtype):
    x, y, _ = seconds_of_an_hour()
    x = x.astype(dtype)
    learner = glai.GLAIClassifier((16,), solver=solver).fit(x, y)
    assert learner.score(x, y) > 0.95
    one_at_a_time = np.concatenate([learner.predict(row[None]) for row in x[:30]])
    assert np.array_equal(one_at_a_time, learner.predict(x[:30]))
    learner.retrain(x, y)
    assert learner.score(x, y) > 0.95


def test_a_fine_feature_by_chunks_and_for_values():
    x, y, values = seconds_of_an_hour()
    learner = glai.GLAIClassifier((16,)).partial_fit(x[:200], y[:200]).partial_fit(x[200:], y[200:])
    assert learner.score(x, y) > 0.95
    assert glai.GLAIRegressor((32,)).fit(x, values).score(x, values) > 0.95


@pytest.mark.parametrize(
    ("value", "dtype", "sentence"),
    [
        (np.nan, float, r"X must be finite numbers in float32, got NaN in row 2, column 1"),
        (np.inf, float, r"got infinity \(inf\) in row 2, column 1"),
        ("red", object, "X must be numbers, got 'red' in row 2, column 1 of dtype object"),
        ("red", "U32", "X must be numbers, got .*'red'.* in row 2, column 1 of dtype <U32"),
    ],
)
@pytest.mark.parametrize(
    "learner", [glai.GLAIClassifier((4,)), glai.GLAIRegressor((4,))], ids=["classifier", "regressor"]
)
def test_what_is_no_number_is_named_by_row_and_column(learner, value, dtype, sentence):
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(dtype)
    y = np.arange(20) % 2
    broken = x.copy()
    broken[2, 1] = value
    for method in (learner.fit, learner.partial_fit):
        with pytest.raises(ValueError, match=f"{type(learner).__name__}: .*{sentence}"):
            method(broken, y)
    learner = clone(learner).fit(x, y)
    with pytest.raises(ValueError, match=sentence):
        learner.predict(broken)


@pytest.mark.parametrize(
    ("library", "frame"), [("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "table")]
)
def test_frames_of_numbers(library, frame):
    make = getattr(pytest.importorskip(library), frame)
    x = np.random.default_rng(0).normal(size=(60, 2))
    labels = np.where(x[:, 0] > 0, "up", "down")
    columns = {"a": x[:, 0], "b": x[:, 1].astype(np.float32)}
    for learner in (glai.GLAIClassifier((4,), solver="statistics"), glai.ExactClassifier(16)):
        learner.fit(make(columns), make({"y": labels})["y"])
        assert learner.score(make(columns), labels) > 0.9
        assert learner.feature_names_in_.tolist() == ["a", "b"]
        with pytest.raises(ValueError, match=r"got NaN in row 7, column 1 \('b'\)"):
            learner.predict(make(columns | {"b": np.where(np.arange(60) == 7, np.nan, x[:, 1])}))


@pytest.mark.parametrize("solver", ["dual", "sgd", "statistics"])
def test_a_class_of_one_sample_is_learned(solver):
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [8, 0], [0, 8]])
    y = np.repeat([0, 1, 2], [30, 30, 1])
    x = centres[y] + rng.normal(size=(61, 2))
    for seed in range(4):
        learner = glai.GLAIClassifier((16,), solver=solver, random_state=seed, structure_epochs=4).fit(x, y)
        assert learner.predict(x[-1:]).tolist() == [2]
        assert not np.isnan(learner.result_.score)
