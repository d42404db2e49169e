"""Which units an exact learner begins with: samples held out say so, the same ones however the samples come."""

import re

import numpy as np
import pytest
import torch
from sklearn.base import clone

import glai_native as glai
from glai_native.training.exact import choosing, chunked, learner
from glai_native.training.exact.choosing import DrawnSamples

N, D, UNITS = 1600, 6, 12


@pytest.fixture(scope="module")
def samples():
    """Classes of which a product of two features of six tells, and values that are that product."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((N, D)).astype(np.float32)
    value = np.tanh(3 * x[:, 0] * x[:, 1])
    return x, np.array(["less", "more"])[(value > 0).astype(int)], value


@pytest.fixture
def drawn(monkeypatch):
    """Fewer samples are drawn than there are, and they come in chunks of 300."""
    monkeypatch.setattr(choosing, "MOST_ROWS", 1200)
    monkeypatch.setattr(chunked, "ROWS", 300)
    monkeypatch.setattr(learner, "ROWS", 300)


def test_trained_units_are_taken_where_held_out_samples_prefer_them(samples, tmp_path):
    x, labels, values = samples
    for kind, y in ((glai.ExactClassifier, labels), (glai.ExactRegressor, values)):
        model = kind(UNITS).fit(x[:1300], y[:1300])
        random = kind(UNITS, structure="random").fit(x[:1300], y[:1300])
        assert model.structure_reason_.startswith("trained units: on 260 samples held out ")
        assert "with units trained on 1,040 others" in model.structure_reason_
        assert "random ones; trained ones had to be better by " in model.structure_reason_
        assert model.score(x[1300:], y[1300:]) > random.score(x[1300:], y[1300:])
        assert random.structure_reason_ == "random units, as told"
        assert model.features_.seed is None
        assert model.get_params()["structure"] == "auto"
        model.save(tmp_path / kind.__name__)
        opened = kind.load(tmp_path / kind.__name__)
        assert opened.structure_reason_ == model.structure_reason_
        assert opened.get_params() == model.get_params()
    model = glai.ExactClassifier(UNITS).fit(x[:1300], labels[:1300])
    more = glai.ExactClassifier(structure=model.features_).fit(x[1300:], labels[1300:])
    assert (model + more).structure_reason_ == model.structure_reason_


def test_random_units_are_kept_where_trained_ones_are_no_better(samples):
    x = samples[0]
    linear = x @ np.random.default_rng(1).standard_normal((D, 2))
    for kind, y, needed in (
        (glai.ExactClassifier, linear.argmax(1), r"\d\.\d\d points"),
        (glai.ExactRegressor, linear, "0.0020"),
    ):
        model = kind(UNITS).fit(x, y)
        assert model.structure_reason_.startswith("random units: on 320 samples held out ")
        assert re.search(f"trained ones had to be better by {needed}$", model.structure_reason_)
        assert model.digest() == kind(UNITS, structure="random").fit(x, y).digest()


@pytest.mark.filterwarnings("ignore:The number of unique classes")
def test_units_are_compared_only_where_the_samples_tell_something(samples):
    x, labels, values = samples
    few = choosing.FEWEST_ROWS - 1
    cases = (
        (glai.ExactClassifier(UNITS).fit(x[:few], labels[:few]), "999 different samples are too few"),
        (glai.ExactClassifier(UNITS).fit(x, np.zeros(N)), "all targets are the same"),
        (glai.ExactRegressor(UNITS, step=1.0).fit(x, np.ones(N)), "all targets are the same"),
        (glai.ExactClassifier(UNITS).fit(x, np.arange(N) // 2 * 2), "samples held out"),
        (glai.ExactClassifier(UNITS).fit(x, np.arange(N)), "too few samples to hold some out"),
        (glai.ExactClassifier(UNITS).partial_fit(x, labels), "that are not all there"),
        (glai.ExactClassifier(UNITS).begin(x, labels), "that are not all there"),
        (glai.ExactRegressor(UNITS).fit(iter([(x, values)])), "that are not all there"),
    )
    for model, reason in cases:
        assert model.structure_reason_.startswith("random units: ")
        assert reason in model.structure_reason_
        assert model.features_.seed == 0
    given = glai.ExactClassifier(structure=cases[0][0].features_).fit(x, labels)
    assert given.structure_reason_ == "units of the features given"
    with pytest.raises(ValueError, match="structure must be 'auto', 'random', 'covariance', 'trained' or "):
        clone(given).set_params(structure="ranom").fit(x, labels)


def test_the_choice_is_a_function_of_the_samples_and_the_seed(samples, drawn, tmp_path):
    x, y, _ = samples
    model = glai.ExactClassifier(UNITS).fit(x, y)
    assert "on 240 samples held out" in model.structure_reason_
    order = np.random.default_rng(2).permutation(N)
    np.savez(tmp_path / "data.npz", x=x, y=y)
    np.save(tmp_path / "x.npy", x[order])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    twice = np.repeat(np.arange(N), 1 + (np.arange(N) % 3 == 0))
    threads = torch.get_num_threads()
    torch.set_num_threads(3 - min(threads, 2))
    again = [
        glai.ExactClassifier(UNITS).fit(x[order], y[order]),
        glai.ExactClassifier(UNITS).fit(tmp_path / "data.npz"),
        glai.ExactClassifier(UNITS).fit(mapped, y[order]),
        glai.ExactClassifier(UNITS).begin(x, y, all_there=True).partial_fit(x, y),
    ]
    torch.set_num_threads(threads)
    for other in again:
        assert other.digest() == model.digest()
        assert other.structure_reason_ == model.structure_reason_
    weighted = glai.ExactClassifier(UNITS).fit(x, y, sample_weight=np.bincount(twice))
    assert weighted.digest() == glai.ExactClassifier(UNITS).fit(x[twice], y[twice]).digest()
    assert glai.ExactClassifier(UNITS, random_state=1).fit(x, y).digest() != model.digest()


def test_samples_with_stored_gates_are_the_samples(samples, tmp_path):
    x, labels, values = samples
    selector = glai.PathSelector(
        torch.nn.Sequential(torch.nn.Linear(D, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    )
    store = glai.GateStore.create(tmp_path, selector)
    store.append(selector.unit_gates(torch.from_numpy(x)))
    index = torch.from_numpy((labels == "more").astype(np.int64))
    dataset = glai.GateDataset(store, torch.from_numpy(x), index)
    for structure in ("random", "auto"):
        model = glai.ExactClassifier(UNITS, structure=structure).fit(dataset)
        assert model.digest() == clone(model).fit(x, index.numpy()).digest()
    rest = glai.GateDataset(store, torch.from_numpy(x))
    texts = glai.ExactClassifier(UNITS, structure=model.features_).partial_fit(rest, labels)
    assert texts.digest() == clone(texts).fit(x, labels).digest()
    of_values = glai.GateDataset(store, torch.from_numpy(x), torch.from_numpy(values))
    assert glai.ExactRegressor(8).fit(of_values).digest() == glai.ExactRegressor(8).fit(x, values).digest()
    for wrong, y, error, sentence in (
        (store, labels, TypeError, "got a GateStore, which holds the gates of 1,600 and no x; GateDataset"),
        (rest, None, ValueError, "X must be a GateDataset of x and y, got one of 1 tensors"),
        (dataset, labels, ValueError, "X must be a GateDataset of x, since y is given, got one of 2 tensors"),
    ):
        with pytest.raises(error, match=sentence):
            glai.ExactClassifier(8).fit(wrong, y)


def test_equal_samples_are_drawn_once_in_whatever_order_and_parts():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.integers(0, 40, (60_000, 2)).astype(np.float32))
    labels = rng.integers(0, 3, 60_000).astype(str)
    listed = []
    for order, parts in ((np.arange(60_000), 1), (rng.permutation(60_000), 7)):
        drawn = DrawnSamples(2)
        for rows in np.array_split(order, parts):
            drawn.add(x[torch.from_numpy(rows)], labels[rows])
        listed.append(drawn.listed())
    assert len(listed[0][0]) == len(x.unique(dim=0)) == 1600
    assert torch.equal(listed[0][0], listed[1][0])
    np.testing.assert_array_equal(listed[0][1], listed[1][1])
    assert (
        np.bincount(listed[0][1]).min() > 400
    )  # which of the equal ones is no matter of their labels' order


def test_many_equal_samples_are_too_few_to_compare():
    x = np.random.default_rng(0).integers(0, 2, (50_000, 2)).astype(np.float32)
    model = glai.ExactClassifier(16).fit(x, x[:, 0])
    assert "4 different samples are too few" in model.structure_reason_


@pytest.mark.parametrize("size", [1e19, 1e-25])
def test_units_that_cannot_be_trained_are_random(size):
    x = (np.random.default_rng(0).normal(size=(1200, 3)) * size).astype(np.float32)
    model = glai.ExactClassifier(16, random_state=0).fit(x, x[:, 0] > 0)
    assert "random units" in model.structure_reason_
    assert model.score(x, x[:, 0] > 0) > 0.8


def test_a_first_chunk_that_counts_nothing_is_refused(tmp_path):
    x = np.random.default_rng(0).normal(size=(20_000, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    weight = np.arange(20_000) >= 17_000
    for model in (glai.ExactRegressor(8), glai.ExactClassifier(8)):
        y = x[:, 0] * 1e-6 if isinstance(model, glai.ExactRegressor) else x[:, 0] > 0
        with pytest.raises(ValueError, match="at least one of the first 16,384 samples"):
            model.fit(np.load(tmp_path / "x.npy", mmap_mode="r"), y, sample_weight=weight.astype(int))
