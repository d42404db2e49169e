"""Labels and units live in the model: learners, files, increments and merging agree on them."""

import copy
import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, make_regression
from sklearn.metrics import log_loss, roc_auc_score, top_k_accuracy_score

import glai_native as glai

NAMES = np.array(list("jihgfedcba"))  # digit 0 sorts last


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return (x[:600] / 16).astype(np.float32), y[:600]


def classifier(**options):
    return glai.GLAIClassifier((16,), structure_epochs=3, **options)


@pytest.mark.parametrize("solver", ["statistics", "dual"])
def test_classes_are_sorted_when_one_arrives(digits, solver):
    x, y = digits
    labels = NAMES[y]
    old = y < 8
    options = {"solver": solver}
    model = classifier(**options).fit(x[old], labels[old])
    increment = solver == "statistics"
    part = ~old if increment else slice(None)
    model.retrain(x[part], labels[part], increment=increment)
    assert model.classes_.tolist() == sorted(NAMES)
    assert model.model_.class_labels == sorted(NAMES)
    probabilities = model.predict_proba(x)
    assert roc_auc_score(labels, probabilities, multi_class="ovr") > 0.99
    assert top_k_accuracy_score(labels, probabilities, k=2, labels=model.classes_) > 0.98
    assert log_loss(labels, probabilities) < 0.7
    assert (model.model_.predict(torch.from_numpy(x)) == model.predict(x)).all()
    assert model.score(x, labels) > 0.95


@pytest.mark.parametrize("how", ["retrain", "partial_fit"])
def test_an_exact_increment_keeps_the_temperature(digits, how):
    x, y = digits
    learner = classifier(solver="statistics").fit(x[:300], NAMES[y[:300]])
    before = learner.model_.estimator.temperature
    if how == "retrain":
        learner.retrain(x[300:], NAMES[y[300:]], increment=True)
    else:
        learner.partial_fit(x[300:], NAMES[y[300:]])
    assert learner.model_.estimator.temperature == before != 0.1


@pytest.mark.parametrize("order", [[9, 3, 0], [0, 3, 9], [5, 4, 6]])
def test_an_increment_is_exact_wherever_its_class_sorts(digits, order):
    x, y = digits
    x = torch.from_numpy(x).double()
    labels = NAMES[y]
    selector = glai.PathSelector(
        torch.nn.Sequential(torch.nn.Linear(12, 6), torch.nn.ReLU(), torch.nn.Linear(6, 10)).double(),
        glai.InputProjection.fit(x, 12),
    )

    def part(rows):
        classes, indices = np.unique(labels[rows], return_inverse=True)
        return x[rows], torch.from_numpy(indices), classes.tolist()

    old = ~np.isin(y, order)
    xs, ys, names = part(old)
    model = glai.fit(selector, xs, ys, solver="statistics", l2=1.0, class_labels=names, progress=False).model
    for digit in order:
        xs, ys, names = part(y == digit)
        glai.retrain(model, xs, ys, increment=True, l2=1.0, class_labels=names, progress=False)
    xs, ys, names = part(np.ones(len(y), dtype=bool))
    once = glai.fit(selector, xs, ys, solver="statistics", l2=1.0, class_labels=names, progress=False).model
    assert model.class_labels == once.class_labels == sorted(NAMES)
    assert torch.equal(model.estimator.on_counts, once.estimator.on_counts)
    scale = float(once.estimator.weight.abs().max())
    for name in ("weight", "bias"):
        found, expected = (getattr(m.estimator, name) for m in (model, once))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * max(scale, 1.0))


@pytest.mark.parametrize("method", ["samples", "activations_classes", "statistics"])
def test_two_parties_learn_another_class_each(digits, method, tmp_path):
    x, y = digits
    labels = np.array([f"{name}!" for name in NAMES])[y]
    common = y < 8
    first = classifier(solver="statistics").fit(x[common], labels[common])
    second = copy.deepcopy(first)
    for learner, digit in ((first, 8), (second, 9)):
        learner.retrain(x[y == digit], labels[y == digit], increment=True)
    with warnings.catch_warnings(action="error"):
        merged = glai.merge([first.model_, second.model_], method, progress=False)
    assert merged.class_labels == sorted(set(labels))
    predicted = merged.predict(torch.from_numpy(x))
    right = predicted == labels
    assert right[y == 8].mean() > 0.8
    assert right[y == 9].mean() > 0.8
    merged.save(tmp_path / "m")
    learner = glai.GLAIClassifier.load(tmp_path / "m")
    assert learner.classes_.tolist() == sorted(set(labels))
    assert (learner.predict(x) == predicted).all()


