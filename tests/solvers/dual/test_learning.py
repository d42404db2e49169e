"""A path kernel model learns and forgets as a fit on the samples that are there in the end."""

import json

import pytest
import torch

import glai_native as glai
from conftest import make_mlp
from glai_native.machine.files import tensors_to_bytes
from glai_native.machine.writing import write_files
from glai_native.solvers.dual import nystrom
from glai_native.solvers.dual.fitted import FittedKernel
from glai_native.solvers.samples import Samples

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
LABELS = ["ant", "bee", "cat", "dog"]


@pytest.fixture
def two_layers():
    """D=6 through layers of 33 and 5 units, float64: P=204."""
    x = torch.randn(80, 6, generator=torch.Generator().manual_seed(3)).double() * 3 + 1
    return glai.PathSelector(make_mlp(6, 33, 5, 4, dtype=torch.float64), glai.InputProjection.fit(x))


def data(n=70):
    """x ``[N, 6]`` and y in ``[0, 4)``."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(n, 6, generator=generator, dtype=torch.float64) * 3 + 1
    return x, torch.randint(4, (n,), generator=generator)


def values_of(x):
    return torch.stack([x.sum(1), x[:, 0] * 3 + 100], 1)


def fitted(selector, x, y, **options):
    model = glai.PathKernelModel(selector).fit(x, y, **options)
    if not y.is_floating_point():
        model.class_labels = LABELS[: model.out_features]
    return model


def saved(model, folder):
    with pytest.warns(UserWarning, match="contains training data, .* patterns and targets"):
        model.save(folder)
    return glai.PathKernelModel.load(folder)


@pytest.mark.parametrize("values", [False, True])
@pytest.mark.parametrize("l2", [20.0, "loo"])
def test_learning_and_forgetting_is_a_fit_on_what_is_there(two_layers, values, l2, tmp_path):
    x, y = data()
    y = values_of(x) if values else y
    half = fitted(two_layers, x[:40], y[:40], l2=l2)
    before = half.l2, half.temperature, half.predict(x)
    model = saved(half, tmp_path / "half")
    assert model.learn(x[40:], y[40:], progress=False) is model
    whole = fitted(two_layers, x, y, l2=model.l2)
    torch.testing.assert_close(model.predict(x), whole.predict(x), **CLOSE)
    assert model.n_samples == 70
    assert model.loo_error == pytest.approx(whole.loo_error)
    assert model.temperature == pytest.approx(whole.temperature)
    assert model.has_values == values
    assert model.class_labels == (None if values else LABELS)
    model = saved(model, tmp_path / "whole")
    order = torch.randperm(30) + 40
    model.forget(x[order[:13]], y[order[:13]])
    model.forget(x[order[13:]], y[order[13:]])
    assert (model.l2, model.temperature, model.n_samples) == (
        pytest.approx(before[0]),
        pytest.approx(before[1]),
        40,
    )
    torch.testing.assert_close(model.predict(x), before[2], **CLOSE)


def test_l2_keeps_its_share_of_the_mean_diagonal(two_layers):
    x, y = data()
    model = fitted(two_layers, x[:40], y[:40], l2=20.0)
    model.learn(3 * x[40:], y[40:])

    def diagonal(x):
        z = two_layers.project(x)
        return glai.path_kernel(z, two_layers.unit_gates_of(z)).diagonal().mean()

    larger = diagonal(torch.cat([x[:40], 3 * x[40:]])) / diagonal(x[:40])
    assert larger > 1.5
    assert model.l2 == pytest.approx(20 * float(larger))


def test_new_classes_are_sorted_in_by_their_labels(two_layers, tmp_path):
    x, y = data()
    known = y < 2
    model = glai.PathKernelModel(two_layers).fit(x[known], y[known], l2=20.0)
    model.class_labels = ["bee", "dog"]
    model = saved(model, tmp_path)
    model.learn(x[~known], y[~known] - 2, class_labels=["cat", "ant"])
    assert model.class_labels == LABELS
    places = torch.tensor([1, 3, 2, 0])  # of bee, dog, cat, ant
    whole = glai.PathKernelModel(two_layers).fit(x, places[y], l2=model.l2)
    torch.testing.assert_close(model.predict(x), whole.predict(x), **CLOSE)
    model.forget(x[~known], places[y][~known])
    assert model.class_labels == LABELS
    torch.testing.assert_close(model.predict(x)[:, [0, 2]], torch.zeros(70, 2).double())
    model.permute_outputs(torch.tensor([3, 2, 1, 0]))
    model.forget(x[known][:3], 3 - places[y][known][:3])
    assert model.n_samples == int(known.sum()) - 3


def test_indices_go_on_behind_those_that_are_there(two_layers):
    x, y = data()
    model = glai.PathKernelModel(two_layers).fit(x[y < 3], y[y < 3], l2=20.0)
    model.learn(x[y == 3], y[y == 3])
    assert model.out_features == 4
    model = fitted(two_layers, x[y < 3], y[y < 3], l2=20.0)
    with pytest.raises(ValueError, match="labels must name the 1 outputs that are added"):
        model.learn(x[y == 3], y[y == 3])
    with pytest.raises(ValueError, match="labels must hold labels of type str"):
        model.learn(x[y == 3], y[y == 3] - 3, class_labels=[7])


@pytest.mark.parametrize("values", [False, True])
def test_equal_samples_leave_one_at_a_time(two_layers, values):
    x, y = data(40)
    y = values_of(x) if values else y
    model = fitted(two_layers, x, y, l2=20.0)
    before = model.predict(x)
    model.learn(x[[3, 3, 5]], y[[3, 3, 5]])
    assert (len(model.alpha), model.n_samples) == (40, 43)
    rows = [*range(40), 3, 3, 5]
    expected = glai.PathKernelModel(two_layers).fit(x[rows], y[rows], l2=model.l2)
    torch.testing.assert_close(model.predict(x), expected.predict(x), **CLOSE)
    for row in (3, 5, 3):
        model.forget(x[row : row + 1], y[row : row + 1])
    assert model.n_samples == 40
    torch.testing.assert_close(model.predict(x), before, **CLOSE)
    model.forget(x[3:4], y[3:4])
    message = "got 2 that are not, or not so often, in rows 0, 2; nothing was taken out"
    with pytest.raises(ValueError, match=message):
        model.forget(x[[3, 4, 4]], y[[3, 4, 4]])
    assert model.n_samples == 39


def test_weights_are_taken_off(two_layers):
    x, y = data(40)
    weight = torch.rand(40, generator=torch.Generator().manual_seed(9)).double() + 0.1
    model = fitted(two_layers, x, y, l2=20.0, sample_weight=weight)
    before = model.predict(x)
    model.learn(x[:10], y[:10], sample_weight=weight[:10] / 2)
    for _ in range(2):
        model.forget(x[:10], y[:10], sample_weight=weight[:10] / 4)
    torch.testing.assert_close(model.predict(x), before, **CLOSE)
    with pytest.raises(ValueError, match="in row 0; nothing was taken out; weights are as they were learnt"):
        model.forget(x[:1], y[:1], sample_weight=weight[:1] * 1.01)
    model.forget(x[:10], y[:10], sample_weight=weight[:10])
    assert len(model.alpha) == 30


def test_what_cannot_leave(two_layers):
    x, y = data(40)
    model = fitted(two_layers, x, y, l2=20.0)
    before, alpha = dict(model.__dict__), model.alpha.clone()
    other = x.clone()
    other[7, 2] += 1e-12
    for wrong, message in (
        ((other, y), "PathKernelModel.forget: the samples must be among those .* in row 7; nothing"),
        ((x, (y + 1) % 4), r"in rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …; nothing was taken out$"),
        ((x, y), "at least one sample must be left, got all"),
        ((x[y > 0], y[y > 0]), "samples of at least 2 classes must be left"),
        ((x, y.double()[:, None]), "y must be class indices as of the samples before, got values"),
        ((x, y + 1), r"y must be class indices in \[0, C=4\)"),
        ((x[:, :3], y), r"x must be \[N, D=6\]"),
        ((x * float("nan"), y), "x must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            model.forget(*wrong)
        assert model.__dict__ == before
        assert torch.equal(model.alpha, alpha)
    with pytest.raises(MemoryError, match="PathKernelModel.learn: at least"):
        model.learn(x, y, memory=1000)
    assert model.__dict__ == before


def test_not_every_sample_is_a_centre(two_layers, tmp_path):
    x, y = data()
    for model in (
        fitted(two_layers, x, y, n_centres=40),
        saved(fitted(two_layers, x, y, n_centres=40), tmp_path),
    ):
        for change in (model.learn, model.forget):
            with pytest.raises(
                ValueError, match="which one of n_centres samples, .* does not; train it again"
            ):
                change(x, y)


def test_files_of_the_version_before_predict_and_do_not_learn(two_layers, tmp_path):
    x, y = data()
    model = fitted(two_layers, x, y)
    saved(model, tmp_path)
    path = tmp_path / "path_kernel.safetensors"
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8:begin])["__metadata__"]
    metadata = {name: text for name, text in metadata.items() if name not in ("targets", "checksum")}
    state = {"z": model.centres.z, "alpha": model.alpha}
    state |= {f"units_{i}": layer.words for i, layer in enumerate(model.centres.layers)}
    write_files({path: tensors_to_bytes(state, metadata | {"version": "2"})})
    loaded = glai.PathKernelModel.load(tmp_path)
    assert torch.equal(loaded.predict(x), model.predict(x))
    with pytest.raises(ValueError, match="or from a file of an earlier version, does not; train it again"):
        loaded.learn(x, y)
    write_files({path: tensors_to_bytes(state, metadata | {"version": "3", "targets": "classes"})})
    with pytest.raises(ValueError, match="tensor 'y' is missing"):
        glai.PathKernelModel.load(tmp_path)
    state["y"] = y + 1
    write_files({path: tensors_to_bytes(state, metadata | {"version": "3", "targets": "classes"})})
    with pytest.raises(ValueError, match="tensors 'y' and 'weight' must be of C=4 outputs and weights > 0"):
        glai.PathKernelModel.load(tmp_path)


def test_rows_left_out_and_conjugate_gradients_keep_targets_in_order(two_layers, monkeypatch):
    monkeypatch.setattr(nystrom, "ROWS", 128)
    x, y = data(300)
    samples = Samples.of_raw("a test", two_layers, x, y, 4)
    some = glai.PathKernelModel(two_layers).fit_samples(samples, 50.0, left_out=torch.tensor([30, 3, 17]))
    steps = glai.PathKernelModel(two_layers).fit(x, y, l2=50.0, memory=2_500_000)
    assert steps.loo_error is None
    for model in (some, steps):
        model.forget(x[:100], y[:100], memory=2_500_000 if model is steps else None)
        expected = glai.PathKernelModel(two_layers).fit(x[100:], y[100:], l2=model.l2)
        tolerance = 0.05 if model.loo_error is None else 1e-9
        torch.testing.assert_close(model.predict(x), expected.predict(x), rtol=0, atol=tolerance)
    steps.temperature = 0.3
    steps.learn(x[:100], y[:100], memory=2_500_000)
    assert (steps.temperature, steps.n_samples) == (0.3, 300)  # none was left out


def test_a_rotation_s_last_bits_depend_on_the_rows_beside(tmp_path):
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(400, 300, generator=generator)
    y = torch.randint(3, (400,), generator=generator)
    projection = glai.InputProjection.fit(x, 40)
    model = glai.PathKernelModel(glai.PathSelector(make_mlp(40, 20, 3), projection)).fit(x, y, l2=1000.0)
    rows = torch.arange(0, 400, 57)
    for row in rows.tolist():
        model.forget(x[row : row + 1], y[row : row + 1])
    assert model.n_samples == 400 - len(rows)
    with pytest.raises(ValueError, match="in row 0; nothing was taken out"):
        model.forget(x[:1], y[:1])
    with pytest.raises(ValueError, match="in row 0; nothing was taken out"):
        model.forget(x[1:2] * (1 + 1e-4), y[1:2])


def test_values_are_in_the_units_of_y(two_layers):
    x, _ = data()
    y = values_of(x)
    mean, scale = y.mean(0), y.std(0)
    model = glai.PathKernelModel(two_layers).fit(x[:50], (y[:50] - mean) / scale, l2=20.0)
    model.set_target_scaling(mean, scale)
    model.learn(x[50:], y[50:])
    whole = glai.PathKernelModel(two_layers).fit(x, (y - mean) / scale, l2=model.l2)
    torch.testing.assert_close(model.predict(x), whole.predict(x) * scale + mean, **CLOSE)
    assert torch.equal(model.target_scale, scale)
    model.forget(x[50:], y[50:])
    assert model.n_samples == 50


def test_whoever_is_not_fitted(two_layers):
    model = glai.PathKernelModel(two_layers)
    assert isinstance(model, FittedKernel)
    with pytest.raises(ValueError, match="PathKernelModel.learn: the model is not fitted"):
        model.learn(*data())


def test_what_is_kept_is_a_copy(two_layers):
    x, y = data(60)
    model = glai.PathKernelModel(two_layers).fit(x, y, l2=5.0, progress=False)
    expected, given = model.predict(x), (x.clone(), y.clone())
    x.fill_(0.0)
    y.fill_(0)
    assert torch.equal(model.predict(given[0]), expected)
    model.learn(given[0][:1] + 5, given[1][:1], progress=False)
    model.forget(given[0][:1] + 5, given[1][:1], progress=False)
    torch.testing.assert_close(model.predict(given[0]), expected, rtol=0, atol=1e-9)


def test_a_class_that_was_forgotten_is_no_answer(two_layers):
    x, y = data(90)
    model = glai.PathKernelModel(two_layers).fit(x, y, l2=5.0, progress=False)
    model.forget(x[y == 2], y[y == 2], progress=False)
    far = 3 * torch.randn(500, x.shape[1], dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    assert not (model.predict_proba(far).argmax(1) == 2).any()


def test_a_small_weight_beside_a_large_one_stays(two_layers):
    x, y = data(60)
    model = glai.PathKernelModel(two_layers).fit(x, y, l2=5.0, progress=False)
    one = slice(0, 1)
    large = torch.tensor([1e10])
    model.learn(x[one], y[one], sample_weight=large, progress=False)
    model.forget(x[one], y[one], sample_weight=large, progress=False)
    assert len(model.centres) == 60


def test_values_with_labels_learn_more(two_layers):
    x, y = data(60)
    values = torch.nn.functional.one_hot(y, 4).to(x.dtype)
    model = glai.PathKernelModel(two_layers).fit(x, values, l2=5.0, progress=False)
    model.class_labels = ["a", "b", "c", "d"]
    model.learn(x + 1, values, progress=False)
    assert model.n_samples == 120
