"""The scikit-learn estimators."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import glai_native as glai

SMALL = {"hidden_layer_sizes": (8,), "structure_epochs": 4}


@parametrize_with_checks(
    [
        learner(**SMALL, solver=solver)
        for learner in (glai.GLAIClassifier, glai.GLAIRegressor)
        for solver in ("auto", "dual", "sgd", "statistics")
    ]
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
    assert solver in ("auto", model.result_.solver)
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


@pytest.mark.parametrize("learner", [glai.GLAIClassifier, glai.GLAIRegressor])
def test_partial_fit_of_many_unknowns_adds_up_units(tmp_path, learner):
    x = np.random.default_rng(0).standard_normal((600, 64)).astype(np.float32)
    values = x[:, 0] + np.abs(x[:, 1])
    y = values if learner is glai.GLAIRegressor else (values > 0.7).astype(int)
    model = learner(structure_epochs=3)  # 513 paths of 65 unknowns are too many
    for rows in (slice(0, 300), slice(300, 600)):
        model.partial_fit(x[rows], y[rows])
    statistics = model.model_.statistics
    assert (statistics.n_samples, statistics.n_units) == (600, 512)
    assert model.score(x, y) > 0.5
    model.save(tmp_path / "model")
    loaded = learner.load(tmp_path / "model")
    for one in (model, loaded):
        one.partial_fit(x[:50], y[:50])
    assert (loaded.predict(x) == model.predict(x)).all()


def test_refusals():
    x, y = load_iris(return_X_y=True)
    model = glai.GLAIClassifier((8,), structure_epochs=2)
    with pytest.raises(ValueError, match="at least 2 classes"):
        model.fit(x, np.zeros(150))
    with pytest.raises(ValueError, match="first chunk must have at least 2 classes"):
        model.partial_fit(x, np.zeros(150))
    for sizes in ((), (0,), 0, -3, "8", (8.5,), 8.5, None):
        with pytest.raises(ValueError, match="hidden layer sizes must be"):
            glai.GLAIClassifier(sizes).fit(x, y)
    with pytest.raises(
        MemoryError, match=r"hidden layers \[1000000000\] between D=4 .* takes .* are available"
    ):
        glai.GLAIClassifier((10**9,)).fit(x, y)
    with pytest.raises(MemoryError, match="the gates of N=149 samples and the P=2,470,770,901,501 paths"):
        glai.GLAIClassifier((300,) * 5).fit(x, y)
    model.fit(x, y)
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
        with pytest.raises(ValueError, match="as many targets as the first samples, [12], got [12]"):
            model.partial_fit(x, second)
        assert model.predict(x).shape == first.shape


@pytest.mark.parametrize("learner", [glai.GLAIClassifier, glai.GLAIRegressor])
def test_arrays_that_torch_cannot_share(learner, recwarn):
    """Reversed ones, whose strides are negative, and read-only ones, which memory maps of joblib are."""
    x, y = load_iris(return_X_y=True)
    x, weight = x.astype(np.float32), np.linspace(0.5, 1, 150, dtype=np.float32)
    expected = learner(**SMALL).fit(x[::-1].copy(), y[::-1].copy(), weight).predict(x)
    frozen = x[::-1].copy()
    frozen.flags.writeable = weight.flags.writeable = False
    for rows in (x[::-1], frozen):
        model = learner(**SMALL).fit(rows, y[::-1], weight)
        np.testing.assert_array_equal(model.predict(rows), expected[::-1])
        learner(**SMALL).partial_fit(rows, y[::-1], sample_weight=weight[::-1])
    assert not [str(w.message) for w in recwarn if "writable" in str(w.message)]


def test_labels_of_a_chunk_are_among_the_classes():
    x, y = load_iris(return_X_y=True)
    model = glai.GLAIClassifier(**SMALL)
    with pytest.raises(ValueError, match=r"classes= or an earlier chunk names, \[0\], got \[1, 2\]"):
        model.partial_fit(x, y, classes=[0])
    model.partial_fit(x[:100], y[:100], classes=[1, 0])
    with pytest.raises(ValueError, match=r"names, \[0, 1\], got \[2\]"):
        model.partial_fit(x, y, classes=[0, 1])
    assert model.partial_fit(x, y, classes=[2]).classes_.tolist() == [0, 1, 2]


def test_increments_are_joint_training_on_the_same_structure():
    x, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    options = {"solver": "statistics", "solver_options": {"l2": 0.1}}
    model = glai.GLAIClassifier(**SMALL, **options).fit(x[:100], names[:100])
    structure = model.model_.structure_id
    model.retrain(x[100:], names[100:], increment=True)
    assert model.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    assert (model.model_.structure_id, model.model_.statistics.n_samples) == (structure, 150)
    scores = model.decision_function(x)
    model.retrain(x, names)
    assert (model.model_.structure_id, model.model_.statistics.n_samples) == (structure, 150)
    np.testing.assert_allclose(model.decision_function(x), scores, atol=1e-3)
    assert model.set_params(solver="sgd", solver_options=None).retrain(x, names).result_.solver == "sgd"
    assert model.score(x, names) > 0.9


def test_a_regressor_retrained_keeps_its_scale():
    x, y = load_diabetes(return_X_y=True)
    model = glai.GLAIRegressor(**SMALL, solver="statistics", solver_options={"l2": 1.0}).fit(x[:300], y[:300])
    joint = model.retrain(x[300:], y[300:], increment=True).predict(x)
    np.testing.assert_allclose(model.retrain(x, y).predict(x), joint, rtol=1e-3)


def test_what_cannot_be_retrained():
    x, y = load_iris(return_X_y=True)
    model = glai.GLAIClassifier(**SMALL)
    with pytest.raises(NotFittedError):
        model.retrain(x, y)
    with pytest.raises(ValueError, match="this was fitted by partial_fit, which takes more"):
        glai.GLAIClassifier(**SMALL).partial_fit(x, y).retrain(x, y)
    before = model.fit(x, y).predict_proba(x)
    with pytest.raises(ValueError, match="an increment needs the model's statistics"):
        model.retrain(x, y + 1, increment=True)
    with pytest.raises(ValueError, match="sample_weight must be >= 0"):
        model.retrain(x, y + 1, -np.ones(len(x)))
    np.testing.assert_array_equal(model.predict_proba(x), before)
    assert model.classes_.tolist() == [0, 1, 2]


@pytest.mark.parametrize("solver", ["dual", "sgd", "statistics"])
def test_probabilities_are_those_of_the_saved_model(solver, tmp_path):
    x, y = load_iris(return_X_y=True)
    model = glai.GLAIClassifier(**SMALL, solver=solver).fit(x, y)
    found, logs = model.predict_proba(x), model.predict_log_proba(x)
    assert model.model_.estimator.temperature != 1.0
    np.testing.assert_allclose(np.exp(logs), found, rtol=1e-12)
    assert (model.classes_[found.argmax(1)] == model.predict(x)).all()
    assert (model.classes_[logs.argmax(1)] == model.predict(x)).all()
    model.model_.save(tmp_path / "model")
    loaded = glai.GLAI.load(tmp_path / "model")
    inputs = torch.from_numpy(x.astype(np.float32))
    np.testing.assert_array_equal(loaded.predict_proba(inputs).numpy(), found)
    np.testing.assert_array_equal(loaded.predict_log_proba(inputs).numpy(), logs)
    assert model.score(x, y) > 0.9
    # Far away, where probabilities round to 0 and scores clip
    far = x * np.logspace(0, 6, len(x))[:, None]
    assert (model.predict_proba(far).argmax(1) == model.predict(far)).all()
    assert np.isfinite(model.predict_log_proba(far)).all()
