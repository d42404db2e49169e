"""Weights, sums, counts and labels of a model agree, whatever was done to it and whatever failed."""

import pytest
import torch

import glai_native as glai
from conftest import make_mlp

LABELS = ["ant", "bee", "cat"]


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(240) % 3
    x = torch.randn(240, 4, generator=generator, dtype=torch.float64)
    x += torch.eye(3, 4, dtype=torch.float64)[y] * 2
    return x, y


@pytest.fixture
def selector(data):
    return glai.PathSelector(make_mlp(4, 6, 3, dtype=torch.float64), glai.InputProjection.fit(data[0]))


@pytest.fixture
def model(selector, data):
    model = glai.fit(selector, *data, solver="statistics", progress=False).model
    model.estimator.class_labels = LABELS
    return model


def test_pruned_and_grown_models_keep_their_labels(model, data):
    assert glai.prune(model, model.selector.unit_gates(data[0])).estimator.class_labels == LABELS
    assert glai.grow(model, 0, 2).estimator.class_labels == LABELS


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["ant"], "must be of the C=3 outputs, got 1 label"),
        ([b"ant", b"bee", b"cat"], "must be class labels, numbers or text, got bytes"),
        ([0, 1, "two"], "must be class labels of one type, got int and str"),
        ([0, 1, True], "must be class labels of one type, got int and bool"),
        ([0.0, 1.0, float("nan")], "must be finite"),
        (["ant", "bee", None], "must be class labels of one type, got str and NoneType"),
        (["ant", "bee", "ant"], "must name each class once, got 'ant'"),
    ],
)
def test_labels_that_no_file_can_hold(model, labels, message):
    with pytest.raises(ValueError, match=f"class_labels {message}"):
        model.estimator.class_labels = labels
    assert model.estimator.class_labels == LABELS


def state(model):
    """All that a file of the model would hold."""
    sums = None if model.statistics is None else model.statistics.to_bytes()
    return model.estimator.to_bytes(), sums


def interrupt(_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("new_classes", [False, True])
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"increment": True, "l2": -1.0}, ValueError),
        ({"increment": True, "l2": "loo"}, ValueError),
        ({"solver": "sgd", "on_epoch": interrupt}, KeyboardInterrupt),
        ({"solver": "sgd", "increment": True, "on_epoch": interrupt}, KeyboardInterrupt),
        ({"solver": "sgd", "learning_rate": -1.0}, ValueError),
        ({"solver": "statistics", "l2": -1.0}, ValueError),
        ({"solver": "dual", "l2": -1.0}, ValueError),
    ],
)
def test_a_failed_retraining_leaves_the_model_as_it_was(model, data, options, error, new_classes):
    x, y = data
    weight, before = model.estimator.weight, state(model)
    options = options | {"class_labels": [*LABELS, "ape"] if new_classes else LABELS}
    with pytest.raises(error):
        glai.retrain(model, x[:90], y[:90] + int(new_classes), progress=False, **options)
    assert state(model) == before
    assert model.estimator.weight is weight
    assert model.estimator.class_labels == LABELS


def test_a_failed_fit_leaves_the_model_as_it_was(model, data):
    before = state(model)
    with pytest.raises(KeyboardInterrupt):
        glai.fit(model, *data, solver="sgd", on_epoch=interrupt, progress=False)
    assert state(model) == before


@pytest.mark.parametrize("increment", [False, True])
@pytest.mark.parametrize("shape", [(240, 3), (240, 1), (240,)])
def test_values_add_no_outputs(selector, data, increment, shape):
    values = torch.randn(240, 2, dtype=torch.float64)
    model = glai.fit(selector, data[0], values, solver="statistics", progress=False).model
    with pytest.raises(ValueError, match=r"y must be values \[N=240, C=2\]"):
        glai.retrain(model, data[0], torch.zeros(shape), increment=increment, progress=False)
    assert model.estimator.out_features == 2


def test_files_of_two_states(model, data, tmp_path, monkeypatch):
    """A kill between the renames of estimator and statistics, or another process's save into the same folder."""
    x, y = data
    monkeypatch.chdir(tmp_path)
    model.save("a")
    before, later = glai.GLAI.load("a"), glai.GLAI.load("a")
    monkeypatch.chdir("/")  # what is read later is found
    glai.retrain(later, x[:9], y[:9], increment=True, progress=False)
    later.save(tmp_path / "a")
    for mixed in (before, glai.GLAI.load(tmp_path / "a")):
        if mixed is not before:
            mixed.estimator.load_state_dict(before.estimator.state_dict())
        with pytest.raises(ValueError, match=r"its 249 samples must be those .* has seen 240"):
            glai.retrain(mixed, x[:9], y[:9], increment=True, progress=False)
        with pytest.raises(ValueError, match="its 249 samples must be those"):
            glai.merge([mixed, mixed], "statistics", progress=False)
    assert int(before.estimator.samples_seen) == 240
    assert glai.GLAI.load(tmp_path / "a").statistics.n_samples == 249