@pytest.mark.parametrize("solver", ["dual", "sgd", "statistics"])
def test_a_class_that_one_model_has_no_samples_of_is_the_other_s(digits, solver):
    x, y = digits
    parts = [y < 7, y > 2]
    first = classifier(solver=solver).fit(x, NAMES[y])
    second = copy.deepcopy(first)
    for learner, part in zip((first, second), parts, strict=True):
        learner.retrain(x[part], NAMES[y][part])  # puts the other classes below all of its own
    methods = ["samples", "activations_classes"] + ["statistics"] * (solver == "statistics")
    for method in methods:
        merged = glai.merge([first.model_, second.model_], method, progress=False)
        right = merged.predict(torch.from_numpy(x)) == NAMES[y]
        assert min(right[y == digit].mean() for digit in range(10)) > 0.6, method


@pytest.mark.parametrize("method", ["samples", "activations_classes", "statistics"])
def test_a_class_that_no_model_has_samples_of_is_never_the_answer(digits, method):
    x, y = digits
    first = classifier().partial_fit(x[y < 5], NAMES[y[y < 5]], NAMES)
    second = copy.deepcopy(first)
    first.partial_fit(x[y < 3], NAMES[y[y < 3]])
    merged = glai.merge(
        [first.model_, second.model_], method, progress=False, l2=1.0 if method == "statistics" else None
    )
    far = torch.randn(500, 64, generator=torch.Generator().manual_seed(0)) * 30
    for samples in (torch.from_numpy(x), far):
        assert set(merged.predict(samples)) <= set(NAMES[:5])


def test_merging_does_not_depend_on_the_order_of_labels(digits):
    x, y = digits
    x = torch.from_numpy(x)
    model = glai.fit(
        classifier().fit(x.numpy(), y).model_.selector, x, torch.from_numpy(y), solver="statistics",
        class_labels=list(range(10)), progress=False,
    ).model  # fmt: skip
    other = copy.deepcopy(model)
    glai.retrain(other, x[:99], torch.from_numpy(y[:99]), increment=True, progress=False)
    permuted = copy.deepcopy(other)
    permuted.permute_outputs(torch.arange(9, -1, -1))
    assert permuted.class_labels == list(range(9, -1, -1))
    for method in ("samples", "activations_classes", "statistics"):
        expected = glai.merge([model, other], method, progress=False)
        found = glai.merge([model, permuted], method, progress=False)
        assert found.class_labels == expected.class_labels
        torch.testing.assert_close(found(x), expected(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "labels",
    [
        lambda y: y.astype(str),
        lambda y: y.astype(float),
        lambda y: y > 4,
        lambda y: np.array([*y[1:], "1"], dtype=object),
        lambda y: [*y[1:].tolist(), None],
        lambda y: np.array([*y[1:], float("nan")], dtype=object),
    ],
)
@pytest.mark.parametrize("how", ["retrain", "increment", "partial_fit"])
def test_another_type_of_label(digits, how, labels):
    x, y = digits
    if how == "partial_fit":
        learner = classifier().partial_fit(x, y)
        call = learner.partial_fit
    else:
        learner = classifier(solver="statistics").fit(x, y)

        def call(x, y):
            learner.retrain(x, y, increment=how == "increment")

    before = learner.predict_proba(x)
    with pytest.raises(ValueError, match=r"int.*(str|float|bool|NoneType)") as error:
        call(x, labels(y))
    assert "\n" not in str(error.value)
    assert learner.classes_.tolist() == list(range(10))
    assert (learner.predict_proba(x) == before).all()


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, object])
def test_scalars_of_one_type_are_one_type(digits, dtype):
    x, y = digits
    learner = classifier().partial_fit(x, y)
    learner.partial_fit(x, y.astype(dtype)).partial_fit(x, y.tolist())
    assert learner.classes_.tolist() == list(range(10))
    assert all(type(label) is int for label in learner.model_.class_labels)


