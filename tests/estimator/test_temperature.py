"""Probabilities of scores: the temperature of the least log loss, and an argmax that never differs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import glai_native as glai
from glai_native.estimator.temperature import (
    RIDGE_TEMPERATURE,
    RunningTemperature,
    fit_temperature,
    log_probabilities,
    probabilities,
)

SCORES = arrays(
    st.sampled_from([np.float32, np.float64]),
    array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.floats(-(2.0**100), 2.0**100, width=32),
)


@given(SCORES, st.floats(1e-300, 1e300))
def test_the_most_probable_class_is_the_highest_score(scores, temperature):
    scores = torch.from_numpy(scores)
    found, logs = probabilities(scores, temperature), log_probabilities(scores, temperature)
    assert found.dtype == logs.dtype == torch.float64
    assert torch.equal(found.argmax(1), scores.argmax(1))
    assert torch.equal(logs.argmax(1), scores.argmax(1))
    assert torch.allclose(found.sum(1), torch.ones(len(scores), dtype=torch.float64))


def test_scores_that_round_to_one_probability():
    scores = torch.tensor([[1.0, 1.0 + 2**-52, 1.0, 0.0]], dtype=torch.float64)
    for temperature in (1.0, 1e3):
        assert int(probabilities(scores, temperature).argmax(1)) == 1
        assert int(log_probabilities(scores, temperature).argmax(1)) == 1


def test_logarithms_go_below_the_smallest_number():
    logs = log_probabilities(torch.tensor([[0.0, 1.0, -1.0]]), 1e-4)
    assert logs.tolist() == [[-10_000.0, 0.0, -20_000.0]]
    assert probabilities(torch.tensor([[0.0, 1.0, -1.0]]), 1e-4).tolist() == [[0.0, 1.0, 0.0]]


def make_scores(temperature, n=4000, c=5, seed=0):
    """Scores and classes drawn from softmax(scores / temperature)."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(n, c, generator=generator, dtype=torch.float64)
    classes = torch.multinomial((scores / temperature).softmax(1), 1, generator=generator).squeeze(1)
    return scores, classes


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.0, 3.0])
def test_the_temperature_that_classes_were_drawn_at_is_found(temperature):
    scores, classes = make_scores(temperature)
    assert fit_temperature(scores, classes) == pytest.approx(temperature, rel=0.12)
    running = RunningTemperature()
    for rows in torch.arange(len(scores)).split(700):
        running.add(scores[rows], classes[rows])
    assert running.temperature(7.0) == pytest.approx(fit_temperature(scores, classes), rel=0.02)
    # It does not depend on the scores' unit or origin
    assert fit_temperature(100 * scores + 1e4, classes) == pytest.approx(
        100 * fit_temperature(scores, classes), rel=1e-9
    )


def test_it_is_the_least_log_loss():
    scores, classes = make_scores(0.5)
    loss = torch.nn.functional.cross_entropy
    found = fit_temperature(scores, classes)
    # To the softening of targets, (n + 1) / (n + 2).
    assert loss(scores / found, classes) < min(loss(scores / (found * f), classes) for f in (0.97, 1.03))


def test_weights_are_repetitions_and_zero_is_absence():
    scores, classes = make_scores(0.5, n=50)
    weight = torch.arange(50) % 4
    repeated = torch.arange(50).repeat_interleave(weight)
    found = fit_temperature(scores, classes, weight.double())
    assert found == pytest.approx(fit_temperature(scores[repeated], classes[repeated]), rel=1e-10)
    kept = weight > 0
    noise = torch.where(kept.unsqueeze(1), scores, 1e7)
    assert found == fit_temperature(noise, classes, weight.double())
    a, b = RunningTemperature(), RunningTemperature()
    a.add(scores, classes, weight.double())
    b.add(scores[repeated], classes[repeated])
    assert a.temperature(1.0) == pytest.approx(b.temperature(1.0), rel=1e-10)


def test_few_samples_that_are_all_right_do_not_make_certainty():
    scores, classes = torch.eye(3), torch.arange(3)
    found = fit_temperature(scores, classes)
    assert 0.2 < float(probabilities(scores, found).amax()) < 0.95
    running = RunningTemperature()
    running.add(scores, classes)
    assert 0.2 < float(probabilities(scores, running.temperature(1.0)).amax()) < 0.95