@pytest.mark.parametrize("with_directions", [False, True])
def test_a_stream_trains_the_model_in_place(selector, data, with_directions):
    x, y = data
    directions = glai.output_directions(selector, 3) if with_directions else None
    model = glai.GLAI(selector, glai.PathEstimator(7, 4, 3, directions, dtype=torch.float64))
    model.estimator.class_labels = LABELS
    assert glai.fit(model, [(x, y)], l2=0.1, progress=False).model is model
    assert model.estimator.class_labels == LABELS
    expected = model.statistics.solve(0.1, directions)
    assert torch.equal(expected(selector.project(x), selector.gates(x)), model(x))
    chunks = [(x[part], y[part] + extra) for part, extra in ((slice(0, 99), 0), (slice(99, None), 1))]
    before = state(model)
    with pytest.raises(ValueError, match="class_labels must name the classes of y, whose indices go to 3"):
        glai.fit(model, chunks, l2=0.1, progress=False)
    assert state(model) == before
    model.class_labels = None
    glai.fit(model, chunks, l2=0.1, progress=False)  # the second brings a class
    sizes = model.estimator.out_features, model.statistics.out_features, int(model.estimator.samples_seen)
    assert sizes == (4, 4, 240)
    before = state(model)
    with pytest.raises(ValueError, match=r"y must be values \[N=240, C=4\]"):
        glai.fit(model, [(x, torch.zeros(240, 5))], progress=False)
    assert state(model) == before


def test_class_ids_are_no_indices(model, data):
    """Ids of people, say: an output for each number up to the largest."""
    model.class_labels = None
    before = state(model)
    with pytest.raises(MemoryError, match=r"for C=2,000,000,001 outputs takes .*number classes 0, 1"):
        glai.retrain(model, data[0], data[1] * 10**9, increment=True, progress=False)
    assert state(model) == before


def test_the_same_counts_do_not_make_the_same_statistics(model, data, tmp_path):
    """The estimator's file states which statistics it was saved with."""
    model.save(tmp_path)
    loaded, other = glai.GLAI.load(tmp_path), glai.GLAI.load(tmp_path)
    other.statistics._squares += 1
    other.save(tmp_path)
    with pytest.raises(ValueError, match="the folder was written to since the model was loaded"):
        _ = loaded.statistics
    with pytest.raises(ValueError, match="the folder was written to since the model was loaded"):
        loaded.save(tmp_path)
    (tmp_path / "statistics.safetensors").write_bytes(model.statistics.to_bytes())
    with pytest.raises(ValueError, match="the folder was written to since"):
        _ = glai.GLAI.load(tmp_path).statistics


def test_what_merge_takes(model):
    for models in ({"a": model}, (m for m in [model]), model):
        with pytest.raises(TypeError, match="models must be a sequence of models, got one "):
            glai.merge(models, progress=False)
    with pytest.raises(ValueError, match="names must be of the 2 models, got 1"):
        glai.merge([model, model], names=["a"], progress=False)


def test_values_and_classes_do_not_mix(selector, model, data):
    """Counts per class would be of some samples only, and new classes targets of 0 for values."""
    x, y = data
    values = torch.randn(240, 3, dtype=torch.float64)
    regression = glai.fit(selector, x, values, solver="statistics", progress=False).model
    before = state(model), state(regression)
    with pytest.raises(ValueError, match="y must be class indices as of the samples before, got values"):
        glai.retrain(model, x, values, increment=True, progress=False)
    with pytest.raises(ValueError, match="y must be values as of the samples before, got class indices"):
        glai.retrain(regression, x, y, increment=True, progress=False)
    assert (state(model), state(regression)) == before


def test_a_model_keeps_its_kind_of_paths(model, data):
    before, directions = state(model), glai.output_directions(model.selector, 3)
    with pytest.raises(
        ValueError, match="has full paths and can only be trained along those, got output dir"
    ):
        glai.fit(model, *data, solver="statistics", directions=directions, progress=False)
    assert state(model) == before