def test_labels_in_an_array_of_objects_are_scored(digits):
    x, y = digits
    for labels in (y, y > 4, y.astype(float)):
        learner = classifier(solver="statistics").fit(x, labels.astype(object))
        assert learner.score(x, labels.astype(object)) == learner.score(x, labels) > 0.9


def test_a_list_of_mixed_labels_is_no_list_of_texts(digits):
    x, y = digits
    with pytest.raises(ValueError, match="y must be class labels of one type, got int and str"):
        classifier().fit(x, [*y[1:].tolist(), "seven"])


def test_truth_values_and_long_integers_are_labels(digits, tmp_path):
    x, y = digits
    for labels in (y > 4, [2**60 + int(one) for one in y % 3]):
        model = classifier(solver="statistics").fit(x, labels)
        assert model.classes_.tolist() == sorted(set(np.array(labels).tolist()))
        model.save(tmp_path / "m", overwrite=True)
        loaded = glai.GLAIClassifier.load(tmp_path / "m")
        assert (loaded.predict(x) == model.predict(x)).all()
        assert type(loaded.model_.class_labels[0]) is type(np.array(labels).tolist()[0])


def test_a_regressor_s_model_knows_its_units(tmp_path):
    x, y = make_regression(400, 5, noise=1.0, random_state=0)
    y = 1e3 + 50 * y
    learner = glai.GLAIRegressor((8,), structure_epochs=3, solver="statistics").fit(x, y)
    model = learner.model_
    tensor = torch.from_numpy(x).float()
    np.testing.assert_allclose(model.predict(tensor)[:, 0], learner.predict(x), rtol=1e-12)
    np.testing.assert_allclose(
        model(tensor).detach().numpy()[:, 0],
        learner.predict(x),
        rtol=1e-5,
        atol=1e-6 * float(np.abs(y).max()),
    )
    model.save(tmp_path / "m")
    loaded = glai.GLAI.load(tmp_path / "m")
    assert torch.equal(loaded.estimator.target_mean, model.estimator.target_mean)
    glai.retrain(loaded, tensor, torch.from_numpy(y)[:, None], increment=True, progress=False)
    predicted = loaded.predict(tensor)[:, 0]
    assert 1 - ((predicted - y) ** 2).sum() / ((y - y.mean()) ** 2).sum() > 0.9
    assert loaded.statistics.n_samples == 800
    merged = glai.merge([loaded, model], "statistics", progress=False)
    assert torch.equal(merged.estimator.target_scale, model.estimator.target_scale)
    other = copy.deepcopy(model)
    other.estimator.set_target_scaling([0.0], [2.0])
    with pytest.raises(ValueError, match="same centre and scale of y"):
        glai.merge([model, other], progress=False)
    with pytest.raises(ValueError, match="y must be values"):
        glai.fit(model, tensor, (torch.from_numpy(y) > 0).long(), progress=False)


@pytest.mark.parametrize("solver", ["dual", "sgd", "statistics"])
@pytest.mark.parametrize("unit", [2.0**-1000, 2.0**-60, 2.0**60, 2.0**1000])
def test_the_unit_of_targets_does_not_matter(solver, unit, tmp_path):
    x, y = make_regression(150, 4, noise=1.0, random_state=0)
    one, other = (
        glai.GLAIRegressor((8,), structure_epochs=2, solver=solver).fit(x, values) for values in (y, y * unit)
    )
    np.testing.assert_array_equal(other.predict(x), one.predict(x) * unit)
    other.save(tmp_path / "m")
    np.testing.assert_array_equal(glai.GLAIRegressor.load(tmp_path / "m").predict(x), other.predict(x))


def test_targets_of_a_range_beyond_float64():
    x = np.arange(40.0).reshape(20, 2)
    with pytest.raises(ValueError, match="GLAIRegressor: y must have a range that float64 holds"):
        glai.GLAIRegressor((8,)).fit(x, np.where(np.arange(20) > 0, 1.7e308, -1.7e308))


