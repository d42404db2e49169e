"""The exact learners: learning, forgetting and merging leave the same bits; nobody predicts by stale weights."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits, load_iris, load_wine
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

import glai_native as glai
from glai_native.training.exact import chunked, learner, saving


@parametrize_with_checks([glai.ExactClassifier(16), glai.ExactRegressor(16)])
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return x[order], np.array([f"digit {label}" for label in y[order]])


def test_what_is_told_wrongly_is_refused_at_once(digits):
    x, y = digits
    with pytest.raises(ValueError, match="class_weight must be a dict, 'balanced' or None, got 'even'"):
        glai.ExactClassifier(9, class_weight="even").fit(x, y)
    with pytest.raises(ValueError, match="sample_weight must be integers from 0 to .* got 0.5 in row 0"):
        glai.ExactClassifier(9).fit(x, y, sample_weight=np.full(len(x), 0.5))


def test_columns_in_units_of_their_own(digits):
    """As standardised: one scale would lose all but one of wine's columns."""
    x, y = load_wine(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(x))
    train, test = rows[:120], rows[120:]
    told = {"n_units": 128, "random_state": 0}
    auto = glai.ExactClassifier(**told).fit(x[train].astype(np.float32), y[train])
    assert auto.score(x[test].astype(np.float32), y[test]) > 0.9
    assert len(np.unique(auto.features_.scale)) == x.shape[1]
    pixels = glai.ExactClassifier(**told).fit(*digits)
    assert len(np.unique(pixels.features_.scale)) == 1


def test_models_of_other_kinds_are_named(digits, tmp_path):
    glai.ExactClassifier(9).fit(*digits).save(tmp_path)
    for kind in (glai.GLAI, glai.GLAIClassifier):
        with pytest.raises(
            FileNotFoundError, match=r"must hold .* got an exact (model|one), which ExactClassifier.load"
        ):
            kind.load(tmp_path)


def test_histories_that_leave_the_same_samples_leave_the_same_model(digits):
    x, y = digits
    whole = glai.ExactClassifier(200).fit(x[:1200], y[:1200])
    assert whole.score(x[1200:], y[1200:]) > 0.95
    for label in reversed(np.unique(y)):  # one class at a time, none of which the first one has seen
        rows = np.flatnonzero(y[:1200] == label)
        if label == "digit 9":
            parts = glai.ExactClassifier(200, structure=whole.features_)
        parts.partial_fit(x[rows], y[rows])
        assert set(parts.predict(x[:50])) <= set(parts.classes_)
    assert parts.digest() == whole.digest()
    assert (parts.classes_ == np.unique(y)).all()
    np.testing.assert_allclose(
        parts.decision_function(x[1200:]), whole.decision_function(x[1200:]), atol=1e-5
    )
    more = clone(whole).set_params(structure=whole.features_).fit(x[1000:], y[1000:])
    merged = whole.forget(x[1000:1200], y[1000:1200]) + more
    assert merged.forget(x[1200:], y[1200:]).digest() == parts.digest()
    assert (merged.n_samples_, whole.n_samples_, more.n_samples_) == (1200, 1000, 797)


@pytest.mark.parametrize(("structure", "l2"), [("auto", "gcv"), ("random", "gcv"), ("random", "held-out")])
@pytest.mark.parametrize("kind", [glai.ExactClassifier, glai.ExactRegressor])
def test_what_has_begun_has_learnt_nothing_and_learns_in_parts(digits, kind, structure, l2):
    x, y = digits
    y = y if kind is glai.ExactClassifier else x[:, 20] + 100
    whole = kind(50, structure=structure, l2=l2).fit(x, y)
    parts = kind(50, structure=structure, l2=l2).fit(x[:9], y[:9]).begin(x, y, all_there=structure == "auto")
    assert parts.n_samples_ == 0
    with pytest.raises(ValueError, match="must hold samples, got none"):
        parts.predict(x)
    for rows in (slice(500, None), slice(500)):
        parts.partial_fit(x[rows], y[rows])
    assert parts.digest() == whole.digest()
    np.testing.assert_allclose(parts.l2_, whole.l2_)
    with pytest.raises(ValueError, match="NaN"):
        parts.begin(np.full_like(x, np.nan), y)
    assert parts.digest() == whole.digest()


def test_few_samples_are_brought_up_to_date_and_never_stale(digits):
    x, y = digits
    model = glai.ExactClassifier(100).partial_fit(x[:600], y[:600])
    before, penalty = model.decision_function(x[600:]), model.l2_
    model.partial_fit(x[600:616], y[600:616]).forget(x[:4], y[:4])
    anew = pickle.loads(pickle.dumps(model)).set_params(l2=penalty)
    after = model.decision_function(x[600:])
    assert "rows_since" in model.solution().provenance
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, anew.decision_function(x[600:]), atol=1e-5)
    assert "rows_since" not in anew.solution().provenance
    model.partial_fit(x[616:800], y[616:800])
    assert model.solution().provenance["n_samples"] == 796
    assert "rows_since" not in model.solution().provenance


