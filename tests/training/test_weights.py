"""Weight 0 is absent and an integer weight is repetition, wherever samples come in."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

import glai_native as glai
import glai_native.solvers.dual.within_memory as within_memory
from glai_native.training.new_structure import train_selector

SOLVERS = ["dual", "sgd", "statistics"]
SMALL = {"hidden_layer_sizes": (8,), "structure_epochs": 3, "random_state": 1}
PAIRS = [(learner, solver) for learner in (glai.GLAIClassifier, glai.GLAIRegressor) for solver in SOLVERS]


def small(solver):
    """Few epochs where there are any: what is compared are bits."""
    return SMALL | {"solver": solver} | ({"epochs": 30} if solver == "sgd" else {})


def table(learner):
    if learner is glai.GLAIClassifier:
        x, y = load_iris(return_X_y=True)
        return x, np.array(["setosa", "versicolor", "virginica"])[y]
    x, y = load_diabetes(return_X_y=True)
    return x[:150], np.stack([y[:150], -y[:150]], axis=1)


def output(model, x):
    return model.decision_function(x) if isinstance(model, glai.GLAIClassifier) else model.predict(x)


@pytest.mark.parametrize(("learner", "solver"), PAIRS)
def test_masked_broken_rows_change_no_bit(learner, solver):
    x, y = table(learner)
    broken = np.vstack([x, np.full((20, x.shape[1]), 1e7)])
    targets = np.concatenate([y, y[:20] if learner is glai.GLAIClassifier else 1e7 + 0 * y[:20]])
    mask = np.r_[np.ones(len(x)), np.zeros(20)]
    alone = learner(**small(solver)).fit(x, y)
    for weight in (mask, mask.astype(np.float32), mask.astype(bool), mask.tolist()):
        masked = learner(**small(solver)).fit(broken, targets, sample_weight=weight)
        np.testing.assert_array_equal(output(masked, x), output(alone, x))
        assert masked.result_.score == alone.result_.score
    broken[-1, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        learner(**small(solver)).fit(broken, targets, sample_weight=mask)


@pytest.mark.parametrize(("learner", "solver"), PAIRS)
def test_integer_weights_are_repetitions(learner, solver):
    x, y = table(learner)
    rng = np.random.default_rng(0)
    weight = rng.integers(0, 4, len(x))
    rows = rng.permutation(np.repeat(np.arange(len(x)), weight))
    weighted = learner(**small(solver)).fit(x, y, sample_weight=weight)
    repeated = learner(**small(solver)).fit(x[rows], y[rows])
    np.testing.assert_array_equal(output(weighted, x), output(repeated, x))
    assert weighted.result_.score == repeated.result_.score
    assert weighted.result_.standard_error == repeated.result_.standard_error
    seen = [int(model.model_.estimator.samples_seen) for model in (weighted, repeated)]
    assert seen[0] == seen[1]
    assert solver == "sgd" or seen[0] == weight.sum()
    assert torch.equal(*(model.model_.estimator.on_counts for model in (weighted, repeated)))
    for model, args in ((weighted, (x, y, weight)), (repeated, (x[rows], y[rows]))):
        model.retrain(*args)
    np.testing.assert_array_equal(output(weighted, x), output(repeated, x))


@pytest.mark.parametrize("learner", [glai.GLAIClassifier, glai.GLAIRegressor])
def test_chunks(learner):
    x, y = table(learner)
    rng = np.random.default_rng(0)
    weight = rng.integers(0, 3, len(x))
    order = rng.permutation(len(x))
    weighted, repeated = learner(**SMALL), learner(**SMALL)
    for part in np.array_split(order, 3):
        weighted.partial_fit(x[part], y[part], sample_weight=weight[part])
        rows = np.repeat(part, weight[part])
        repeated.partial_fit(x[rows], y[rows])
    weighted.partial_fit(np.full((3, x.shape[1]), 1e7), y[:3], sample_weight=np.zeros(3))
    np.testing.assert_allclose(output(weighted, x), output(repeated, x), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="must be > 0 for at least one sample, got zero for all"):
        learner(**SMALL).partial_fit(x, y, sample_weight=np.zeros(len(x)))


@pytest.mark.parametrize("learner", [glai.GLAIClassifier, glai.GLAIRegressor])
def test_partial_fit_after_fit(learner):
    x, y = table(learner)
    order = np.random.default_rng(0).permutation(len(x))
    first, second = order[:100], order[100:]
    model = learner(**SMALL, solver="statistics", l2=0.1).fit(x[first], y[first])
    structure = model.model_.structure_id
    model.partial_fit(x[second], y[second])
    assert (model.model_.structure_id, model.model_.statistics.n_samples) == (structure, len(x))
    joint = output(model, x)
    np.testing.assert_allclose(output(model.retrain(x, y), x), joint, atol=1e-2 * abs(joint).max())
    anew = learner(**SMALL).fit(x[first], y[first]).partial_fit(x[second], y[second])
    fresh = learner(**SMALL).partial_fit(x[second], y[second])
    np.testing.assert_array_equal(output(anew, x), output(fresh, x))
    assert not hasattr(anew, "result_")


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["selector", "retrain"])
@pytest.mark.parametrize("left_out", [0, 1, 2])
def test_a_class_of_weight_0_is_never_the_answer(solver, kind, left_out):
    x, y = (torch.from_numpy(values) for values in load_iris(return_X_y=True))
    x, weight = x.float(), (y != left_out).float()
    selector = train_selector(x, y, 3, [8], epochs=3, progress=False)
    if kind == "selector":
        model = glai.fit(selector, x, y, solver=solver, sample_weight=weight, progress=False).model
    else:
        model = glai.fit(selector, x, y, solver="sgd", progress=False).model
        glai.retrain(model, x, y, solver=solver, sample_weight=weight, progress=False)
    far = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0)) * 30
    for samples in (x, far):
        assert not bool((model(samples).argmax(1) == left_out).any())
    learnt = y != left_out
    assert (model(x[learnt]).argmax(1) == y[learnt]).double().mean() > 0.8


@pytest.mark.parametrize("solver", ["auto", *SOLVERS])
def test_a_class_of_weight_0_is_no_class(solver):
    x, y = load_iris(return_X_y=True)
    alone = glai.GLAIClassifier(**small(solver)).fit(x[y != 1], y[y != 1])
    for options, weight in (
        ({}, y != 1),
        ({"class_weight": {1: 0}}, None),
        ({"class_weight": {1: 0}}, y + 1),
    ):
        model = glai.GLAIClassifier(**small(solver), **options).fit(x, y, weight)
        assert model.classes_.tolist() == [0, 2]
        assert set(model.predict(x)) == {0, 2}
        if not (options and weight is not None):
            np.testing.assert_array_equal(model.decision_function(x), alone.decision_function(x))
    with pytest.raises(ValueError, match="at least 2 classes"):
        glai.GLAIClassifier(**SMALL).fit(x, y, sample_weight=y == 1)


@pytest.mark.parametrize("solver", SOLVERS)
def test_class_weight_is_sample_weight(solver):
    x, y = load_iris(return_X_y=True)
    x, y = x[30:], y[30:]
    weight = np.array([120 / 3 / (y == c).sum() for c in range(3)])[y]
    given = glai.GLAIClassifier(**small(solver)).fit(x, y, weight)
    for class_weight in ("balanced", {c: 120 / 3 / (y == c).sum() for c in range(3)}):
        model = glai.GLAIClassifier(**small(solver), class_weight=class_weight).fit(x, y)
        np.testing.assert_allclose(output(model, x), output(given, x), atol=1e-5)
    repeats = np.random.default_rng(0).integers(0, 3, len(x))
    rows = np.repeat(np.arange(len(x)), repeats)
    weighted = glai.GLAIClassifier(**small(solver), class_weight="balanced").fit(x, y, repeats)
    repeated = glai.GLAIClassifier(**small(solver), class_weight="balanced").fit(x[rows], y[rows])
    np.testing.assert_array_equal(output(weighted, x), output(repeated, x))


def test_class_weight_refusals():
    x, y = load_iris(return_X_y=True)
    for class_weight, sentence in (
        ("heavy", "class_weight must be a dict, 'balanced' or None, got 'heavy'"),
        ({0: -1.0}, "class_weight must be finite numbers >= 0, got -1.0 of 0"),
        ({0: float("nan")}, "class_weight must be finite numbers >= 0, got nan"),
        ({"setosa": 2.0}, "class_weight must be of the classes of y, got 'setosa'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            glai.GLAIClassifier(**SMALL, class_weight=class_weight).fit(x, y)
    with pytest.raises(ValueError, match="must be a dict or None for partial_fit, got 'balanced'"):
        glai.GLAIClassifier(**SMALL, class_weight="balanced").partial_fit(x, y)
    model = glai.GLAIClassifier(**SMALL, class_weight={1: 0.0}).partial_fit(x[:140], y[:140])
    assert model.classes_.tolist() == [0, 2]


def test_class_weight_is_saved(tmp_path):
    x, y = load_iris(return_X_y=True)
    for class_weight in ({0: 2.0, 2: 0.5}, {np.int64(0): 2.0}, "balanced", None):
        model = glai.GLAIClassifier(**SMALL, class_weight=class_weight).fit(x, y)
        model.save(tmp_path / "model", overwrite=True)
        assert glai.GLAIClassifier.load(tmp_path / "model").class_weight == class_weight


@pytest.mark.parametrize("learner", [glai.GLAIClassifier, glai.GLAIRegressor])
def test_invalid_weights_are_one_error(learner):
    x, y = table(learner)
    wrong = [
        -np.ones(150),
        np.full(150, np.nan),
        np.ones(149),
        np.ones((150, 2)),
        np.zeros(150),
        np.ones(150) * 1j,
    ]
    for weight in (*wrong, (1 + 1j * np.ones(150)).tolist()):
        for call in ("fit", "partial_fit"):
            with pytest.raises(ValueError, match="sample_weight"):
                getattr(learner(**SMALL), call)(x, y, sample_weight=weight)


@pytest.mark.parametrize(("learner", "solver"), PAIRS)
@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_the_unit_of_weights_does_not_matter(learner, solver, unit):
    x, y = table(learner)
    weight = np.random.default_rng(0).random(len(x)) + 0.1
    expected = output(learner(**small(solver)).fit(x, y, weight), x)
    found = output(learner(**small(solver)).fit(x, y, weight * unit), x)
    np.testing.assert_allclose(found, expected, atol=1e-2 * abs(expected).max())


def test_balanced_weights_reach_a_rare_class():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(21_000, 5))
    y = rng.random(21_000) < 1 / (1 + np.exp(4.9 - x @ [1.6, -1.2, 0.8, 0, 0.4]))
    model = glai.GLAIClassifier((16,), structure_epochs=3, class_weight="balanced").fit(x, y)
    assert model.result_.solver == "sgd"
    scores = [
        balanced_accuracy_score(y, found.predict(x))
        for found in (model, LogisticRegression(class_weight="balanced").fit(x, y))
    ]
    assert scores[0] > scores[1] - 0.015
    assert scores[1] > 0.8


def test_projection_and_structure():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 6, generator=generator), torch.arange(60) % 3
    weight = torch.randint(0, 4, (60,), generator=generator)
    rows = torch.repeat_interleave(torch.arange(60), weight)
    broken = torch.cat([x, torch.full((5, 6), 1e7)])
    mask = torch.cat([torch.ones(60), torch.zeros(5)])
    for options in ({}, {"n_components": 3}, {"explained_variance": 0.8}):
        weighted = glai.InputProjection.fit(x, **options, sample_weight=weight)
        repeated = glai.InputProjection.fit(x[rows], **options)
        torch.testing.assert_close(weighted(x), repeated(x), rtol=1e-4, atol=1e-4)
        masked = glai.InputProjection.fit(broken, **options, sample_weight=mask)
        assert torch.equal(masked(x), glai.InputProjection.fit(x, **options)(x))
    selectors = [
        train_selector(samples, classes, 3, [5], epochs=2, sample_weight=w, progress=False)
        for samples, classes, w in ((x, y, weight), (x[rows], y[rows], None))
    ]
    assert selectors[0].structure_id == selectors[1].structure_id
    assert (
        train_selector(broken, mask.long(), 3, [5], epochs=2, sample_weight=mask, progress=False).structure_id
        == train_selector(x, mask[:60].long(), 3, [5], epochs=2, progress=False).structure_id
    )


def test_principal_components_of_many_features():
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(30, 2100, generator=generator), torch.arange(30) % 3
    rows = torch.repeat_interleave(torch.arange(30), weight)
    weighted = glai.InputProjection.fit(x, 4, sample_weight=weight)
    assert torch.equal(weighted.rotation, glai.InputProjection.fit(x[rows], 4).rotation)


def test_flips_are_weighted():
    monitor = glai.StructureMonitor()
    before, after = torch.zeros(4, 8, dtype=torch.bool), torch.zeros(4, 8, dtype=torch.bool)
    after[1, :4] = True
    weight = torch.tensor([1.0, 3.0, 0.0, 4.0])
    for bits in (before, after):
        monitor.update([glai.pack_gates(bits)], sample_weight=weight)
    assert monitor.history[0].flip_rate == 3 * 4 / (8 * 8)


def samples_of_a_selector():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(80, 4, generator=generator), torch.arange(80) % 3
    selector = train_selector(x, y, 3, [6], epochs=2, progress=False)
    weight = torch.randint(0, 4, (80,), generator=generator)
    rows = torch.repeat_interleave(torch.arange(80), weight)
    return selector, x, y, weight, rows[torch.randperm(len(rows), generator=generator)]


def test_the_native_loop():
    selector, x, y, weight, rows = samples_of_a_selector()
    z = selector.project(x)
    gates = selector.gates_of(z)
    found = []
    for ids, weights in ((slice(None), (weight,)), (rows, ())):
        estimator = glai.PathEstimator(selector.n_paths, 4, 3)
        history = glai.train_estimator(
            estimator, z[ids], gates[ids], y[ids], sample_weight=weights[0] if weights else None, epochs=3,
            batch_size=16, validation=(z[ids], gates[ids], y[ids], *weights), patience=2, progress=False,
        )  # fmt: skip
        found.append((estimator.weight, torch.tensor([(e.loss, e.validation_loss) for e in history])))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*found, strict=True))


def test_validation_carries_weights():
    selector, x, y, weight, rows = samples_of_a_selector()
    for solver in SOLVERS:
        results = [
            glai.fit(selector, x, y, solver=solver, validation=validation, progress=False)
            for validation in ((x, y, weight), (x[rows], y[rows]))
        ]
        assert results[0].score == results[1].score
        assert results[0].linear_score == results[1].linear_score
        assert [e.validation_loss for e in results[0].history] == [
            e.validation_loss for e in results[1].history
        ]


@pytest.mark.parametrize("kind", ["cholesky", "nystrom", "conjugate gradients"])
def test_the_dual(kind, monkeypatch):
    options = {"n_centres": 20} if kind == "nystrom" else {}
    if kind == "conjugate gradients":
        monkeypatch.setattr(within_memory, "cholesky_bytes", lambda *sizes: 1 << 60)
    selector, x, y, weight, rows = samples_of_a_selector()
    one, other = (
        glai.PathKernelModel(selector).fit(samples, classes, 0.5, sample_weight=w, progress=False, **options)
        for samples, classes, w in ((x, y, weight), (x[rows], y[rows], None))
    )
    assert torch.equal(one.predict(x), other.predict(x))
    assert (one.n_samples, one.loo_error) == (other.n_samples, other.loo_error)
    assert one.n_samples == len(rows)


@pytest.mark.parametrize("l2", ["gcv", "loo", 0.3])
def test_statistics(l2):
    selector, x, y, weight, rows = samples_of_a_selector()
    z = selector.project(x)
    gates = selector.gates_of(z)
    one, other = (glai.PathStatistics(selector.n_paths, 4, 3) for _ in range(2))
    one.update(z, gates, y, weight)
    other.update(z[rows], gates[rows], y[rows])
    assert one.n_samples == other.n_samples == len(rows)
    assert torch.equal(one.on_counts, other.on_counts)
    solved = [
        statistics.solve(l2, data=[data] if l2 == "loo" else None, progress=False)
        for statistics, data in ((one, (z, gates, y, weight)), (other, (z[rows], gates[rows], y[rows])))
    ]
    torch.testing.assert_close(solved[0].weight, solved[1].weight)
    assert int(solved[0].samples_seen) == len(rows)
    other.downdate(z, gates, y, weight)
    assert other.n_samples == 0
    assert not bool(other.on_counts.any())


def test_streams_and_increments():
    selector, x, y, weight, rows = samples_of_a_selector()
    halves = (slice(0, 40), slice(40, 80))
    chunks = [(x[part], y[part], weight[part]) for part in halves] + [(x[:5] + 1e7, y[:5], torch.zeros(5))]
    streamed = glai.fit(selector, chunks, progress=False).model
    repeated = [torch.repeat_interleave(torch.arange(80)[part], weight[part]) for part in halves]
    expected = glai.fit(selector, [(x[ids], y[ids]) for ids in repeated], progress=False).model
    torch.testing.assert_close(streamed(x), expected(x), rtol=1e-3, atol=1e-3)
    assert streamed.statistics.n_samples == len(rows)
    for model, args in ((streamed, (x, y, None, weight)), (expected, (x[rows], y[rows], None, None))):
        samples, classes, gates, w = args
        glai.retrain(model, samples, classes, gates, increment=True, sample_weight=w, progress=False)
    torch.testing.assert_close(streamed(x), expected(x), rtol=1e-3, atol=1e-3)
    assert streamed.statistics.n_samples == 2 * len(rows)