def test_scores_that_tell_nothing():
    scores, classes = make_scores(1.0)
    assert (
        float(probabilities(scores, fit_temperature(-scores, classes)).amax()) < 0.21
    )  # the contrary of what is
    assert fit_temperature(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)) == 1.0
    assert fit_temperature(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)) == 1.0
    assert fit_temperature(torch.full((4, 3), math.nan), torch.zeros(4, dtype=torch.int64)) == 1.0
    assert RunningTemperature().temperature(0.3) == 0.3


def make_estimator(temperature):
    estimator = glai.PathEstimator(9, 3, 4, structure_id="0" * 64)
    estimator.temperature = temperature
    estimator.samples_seen.fill_(10)
    return estimator


def test_it_is_kept_in_the_file(tmp_path):
    path = tmp_path / "estimator.safetensors"
    for temperature in (1.0, 0.1, 1 / 3, 5e-324):
        path.write_bytes(make_estimator(temperature).to_bytes())
        assert glai.PathEstimator.load(path).temperature == temperature


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, True, "1", None, 10**400])
def test_what_is_no_temperature(value):
    with pytest.raises(ValueError, match="PathEstimator: temperature must be a finite number > 0"):
        make_estimator(value)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1.0", "0", '"warm"', "1e999", "true", "[1]"])
def test_a_file_that_states_none(tmp_path, value, monkeypatch):
    path = tmp_path / "estimator.safetensors"
    estimator = make_estimator(0.5)
    monkeypatch.setattr(estimator, "outputs_metadata", lambda: {"temperature": value})
    path.write_bytes(estimator.to_bytes())
    with pytest.raises(ValueError, match="temperature"):
        glai.PathEstimator.load(path)


def test_merged_models_have_the_mean_of_theirs():
    merged = glai.merge([make_estimator(0.1), make_estimator(0.4)], "samples")
    assert merged.temperature == pytest.approx(0.2)
    assert glai.merge([make_estimator(0.1)] * 3, "samples").temperature == pytest.approx(0.1)


def test_ridge_has_a_default_and_a_training_starts_anew():
    torch.manual_seed(0)
    x, y = torch.randn(60, 3, dtype=torch.float64), torch.arange(60) % 3
    gates = glai.pack_gates(torch.ones(60, 1))
    statistics = glai.PathStatistics(1, 3, 3)
    statistics.update(x, gates, y)
    estimator = statistics.solve(1.0)
    assert estimator.temperature == RIDGE_TEMPERATURE
    for loss, expected in (("cross_entropy", 1.0), ("squared", RIDGE_TEMPERATURE)):
        estimator.temperature = 0.3
        glai.train_estimator(estimator, x, gates, y, loss=loss, epochs=1, progress=False)
        assert estimator.temperature == expected


def test_it_is_part_of_the_state():
    for temperature in (0.25, 1.0):
        state = make_estimator(temperature).state_dict()
        other = make_estimator(0.5)
        other.load_state_dict(state)
        assert other.temperature == temperature
    labelled = make_estimator(0.25)
    labelled.class_labels = ["a", "b", "c", "d"]
    other.load_state_dict(labelled.state_dict())
    assert (other.temperature, other.class_labels) == (0.25, ["a", "b", "c", "d"])
    labelled.add_outputs(1, labels=["e"])
    assert labelled.temperature == 0.25


def test_values_have_no_probabilities():
    mlp = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    selector = glai.PathSelector(mlp)
    x = torch.randn(40, 3)
    for solver in ("dual", "sgd", "statistics"):
        model = glai.fit(selector, x, x @ torch.randn(3, 4), solver=solver, progress=False).model
        for method in (model.predict_proba, model.predict_log_proba):
            with pytest.raises(ValueError, match="GLAI.predict_.*: the outputs must be those of classes"):
                method(x)
    kernel = glai.PathKernelModel(selector).fit(x, torch.arange(40) % 2, progress=False)
    assert kernel.predict_proba(x).argmax(1).tolist() == kernel.predict(x).argmax(1).tolist()
    with pytest.raises(
        ValueError, match="PathKernelModel.predict_proba: the outputs must be those of classes"
    ):
        kernel.fit(x, x, progress=False).predict_proba(x)