def test_what_was_never_learnt_is_not_forgotten(digits):
    x, y = digits
    model = glai.ExactClassifier(20).fit(x[:100], y[:100], ids=np.arange(100))
    digest, scores = model.digest(), model.decision_function(x)
    for rows, changes in ((slice(95, 105), {}), (slice(0, 2), {"ids": [0, 7]})):
        with pytest.raises(ValueError, match="row"):
            model.forget(x[rows], y[rows], **changes)
    with pytest.raises(ValueError, match="y must hold labels among .* got 'digit 10' besides"):
        model.forget(x[:1], ["digit 10"])
    with pytest.raises(ValueError, match="integers"):
        model.partial_fit(x[:2], ["digit 3", "a new one"], sample_weight=[0.5, 1.0])
    assert model.digest() == digest
    assert len(model.classes_) == 10
    assert (model.decision_function(x) == scores).all()
    model.forget(x[:100], y[:100])
    with pytest.raises(
        ValueError,
        match="must hold samples, got none: all were forgotten; partial_fit, or glai learn, learns",
    ):
        model.predict(x)
    assert model.partial_fit(x[:40], y[:40]).score(x[:40], y[:40]) > 0.9
    with pytest.raises(NotFittedError):
        glai.ExactClassifier().forget(x[:1], y[:1])


def test_classes_weigh_what_they_are_told_afterwards(digits):
    x, y = digits
    rare = np.flatnonzero((y != "digit 8") | (np.arange(len(y)) % 12 == 0))
    model = glai.ExactClassifier(60, per_class=True).fit(x[rare], y[rare])
    eights = y == "digit 8"
    plain = model.score(x[eights], y[eights])
    assert model.set_params(class_weight="balanced").score(x[eights], y[eights]) > plain
    model.set_params(class_weight={"digit 8": 0.0})
    assert "digit 8" not in model.predict(x)
    with pytest.raises(
        ValueError, match="class_weight must be of the classes learnt, got 'digit 11', which is none"
    ):
        model.set_params(class_weight={"digit 11": 2.0}).predict(x)


@pytest.mark.parametrize("structure", ["random", "covariance", "trained"])
def test_saved_and_opened_again(digits, structure, tmp_path):
    x, y = digits
    model = glai.ExactClassifier(32, structure=structure, class_weight={"digit 1": 2.0}).fit(x[:400], y[:400])
    probabilities = model.predict_proba(x)
    assert -np.log(probabilities[np.arange(len(y)), np.searchsorted(model.classes_, y)]).mean() < 0.7
    model.save(tmp_path / "model")
    again = glai.ExactClassifier.load(tmp_path / "model")
    assert (again.predict_proba(x) == probabilities).all()
    assert again.get_params() == model.get_params()
    assert again.forget(x[:100], y[:100]).digest() == model.forget(x[:100], y[:100]).digest()
    np.testing.assert_allclose(again.predict_proba(x), model.predict_proba(x), atol=1e-6)
    again.save(tmp_path / "model")
    other = glai.ExactClassifier(structure=glai.IntegerFeatures.fit(x, 8), random_state=3).fit(x[:50], y[:50])
    with pytest.raises(ValueError, match="must hold a model of features .* overwrite=True replaces it"):
        other.save(tmp_path / "model")
    other.save(tmp_path / "model", overwrite=True)
    assert glai.ExactClassifier.load(tmp_path / "model").digest() == other.digest()
    with pytest.raises(
        ValueError, match="outputs must be values, got classes; ExactClassifier.load opens it"
    ):
        glai.ExactRegressor.load(tmp_path / "model")


def test_a_solution_of_other_parameters_is_not_saved(digits, tmp_path):
    x, y = digits
    model = glai.ExactClassifier(32, l2=1.0, per_class=True).fit(x[:400], y[:400])
    for changes in ({"l2": 1e7}, {"class_weight": "balanced"}, {"class_weight": {"digit 11": 2.0}}):
        model.predict(x[:1])
        model.set_params(**changes).save(tmp_path)
        again = glai.ExactClassifier.load(tmp_path)
        assert again.get_params() == model.get_params()
        if changes != {"class_weight": {"digit 11": 2.0}}:  # a class that may yet come
            assert (again.decision_function(x) == model.decision_function(x)).all()