def test_state_dicts_carry_what_outputs_mean(digits):
    x, y = digits
    model = classifier(solver="statistics").fit(x, NAMES[y]).model_
    estimator = model.estimator
    fresh = glai.PathEstimator(estimator.n_paths, estimator.in_features, 10)
    fresh.load_state_dict(estimator.state_dict())
    assert fresh.class_labels == sorted(NAMES)
    assert fresh.structure_id == model.structure_id
    assert copy.deepcopy(model).class_labels == sorted(NAMES)


def test_labelled_outputs_are_added_by_name():
    estimator = glai.PathEstimator(3, 2, 2)
    estimator.class_labels = ["a", "c"]
    with pytest.raises(ValueError, match=r"labels must name the 1 outputs that are added"):
        estimator.add_outputs(1)
    estimator.add_classes(["b", "a"])
    assert estimator.class_labels == ["a", "b", "c"]
    counted = glai.PathEstimator(3, 2, 2)
    counted.class_labels = [0, 1]
    counted.add_outputs(2)
    assert counted.class_labels == [0, 1, 2, 3]
    with pytest.raises(ValueError, match=r"type int like the model's \(0, 1, 2, 3\), got str \('x'\)"):
        counted.add_classes(["x"])


def test_directions_of_a_class_are_its_own(digits):
    """Two owners of a copy who learn classes in another order, or another one each, can still be merged."""
    x, y = (torch.from_numpy(array) for array in digits)
    selector = classifier().fit(*digits).model_.selector
    directions = glai.output_directions(selector, 8)
    common = y < 8
    base = glai.GLAI(selector, glai.PathEstimator(17, 64, 8, directions))
    glai.fit(base, x[common], y[common], solver="sgd", epochs=2, class_labels=list(range(8)), progress=False)
    first, second = copy.deepcopy(base), copy.deepcopy(base)
    for model, new in ((first, [8, 9]), (second, [9, 8])):
        for digit in new:
            part = y == digit
            glai.retrain(
                model, x[part], torch.zeros(int(part.sum()), dtype=torch.int64), increment=True, solver="sgd",
                epochs=1, class_labels=[digit], progress=False,
            )  # fmt: skip
    assert first.estimator.directions_id == second.estimator.directions_id
    third = copy.deepcopy(base)
    part = y == 9
    glai.retrain(third, x[part], y[part] - 9, increment=True, solver="sgd", class_labels=[9], progress=False)
    assert glai.merge([first, third, base]).class_labels == list(range(10))


def test_equal_models_are_warned_of(digits):
    model = classifier(solver="statistics").fit(*digits).model_
    with pytest.warns(UserWarning, match="a and b are equal, and the samples of both count"):
        glai.merge([model, copy.deepcopy(model)], names=["a", "b"])


def test_statistics_have_labels_too(digits, tmp_path):
    x, y = (torch.from_numpy(array) for array in digits)
    selector = classifier().fit(*digits).model_.selector
    z, gates = selector.project(x), selector.gates(x)

    def statistics(classes):
        part = glai.PathStatistics(17, 64, len(classes))
        part.class_labels = [str(one) for one in classes]
        rows = torch.isin(y, torch.tensor(classes))
        indices = torch.tensor([classes.index(one) for one in y[rows].tolist()])
        part.update(z[rows], gates[rows], indices)
        return part

    first, second = statistics([3, 1]), statistics([2, 0])
    merged = glai.merge([first, second], progress=False)
    assert merged.class_labels == ["0", "1", "2", "3"]
    assert torch.equal(merged.on_counts[-1], torch.bincount(y, minlength=10)[:4])
    with pytest.raises(ValueError, match="class labels must be '3', '1', got '2', '0'"):
        first + second
    merged.save(tmp_path / "s.safetensors")
    assert glai.PathStatistics.load(tmp_path / "s.safetensors").class_labels == merged.class_labels
    assert merged.solve(1.0).class_labels == merged.class_labels


def test_nan_is_of_no_class():
    x = torch.randn(60, 4)
    model = glai.fit(
        glai.GLAIClassifier((4,)).fit(x.numpy(), (x[:, 0] > 0).numpy()).model_.selector,
        x,
        (x[:, 0] > 0).long(),
    ).model
    with pytest.raises(ValueError, match="GLAI.predict: x must be finite"):
        model.predict(torch.full((2, 4), float("nan")))
