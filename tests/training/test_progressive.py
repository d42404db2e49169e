"""Probabilities of a learner that reads chunks: calibrated on the way, on samples before they are added."""

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

import glai_native as glai
from glai_native.estimator.temperature import RIDGE_TEMPERATURE
from glai_native.training.learners.learner import Learner

X, X_TEST, Y, Y_TEST = train_test_split(*load_digits(return_X_y=True), random_state=0)


def in_chunks(size, **told):
    model = glai.GLAIClassifier((8,), structure_epochs=4, l2=1e3, **told)
    for rows in np.split(np.arange(len(X)), np.arange(size, len(X), size)):
        model.partial_fit(X[rows], Y[rows], classes=np.arange(10))
    return model


@pytest.mark.parametrize("size", [100, 700, 2000])
def test_probabilities_of_chunks_are_calibrated(size):
    model = in_chunks(size)
    loss = log_loss(Y_TEST, model.predict_proba(X_TEST))
    assert (model.predict_proba(X_TEST).argmax(1) == model.predict(X_TEST)).all()
    temperature = model.model_.estimator.temperature
    assert temperature != RIDGE_TEMPERATURE
    scores = model.decision_function(X_TEST)
    best = min(
        log_loss(Y_TEST, np.exp(s := scores / t) / np.exp(s).sum(1, keepdims=True))
        for t in temperature * np.logspace(-1, 1, 41)
    )
    assert loss < 1.15 * best


def test_few_chunks_are_solved_for(monkeypatch):
    solved = []
    whole = Learner._solve
    monkeypatch.setattr(
        Learner, "_solve", lambda learner, sums: (solved.append(sums.n_samples), whole(learner, sums))[1]
    )
    in_chunks(40)
    assert solved[:3] == [36, 40, 80]
    assert len(solved) < 12  # of 34 chunks


def test_chunks_that_cannot_be_scored():
    one = glai.GLAIClassifier((8,), structure_epochs=1, l2=1.0)
    one.partial_fit(X[:2], Y[:2], classes=np.arange(10))
    one.predict_proba(X[:2])
    assert one.model_.estimator.temperature == RIDGE_TEMPERATURE
    for row in range(2, 12):  # one by one, of classes that are new
        one.partial_fit(X[row : row + 1], Y[row : row + 1])
    assert np.isfinite(one.predict_log_proba(X)).all()
    singular = glai.GLAIClassifier((8,), structure_epochs=1, l2=0.0).partial_fit(X[:300], Y[:300])
    with pytest.raises(ValueError, match="singular"):
        singular.predict(X)
    values = glai.GLAIRegressor((8,), structure_epochs=1).partial_fit(X, Y.astype(float))
    assert values.predict(X).shape == Y.shape


def test_a_chunk_that_fails_is_as_if_it_had_not_been():
    model, same = in_chunks(300), in_chunks(300)
    with pytest.raises(ValueError, match="sample_weight must be >= 0"):
        model.partial_fit(X, Y, sample_weight=-np.ones(len(X)))
    np.testing.assert_array_equal(model.predict_proba(X_TEST), same.predict_proba(X_TEST))


def test_classes_that_come_later_and_sort_earlier_are_told_apart(tmp_path):
    names = np.array(list("jihgfedcba"))
    model = glai.GLAIClassifier((8,), structure_epochs=4, l2=1e3)
    model.partial_fit(X[Y < 7], names[Y[Y < 7]])
    before = model.model_.estimator.temperature
    model.partial_fit(X[Y >= 7], names[Y[Y >= 7]])  # of new classes none can be scored
    model.partial_fit(X[:300], names[Y[:300]])
    after = model.model_.estimator.temperature
    assert after == pytest.approx(before, rel=0.5)  # mixed up, it would be several times as large
    model.save(tmp_path / "model")
    loaded = glai.GLAIClassifier.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(X_TEST), model.predict_proba(X_TEST))
    for learner in (loaded, model):
        for _ in range(2):
            learner.partial_fit(X, names[Y])
    assert loaded.model_.estimator.temperature == model.model_.estimator.temperature != after
    assert loaded.score(X_TEST, names[Y_TEST]) > 0.9


def test_what_is_lost_by_beginning_anew_is_said():
    model = glai.GLAIClassifier((4,), structure_epochs=1).fit(X[:300], Y[:300])
    with pytest.warns(
        UserWarning, match="begins anew, what fit learnt is lost: its solver 'dual' keeps no sums"
    ):
        model.partial_fit(X[:300], Y[:300])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.partial_fit(X[300:400], Y[300:400])
