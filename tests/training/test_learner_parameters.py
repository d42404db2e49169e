"""What a learner is told: numbers of any library, scikit-learn's random states, options that grids reach."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV

import glai_native as glai

X, Y = load_iris(return_X_y=True)
SMALL = {"hidden_layer_sizes": 8, "structure_epochs": 2}


x, y = torch.from_numpy(X.astype(np.float32)), torch.from_numpy(Y)


@pytest.fixture(scope="module")
def of_ints():
    """What Python's own integers give: a classifier, and each solver's score on its structure."""
    classifier = glai.GLAIClassifier((8,), n_components=3, structure_epochs=2, random_state=3).fit(X, Y)
    selector = classifier.model_.selector
    scores = {
        solver: glai.fit(selector, x, y, solver=solver, seed=1, progress=False).score
        for solver in ("sgd", "dual", "statistics")
    }
    return classifier, scores


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8, lambda n: np.array(n), torch.tensor])
def test_integers_of_any_library(kind, of_ints):
    expected, scores = of_ints
    found = glai.GLAIClassifier(
        kind(8), n_components=kind(3), structure_epochs=kind(2), random_state=kind(3)
    ).fit(X, Y)
    np.testing.assert_array_equal(found.predict_proba(X), expected.predict_proba(X))
    told = {"epochs": kind(3), "batch_size": kind(16)}
    native = glai.GLAIClassifier(**SMALL, solver="sgd", **told).fit(X, Y)
    assert (native.n_iter_, len(native.loss_curve_)) == (3, 3)
    selector = found.model_.selector
    for solver, score in scores.items():
        result = glai.fit(selector, x, y, solver=solver, seed=kind(1), progress=False)
        assert result.score == score
        again = glai.retrain(result.model, x, y, solver=solver, seed=kind(1), progress=False)
        assert again.score == again.score


@pytest.mark.parametrize("sizes", [8, np.int64(8), [8], (np.int16(8),), np.array([8])])
def test_one_hidden_layer_is_a_number(sizes):
    assert clone(glai.GLAIClassifier(sizes, structure_epochs=2)).fit(X, Y).model_.selector.widths == (8,)


def test_random_states_are_scikit_learns():
    def fitted(state):
        return glai.GLAIClassifier(**SMALL, random_state=state).fit(X, Y).predict_proba(X)

    np.testing.assert_array_equal(
        fitted(np.random.RandomState(5)),
        fitted(np.random.RandomState(5)),
    )
    state = np.random.RandomState(5)
    assert (fitted(state) != fitted(state)).any()  # it goes on
    np.random.seed(7)  # noqa: NPY002
    first = fitted(None)
    assert (fitted(None) != first).any()
    np.random.seed(7)  # noqa: NPY002
    np.testing.assert_array_equal(fitted(None), first)
    for state in ("seed", 1.5, [1]):
        with pytest.raises(ValueError, match="cannot be used to seed"):
            fitted(state)
    with pytest.raises(ValueError, match=r"seed must be an int in \[0, 2\*\*32\), got -1"):
        fitted(-1)


def test_grids_reach_the_solvers_options():
    grid = {"l2": np.logspace(-1, 1, 3), "hidden_layer_sizes": [4, (4, 3)]}
    search = GridSearchCV(glai.GLAIClassifier(structure_epochs=2), grid, cv=2).fit(X, Y)
    assert search.best_estimator_.model_.estimator.provenance["l2"] == search.best_params_["l2"]
    for values in ({"l2": np.array([1, 2])}, {"l2": np.float32([0.5, 2])}):
        for solver in ("dual", "statistics"):
            GridSearchCV(glai.GLAIRegressor(**SMALL, solver=solver), values, cv=2).fit(X, Y)
    native = glai.GLAIClassifier(**SMALL, solver="sgd", learning_rate=np.float64(1e-2), epochs=4)
    assert native.fit(X, Y).n_iter_ == 4
    assert native.loss_curve_ == [epoch.loss for epoch in native.result_.history]
    assert native.loss_curve_[-1] < native.loss_curve_[0]
    same = glai.GLAIClassifier(**SMALL, solver="sgd", solver_options={"learning_rate": 1e-2, "epochs": 4})
    np.testing.assert_array_equal(same.fit(X, Y).predict_proba(X), native.predict_proba(X))
    closed = glai.GLAIClassifier(**SMALL).fit(X, Y)
    assert (closed.n_iter_, closed.loss_curve_) == (0, [])


def test_auto_takes_a_solver_that_has_what_is_given(monkeypatch):
    for told, solver in (
        ({"epochs": 2}, "sgd"),
        ({"learning_rate": 1e-2, "epochs": 2}, "sgd"),
        ({"batch_size": 10, "epochs": 2}, "sgd"),
        ({"solver_options": {"n_centres": 40}}, "dual"),
    ):
        assert glai.GLAIClassifier(**SMALL, **told).fit(X, Y).result_.solver == solver
    assert glai.GLAIClassifier(**SMALL, l2=1.0).fit(X, Y).result_.solver == "dual"
    monkeypatch.setattr("glai_native.solvers.choice.DUAL_SAMPLES", 100)
    assert glai.GLAIClassifier(**SMALL, l2=1.0).fit(X, Y).result_.solver == "statistics"


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"solver_options": [1]}, "solver_options must be a dict or None, got"),
        (
            {"l2": 1.0, "solver_options": {"l2": 2.0}},
            "l2 must be given once, got l2=1.0 and 2.0 in solver_options",
        ),
        ({"solver": "dual", "epochs": 3}, "solver 'dual' has the options l2, .* got 'epochs'"),
        ({"solver": "sgd", "l2": 3}, "solver 'sgd' has the options loss, .* got 'l2'"),
        ({"l2": 1.0, "epochs": 3}, "solver 'sgd' has the options loss, .* got 'l2'"),
        ({"solver": "sgd", "epochs": 0}, "epochs must be an int >= 1, got 0"),
        ({"solver": "sgd", "epochs": 2.5}, "epochs must be an int >= 1, got 2.5"),
        ({"solver": "sgd", "learning_rate": -1.0}, "learning_rate must be > 0"),
        ({"l2": -1.0}, "l2 must be a number >= 0"),
        ({"structure_epochs": 0}, "epochs must be an int >= 1, got 0"),
    ],
)
def test_what_does_not_fit_is_one_sentence(told, sentence):
    with pytest.raises(ValueError, match=sentence):
        glai.GLAIClassifier(**(SMALL | told)).fit(X, Y)


def test_a_chunk_takes_the_options_of_the_statistics():
    assert glai.GLAIClassifier(**SMALL, l2=np.float32(0.5)).partial_fit(X, Y).score(X, Y) > 0.8
    with pytest.raises(ValueError, match="solver 'statistics' has the options l2, .* got 'epochs'"):
        glai.GLAIClassifier(**SMALL, epochs=3).partial_fit(X, Y)


def test_counts_elsewhere():
    one = np.int64(1)
    statistics = glai.PathStatistics(np.int64(3), one, np.int64(2))
    statistics.add_outputs(one)
    assert statistics.out_features == 3
    gates = glai.PackedGates(torch.zeros((4, 1), dtype=torch.int32), np.int64(3))
    assert len(gates[one]) == len(gates[np.uint8(2)]) == 1
    assert glai.InputProjection.fit(torch.randn(9, 4), np.int64(2)).out_features == 2
    mlp = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    x, y = torch.randn(20, 4), torch.arange(20) % 2
    monitor = glai.StructureMonitor(max_epochs=np.int64(2), min_epochs=one)
    selector = glai.train_structure(
        mlp, x, y, monitor=monitor, batch_size=np.int64(5), seed=np.int64(2), progress=False
    )
    estimator = glai.PathEstimator.from_selector(selector)
    z, gates = selector.project(x), selector.gates(x)
    for kind in (int, np.int64, np.int32):
        epochs = glai.train_estimator(
            estimator, z, gates, y, epochs=kind(2), batch_size=kind(7), seed=kind(2**31 - 1), progress=False
        )
        assert len(epochs) == 2
    glai.PathKernelModel(selector).fit(x, y, n_centres=np.int64(10), seed=one, progress=False)
    model = glai.grow(glai.GLAI(selector, estimator), one - 1, np.int64(2), seed=one)
    model.add_outputs(one, seed=one)
    assert (model.selector.widths, model.estimator.out_features) == ((5,), 3)


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_array", "coo_matrix"])
def test_sparse_inputs_are_the_dense_ones(kind):
    from scipy import sparse

    x = np.where(X > 3, X, 0)
    rows = getattr(sparse, kind)(x)
    model, expected = (glai.GLAIClassifier(**SMALL).fit(inputs, Y) for inputs in (rows, x))
    np.testing.assert_array_equal(model.predict_proba(rows), expected.predict_proba(x))
    chunks = [glai.GLAIRegressor(**SMALL).partial_fit(inputs, Y.astype(float)) for inputs in (rows, x)]
    np.testing.assert_array_equal(chunks[0].predict(rows), chunks[1].predict(x))


def test_sparse_inputs_beyond_memory_are_refused():
    from scipy import sparse

    wide = sparse.csr_matrix((40_000, 10_000_000))
    sentence = (
        "GLAIClassifier: sparse X as dense numbers .N=40,000, D=10,000,000. takes .* GB .* TruncatedSVD"
    )
    with pytest.raises(MemoryError, match=sentence):
        glai.GLAIClassifier(**SMALL).fit(wide, np.arange(40_000) % 2)


def test_frames_keep_their_names():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    model = glai.GLAIClassifier(**SMALL).fit(frame, Y)
    assert model.feature_names_in_.tolist() == list("abcd")
    assert model.n_features_in_ == 4
    np.testing.assert_array_equal(model.predict(frame), glai.GLAIClassifier(**SMALL).fit(X, Y).predict(X))
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict_proba(frame[["d", "c", "b", "a"]])
    with pytest.raises(ValueError, match="feature names should match"):
        model.retrain(frame.rename(columns={"a": "z"}), Y)
