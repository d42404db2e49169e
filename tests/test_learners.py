"""The scikit-learn estimators."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import glai_native as glai

SMALL = {"hidden_layer_sizes": (8,), "structure_epochs": 4}


@parametrize_with_checks(
    [glai.GLAIClassifier(**SMALL), glai.GLAIRegressor(**SMALL)],
    expected_failed_checks=lambda estimator: {
        "check_sample_weight_equivalence_on_dense_data": "the selector is trained without weights",
        "check_fit_score_takes_y": "partial_fit after fit is refused, since fit keeps no statistics",
    },
)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


@pytest.mark.parametrize("solver", ["auto", "sgd", "statistics"])
def test_classifier(solver):
    x, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    options = {"learning_rate": 1e-2, "epochs": 60} if solver == "sgd" else None
    model = glai.GLAIClassifier((16,), solver=solver, solver_options=options)
    model.fit(x, names, sample_weight=np.ones(len(x)))
    assert model.score(x, names) > 0.93
    assert model.result_.solver == {"auto": "dual"}.get(solver, solver)
    probabilities = model.predict_proba(x)
    assert probabilities.shape == (150, 3)
    assert np.allclose(probabilities.sum(1), 1)
    assert (model.classes_[probabilities.argmax(1)] == model.predict(x)).all()
    again = pickle.loads(pickle.dumps(model))
    assert (again.predict_proba(x) == probabilities).all()


def test_regressor_and_pipeline():
    x, y = load_diabetes(return_X_y=True)
    scores = cross_val_score(make_pipeline(StandardScaler(), glai.GLAIRegressor((8,))), x, y, cv=3)
    assert scores.mean() > 0.35
    two = np.stack([y, -2 * y], axis=1)
    model = clone(glai.GLAIRegressor((8,))).fit(x, two)
    assert model.predict(x).shape == two.shape
    assert np.allclose(model.predict(x)[:, 1], -2 * model.predict(x)[:, 0], rtol=1e-3, atol=1.0)


def test_partial_fit_learns_new_classes_without_forgetting():
    x, y = load_iris(return_X_y=True)
    chunks = [y < 2, y == 2]
    model = glai.GLAIClassifier((16,), solver_options={"l2": 0.1})
    for chunk in chunks:
        model.partial_fit(x[chunk], y[chunk])
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.score(x, y) > 0.9
    model.partial_fit(x[:5], y[:5])  # solved again, when asked
    assert model.score(x, y) > 0.9
    regressor = glai.GLAIRegressor((8,)).partial_fit(x, y.astype(float)).partial_fit(x, y.astype(float))
    assert regressor.score(x, y) > 0.9


def test_refusals():
    x, y = load_iris(return_X_y=True)
    model = glai.GLAIClassifier((8,), structure_epochs=2)
    with pytest.raises(ValueError, match="at least 2 classes"):
        model.fit(x, np.zeros(150))
    with pytest.raises(ValueError, match="first chunk must have at least 2 classes"):
        model.partial_fit(x, np.zeros(150))
    for sizes in (8, (), (0,), "8", (8.5,)):
        with pytest.raises(ValueError, match="hidden layer sizes must be"):
            glai.GLAIClassifier(sizes).fit(x, y)
    with pytest.raises(ValueError, match=r"seed \(random_state\) must be an int, got None"):
        glai.GLAIClassifier(random_state=None).fit(x, y)
    model.fit(x, y)
    with pytest.raises(ValueError, match="partial_fit goes on from partial_fit only"):
        model.partial_fit(x, y)
    with pytest.raises(ValueError, match="n_components must be an int, None or 'auto', got 'all'"):
        glai.GLAIClassifier(n_components="all").fit(x, y)


@pytest.mark.parametrize("learner", [glai.GLAIClassifier, glai.GLAIRegressor])
def test_a_failed_fit_leaves_the_model(learner):
    x, y = load_iris(return_X_y=True)
    model = learner(**SMALL).fit(x, y)
    before = model.predict(x)
    with pytest.raises(ValueError, match="sample_weight must be >= 0"):
        model.fit(x[:, :3], 1000 * y + 5, sample_weight=-np.ones(len(x)))
    np.testing.assert_array_equal(model.predict(x), before)


def test_a_failed_chunk_leaves_the_model():
    x, y = load_iris(return_X_y=True)
    model = glai.GLAIClassifier(**SMALL)
    with pytest.raises(ValueError, match="sample_weight must be >= 0"):
        model.partial_fit(x, y, sample_weight=-np.ones(len(x)))
    model.partial_fit(x[:100], y[:100])
    before = model.predict_proba(x)
    with pytest.raises(ValueError, match="sample_weight must be >= 0"):
        model.partial_fit(x, y, sample_weight=-np.ones(len(x)))
    np.testing.assert_array_equal(model.predict_proba(x), before)
    assert model.partial_fit(x, y).predict_proba(x).shape == (150, 3)


def test_chunks_have_the_targets_of_the_first():
    x, y = load_iris(return_X_y=True)
    two = np.stack([y, -y], axis=1).astype(float)
    for first, second in ((y.astype(float), two), (two, y.astype(float))):
        model = glai.GLAIRegressor(**SMALL).partial_fit(x, first)
        with pytest.raises(ValueError, match="as many targets as the first chunk, [12], got [12]"):
            model.partial_fit(x, second)
        assert model.predict(x).shape == first.shape