def test_a_solution_of_an_earlier_version_is_solved_anew(digits, tmp_path, monkeypatch):
    """It was another one of the same sums: two models of one digest would answer differently."""
    x, y = digits
    model = glai.ExactClassifier(32).fit(x[:400], y[:400])
    expected = model.decision_function(x)
    with monkeypatch.context() as earlier:
        earlier.setattr(saving, "SOLUTION_VERSION", 1)
        model.save(tmp_path)
    again = glai.ExactClassifier.load(tmp_path)
    assert again.known_solution() is None
    np.testing.assert_allclose(again.decision_function(x), expected, atol=1e-6)
    again.save(tmp_path)
    assert glai.ExactClassifier.load(tmp_path).known_solution() is not None


def test_regressor(tmp_path):
    x, y = load_diabetes(return_X_y=True)
    two = np.stack([y, -2 * y], axis=1)
    model = glai.ExactRegressor(64, scale="features").fit(x[:350], two[:350])
    assert model.score(x[350:], two[350:]) > 0.4
    np.testing.assert_allclose(model.predict(x)[:, 1], -2 * model.predict(x)[:, 0], rtol=1e-3)
    model.save(tmp_path)
    again = glai.ExactRegressor.load(tmp_path)
    assert (again.predict(x) == model.predict(x)).all()
    again.partial_fit(x[350:], two[350:]).forget(x[:350], two[:350])
    told = {name: getattr(model.statistics_, name).tolist() for name in ("step", "centre")}
    rest = glai.ExactRegressor(structure=model.features_, **told)
    assert rest.fit(x[350:], two[350:]).digest() == again.digest()
    one = glai.ExactRegressor(8).fit(x, y)
    assert one.predict(x).shape == y.shape
    glai.ExactRegressor(8, step=0.5).fit(x, y).save(tmp_path / "one")
    assert glai.ExactRegressor.load(tmp_path / "one").statistics_.step.tolist() == [0.5]
    far = np.r_[y[:350], 1e9]  # of a sample that does not count
    weight = np.r_[np.ones(350), 0]
    model = glai.ExactRegressor(structure=one.features_).fit(x[:351], far, sample_weight=weight)
    assert model.digest() == clone(model).fit(x[:350], y[:350]).digest()
    with pytest.warns(UserWarning, match="y varies by .* in column 0, which steps of .* lose much of"):
        glai.ExactRegressor(8).fit(x[:20], y[:20] + 1e9)


@pytest.mark.filterwarnings("error")
def test_values_far_from_zero_are_learnt_as_well_as_others(tmp_path):
    generator = np.random.default_rng(0)
    x = generator.standard_normal((3000, 8)).astype(np.float32)
    y = np.tanh(x @ generator.standard_normal(8)) + 0.3 * generator.standard_normal(3000)
    y = (y - y.mean()) / y.std()
    near, far = (glai.ExactRegressor(150).fit(x[:2000], y[:2000] + c) for c in (0.0, 1e6))
    scores = near.score(x[2000:], y[2000:]), far.score(x[2000:], y[2000:] + 1e6)
    assert scores[1] == pytest.approx(scores[0], abs=1e-3)
    assert scores[0] > 0.5
    chunks = [(x[i : i + 500], y[i : i + 500] + 1e6) for i in (0, 500, 1000, 1500)]
    parts = glai.ExactRegressor(structure=far.features_).fit(iter(chunks))
    assert parts.score(x[2000:], y[2000:] + 1e6) == pytest.approx(scores[0], abs=1e-3)
    parts.save(tmp_path)
    again = glai.ExactRegressor.load(tmp_path)
    assert (again.predict(x) == parts.predict(x)).all()
    told = {name: getattr(parts.statistics_, name).tolist() for name in ("step", "centre")}
    whole = clone(parts).set_params(**told).fit(x[:2000], y[:2000] + 1e6)
    assert whole.digest() == parts.digest() == (again + whole.forget(x[:2000], y[:2000] + 1e6)).digest()
    with pytest.raises(ValueError, match="centre must be .* like these"):
        parts.merge(clone(parts).set_params(step=told["step"]).fit(x, y))


def test_one_sample_one_class_and_fewer_samples_than_features():
    x, y = load_iris(return_X_y=True)
    model = glai.ExactClassifier(300).partial_fit(x[:1], y[:1])
    assert (model.predict(x) == 0).all()
    model.partial_fit(x[50:51], y[50:51], classes=[0, 1, 2])
    assert (model.predict(x[[0, 50]]) == [0, 1]).all()
    assert 2 not in model.predict(x)
    assert model.partial_fit(x[::7], y[::7]).score(x, y) > 0.9


