"""Learners are saved with their model, and go on where they were."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris, make_regression

import glai_native as glai
from glai_native.solvers.dual.model import PathKernelModel


@pytest.fixture(scope="module")
def iris():
    x, y = load_iris(return_X_y=True)
    return x, np.array(["setosa", "versicolor", "virginica"])[y]


@pytest.mark.parametrize("solver", ["dual", "sgd", "statistics"])
def test_round_trip(iris, tmp_path, solver):
    x, y = iris
    model = glai.GLAIClassifier((8,), structure_epochs=3, solver=solver, random_state=3).fit(x, y)
    assert model.save(tmp_path / "m") is None
    loaded = glai.GLAIClassifier.load(tmp_path / "m")
    assert loaded.get_params() == model.get_params()
    assert loaded.classes_.tolist() == model.classes_.tolist()
    assert (loaded.predict_proba(x) == model.predict_proba(x)).all()
    assert loaded.n_features_in_ == 4
    assert loaded.result_.reason == model.result_.reason
    assert loaded.loss_curve_ == model.loss_curve_
    assert loaded.result_.score == model.result_.score
    plain = glai.GLAI.load(tmp_path / "m")
    assert plain.class_labels == model.classes_.tolist()
    assert (plain.predict(torch.from_numpy(x).float()) == model.predict(x)).all()
    loaded.save(tmp_path / "again")
    names = [path.name for path in (tmp_path / "m").iterdir() if not path.name.startswith(".")]
    for name in names:
        assert (tmp_path / "m" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_an_increment_after_loading_is_exact(iris, tmp_path):
    x, y = iris
    model = glai.GLAIClassifier((8,), structure_epochs=3, solver="statistics").fit(x[:100], y[:100])
    model.save(tmp_path / "m")
    loaded = glai.GLAIClassifier.load(tmp_path / "m")
    for learner in (model, loaded):
        learner.retrain(x[100:], y[100:], increment=True)
    assert (loaded.predict_proba(x) == model.predict_proba(x)).all()


def test_partial_fit_goes_on_after_loading(iris, tmp_path):
    x, y = iris
    order = np.random.default_rng(0).permutation(150)
    x, y = x[order], y[order]
    model = glai.GLAIClassifier((8,), structure_epochs=3).partial_fit(x[:50], y[:50])
    model.save(tmp_path / "m")
    loaded = glai.GLAIClassifier.load(tmp_path / "m")
    assert (loaded.predict_proba(x) == model.predict_proba(x)).all()
    for learner in (model, loaded):
        learner.partial_fit(x[50:], np.where(y[50:] == "setosa", "aconite", y[50:]))
        assert learner.model_.statistics.n_samples == 150
    assert loaded.classes_.tolist() == ["aconite", "setosa", "versicolor", "virginica"]
    np.testing.assert_allclose(loaded.predict_proba(x), model.predict_proba(x), rtol=1e-6)


@pytest.mark.parametrize("shape", [(), (2,)])
@pytest.mark.parametrize("chunks", [False, True])
def test_regressors(tmp_path, shape, chunks):
    x, y = make_regression(300, 4, n_targets=(*shape, 1)[0], random_state=0)
    y = 7.0 + 1e3 * y
    model = glai.GLAIRegressor((8,), structure_epochs=3, solver="auto" if chunks else "statistics")
    model = model.partial_fit(x[:200], y[:200]) if chunks else model.fit(x[:200], y[:200])
    model.save(tmp_path / "m")
    loaded = glai.GLAIRegressor.load(tmp_path / "m")
    assert loaded.predict(x).shape == y.shape
    assert (loaded.predict(x) == model.predict(x)).all()
    for learner in (model, loaded):
        if chunks:
            learner.partial_fit(x[200:], y[200:])
        else:
            learner.retrain(x[200:], y[200:], increment=True)
    np.testing.assert_allclose(loaded.predict(x), model.predict(x), rtol=1e-6, atol=1e-3)
    with pytest.raises(ValueError, match="outputs must be classes, got values; GLAIRegressor.load opens it"):
        glai.GLAIClassifier.load(tmp_path / "m")


def test_a_path_kernel_model(iris, tmp_path, monkeypatch):
    x, y = iris

    def too_large(*_):
        raise MemoryError("no")

    monkeypatch.setattr(PathKernelModel, "to_estimator", too_large)
    model = glai.GLAIClassifier((8,), structure_epochs=3, solver="dual").fit(x, y)
    assert isinstance(model.model_, PathKernelModel)
    with pytest.warns(UserWarning, match="contains training data"):
        model.save(tmp_path / "m")
    loaded = glai.GLAIClassifier.load(tmp_path / "m")
    assert loaded.get_params() == model.get_params()
    assert (loaded.predict(x) == model.predict(x)).all()
    assert (loaded.predict_proba(x) == model.predict_proba(x)).all()
    assert glai.PathKernelModel.load(tmp_path / "m").class_labels == model.classes_.tolist()


def test_what_is_refused(iris, tmp_path):
    x, y = iris
    model = glai.GLAIClassifier((8,), structure_epochs=3, random_state=np.random.RandomState(0))
    with pytest.raises(ValueError, match="not fitted"):
        model.save(tmp_path / "m")
    model.fit(x, y)
    with pytest.raises(ValueError, match=r"random_state must be numbers.*set_params\(random_state=\.\.\.\)"):
        model.save(tmp_path / "m")
    assert not (tmp_path / "m").exists()
    assert "learner" not in model.model_.estimator.provenance
    model.set_params(random_state=0).save(tmp_path / "m")
    with pytest.raises(ValueError, match="outputs must be values, got classes; GLAIClassifier.load opens it"):
        glai.GLAIRegressor.load(tmp_path / "m")
    with pytest.raises(FileNotFoundError, match=r"GLAIClassifier.load: .* must hold a model"):
        glai.GLAIClassifier.load(tmp_path)
    broken = glai.GLAI.load(tmp_path / "m")
    for entry in ({"parameters": {"depth": 3}}, {"parameters": 3}, {}, {"parameters": {}, "result": {}}):
        broken.estimator.provenance = {"learner": entry | {"kind": "GLAIClassifier"}}
        broken.save(tmp_path / "b", overwrite=True)
        with pytest.raises(ValueError, match="what it says of its learner cannot be read"):
            glai.GLAIClassifier.load(tmp_path / "b")


def test_a_model_without_a_learner(iris, tmp_path):
    x, y = iris
    model = glai.GLAIClassifier((8,), structure_epochs=3, solver="statistics").fit(x, y).model_
    model.permute_outputs(torch.tensor([2, 0, 1]))
    model.save(tmp_path / "m")
    loaded = glai.GLAIClassifier.load(tmp_path / "m")
    assert loaded.classes_.tolist() == sorted(set(y))
    assert loaded.score(x, y) > 0.9
    assert loaded.hidden_layer_sizes == (8,)
    loaded.retrain(x, y, increment=True)
    model.class_labels = None
    model.save(tmp_path / "m")
    assert glai.GLAIClassifier.load(tmp_path / "m").classes_.tolist() == [0, 1, 2]
