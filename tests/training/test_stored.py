"""Learners and fit take memory maps, of which a window is in memory at a time."""

import numpy as np
import pytest
import torch

import glai_native as glai
from glai_native.data import stored_rows
from glai_native.training import holding_out, new_structure, reading
from glai_native.training.new_structure import train_selector

N, D = 1200, 5


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(reading, "WHOLE_BYTES", 0)
    for name, value in (("WINDOW_BYTES", 1), ("WINDOW_ROWS", 100), ("BLOCK_ROWS", 20)):
        monkeypatch.setattr(stored_rows, name, value)


@pytest.fixture
def stored(tmp_path):
    """x on disk, and values."""
    random = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", random.normal(size=(N, D)).astype(np.float32))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    return x, np.abs(np.asarray(x) @ random.normal(size=(D, 3)))


def test_a_classifier(stored):
    x, values = stored
    y = np.array(["a", "b", "c"])[values.argmax(1)]
    model = glai.GLAIClassifier(24, solver="sgd").fit(x[:1000], y[:1000])
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert model.n_features_in_ == D
    assert model.score(np.array(x[1000:]), y[1000:]) > 0.6
    with pytest.raises(ValueError, match="must have at least 2 classes, got 1"):
        model.fit(x, ["a"] * N)
    with pytest.raises(ValueError, match="X and y must be equally long, got 1200 and 3"):
        model.fit(x, ["a", "b", "a"])


def test_a_regressor(stored):
    x, values = stored
    model = glai.GLAIRegressor(24, solver="sgd").fit(x[:1000], values[:1000, 0] * 1e3 + 7)
    assert model.score(np.array(x[1000:]), values[1000:, 0] * 1e3 + 7) > 0.5


def test_weights_of_samples_and_classes(stored):
    """Classes that weigh nothing, and samples, are as if absent; a class that weighs more is said more often."""
    x, values = stored
    y, weight = values.argmax(1), np.ones(N)
    weight[y == 2] = 0
    model = glai.GLAIClassifier(8, solver="sgd").fit(x, y, weight)
    assert model.classes_.tolist() == [0, 1]
    said = [
        (glai.GLAIClassifier(8, solver="sgd", class_weight={0: share}).fit(x, y).predict(x) == 0).sum()
        for share in (0.2, 1, 5)
    ]
    assert said[0] < said[1] < said[2]


@pytest.mark.parametrize("solver", ["auto", "sgd", "statistics"])
def test_fit(stored, solver):
    x, values = stored
    y = torch.from_numpy(values.argmax(1))
    selector = train_selector(x, y, 3, 16, epochs=3, held_out=0.1, progress=False)
    result = glai.fit(selector, x, y, solver=solver, progress=False)
    assert result.solver != "dual"
    assert result.score > result.linear_score
    assert int(result.model.estimator.samples_seen) >= 1080
    again = glai.fit(selector, x, y, solver=solver, progress=False)
    for a, b in zip(result.model.estimator.parameters(), again.model.estimator.parameters(), strict=True):
        assert torch.equal(a, b)


def test_statistics_of_stored_samples_are_those_of_the_others(stored):
    x, values = stored
    y = torch.from_numpy(values.argmax(1))
    selector = train_selector(x, y, 3, 6, epochs=1, progress=False)
    found = [
        glai.fit(selector, given, y, solver="statistics", l2=1.0, progress=False)
        for given in (x, torch.from_numpy(np.array(x)))
    ]
    assert found[0].score == found[1].score
    for a, b in zip(*(result.model.estimator.parameters() for result in found), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_an_increment(stored):
    x, values = stored
    y = torch.from_numpy(values.argmax(1))
    selector = train_selector(x, y, 3, 6, epochs=1, progress=False)
    model = glai.fit(selector, x[:700], y[:700], solver="statistics", l2=1.0, progress=False).model
    result = glai.retrain(model, x[700:], y[700:], increment=True, progress=False)
    assert "500 samples joined 700" in result.reason
    assert model.statistics.n_samples == N


def test_an_increment_of_units(stored):
    x, values = stored
    y = torch.from_numpy(values.argmax(1))
    selector = train_selector(x, y, 3, 6, epochs=1, progress=False)
    model = glai.GLAI(selector, glai.PathEstimator.of_units(selector, 3))
    glai.fit(model, x[:700], y[:700], solver="statistics", l2=1.0, progress=False)
    glai.retrain(model, x[700:], y[700:], increment=True, progress=False)
    assert model.statistics.n_samples == N


@pytest.mark.parametrize("whole", [False, True])
def test_structure_and_numbers_hold_out_the_same_samples(stored, monkeypatch, whole):
    """Repeated rows and rows that weigh nothing are dealt with alike."""
    monkeypatch.setattr(reading, "WHOLE_BYTES", 1 << 30 if whole else 0)
    x, values = stored
    np.save(x.filename, np.concatenate([x[:600], x[:600]]))
    x = np.load(x.filename, mmap_mode="r")
    y, weight = torch.from_numpy(values.argmax(1)), torch.ones(N)
    weight[::7] = 0
    y[::7] = 99
    held_out, split = [], holding_out.rows_held_out

    def told(*arguments):
        found = split(*arguments)
        held_out.append(found[1])
        return found

    for module in (holding_out, new_structure):
        monkeypatch.setattr(module, "rows_held_out", told)
    selector = train_selector(x, y, 3, 6, epochs=1, held_out=0.1, sample_weight=weight, progress=False)
    glai.fit(selector, x, y, solver="sgd", sample_weight=weight, epochs=1, progress=False)
    assert torch.equal(held_out[0], held_out[1])


def test_refuses(stored):
    x, values = stored
    y = torch.from_numpy(values.argmax(1))
    selector = train_selector(x, y, 3, 6, epochs=1, progress=False)
    with pytest.raises(ValueError, match="solver 'dual' needs all samples in memory"):
        glai.fit(selector, x, y, solver="dual", progress=False)
    with pytest.raises(ValueError, match=r"x must be \[N, D=5\], got \[1200, 4\]"):
        glai.fit(selector, x[:, :4], y, progress=False)
    with pytest.raises(ValueError, match=r"y must be class indices \[N=1200\]"):
        glai.fit(selector, x, y[1:], progress=False)
    with pytest.raises(ValueError, match="gates must be None with x that is not in memory"):
        glai.fit(selector, x, y, glai.pack_gates(torch.ones(N, 7)), progress=False)
    with pytest.raises(ValueError, match="y must be given with x as one tensor or memory map"):
        glai.fit(selector, x, progress=False)