def test_samples_are_held_out_by_their_content(digits, tmp_path):
    x, y = digits
    model = glai.ExactClassifier(80, l2="held-out").fit(x[:600], y[:600])
    parts = glai.ExactClassifier(l2="held-out", structure=model.features_)
    for label in np.unique(y):
        rows = np.flatnonzero(y[:700] == label)
        parts.partial_fit(x[rows], y[rows])
    parts.save(tmp_path)
    parts = glai.ExactClassifier.load(tmp_path).forget(x[600:700], y[600:700])
    assert parts.l2_ == pytest.approx(model.l2_)
    assert parts.digest() == model.digest()
    assert model.solution().provenance["l2_by"] == "held-out"
    assert model.score(x[600:], y[600:]) > 0.93
    with pytest.raises(ValueError, match="l2='held-out' must be told before the first samples"):
        glai.ExactClassifier(8).fit(x, y).set_params(l2="held-out").partial_fit(x, y)


def test_what_the_held_out_samples_refuse_has_changed_nothing(digits):
    x, y = digits
    told_late = glai.ExactClassifier(8).fit(x[:50], y[:50], ids=np.arange(50)).set_params(l2="held-out")
    with pytest.raises(ValueError, match="must be told before the first samples"):
        told_late.forget(x[:25], y[:25])
    assert sorted(told_late.statistics_.ledger.ids) == list(range(50))
    model = glai.ExactClassifier(8, l2="held-out").fit(x[:50], y[:50]).set_params(l2=1.0)
    model.partial_fit(iter([(x[50:100], y[50:100])])).forget(x[50:100], y[50:100])
    assert model.digest() == clone(model).set_params(structure=model.features_).fit(x[:50], y[:50]).digest()
    with pytest.raises(ValueError, match="needs sums over held-out samples"):
        model.set_params(l2="held-out").predict(x)


@pytest.mark.parametrize("way", ["archive", "map", "iterator", "goes on"])
def test_data_in_chunks_are_the_data(digits, tmp_path, monkeypatch, way):
    monkeypatch.setattr(chunked, "ROWS", 500)
    monkeypatch.setattr(learner, "ROWS", 500)
    x, y = digits[0].astype(np.float32), digits[1]
    ids = np.arange(len(x))
    model = glai.ExactClassifier(30)
    if way == "archive":
        np.savez(tmp_path / "data.npz", x=x, y=y, id=ids)
        model.fit(tmp_path / "data.npz", checkpoint=tmp_path / "checkpoint")
        assert glai.ExactClassifier(30).fit(str(tmp_path / "data.npz")).digest() == model.digest()
    elif way == "map":
        np.save(tmp_path / "x.npy", x)
        model.fit(np.load(tmp_path / "x.npy", mmap_mode="r"), y, ids=ids)
    elif way == "iterator":
        model.fit(iter([(x[:500], y[:500], None, ids[:500]), (x[500:], y[500:], None, ids[500:])]))
    else:
        eight = np.flatnonzero(y[:500] != "digit 8")
        model.fit(x[eight], y[eight], ids=ids[eight])
        rest = np.setdiff1d(ids, eight)
        model.partial_fit(iter([(x[rest], y[rest], np.ones(len(rest)), rest)]))
    whole = glai.ExactClassifier(structure=model.features_).fit(x, y, ids=ids)
    assert model.digest() == whole.digest()
    assert model.score(x, y) > 0.9
    model.forget(x[:3], y[:3], ids=ids[:3])
    with pytest.raises(ValueError, match="data must hold samples, got none"):
        model.partial_fit(iter([]))
    assert model.n_samples_ == len(x) - 3


def test_samples_that_do_not_count_are_of_no_class(digits):
    x, y = digits
    weight = np.r_[np.ones(200), np.zeros(50), np.ones(50)]
    strange = np.r_[y[:200], np.full(50, "none of these"), y[250:300]]
    model = glai.ExactClassifier(8).fit(iter([(x[:100], y[:100]), (x[:300], strange, weight)]))
    rows = np.r_[0:100, 0:200, 250:300]
    whole = glai.ExactClassifier(structure=model.features_).fit(x[rows], y[rows])
    assert (model.classes_ == whole.classes_).all()
    assert model.digest() == whole.digest()


def test_zero_has_one_sign(digits):
    x = digits[0][:100]
    y = np.arange(100) % 3 - 1.0
    model = glai.ExactClassifier(8).fit(x, y)
    negative = glai.ExactClassifier(structure=model.features_).fit(x, np.where(y == 0, -0.0, y))
    assert negative.digest() == model.digest()
    assert (negative.statistics_.ledger.hashes == model.statistics_.ledger.hashes).all()
    assert len(model.statistics_.shared_with(negative.statistics_)) == 100
