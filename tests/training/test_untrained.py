"""Gates that were never trained are tried where trained ones bring nothing, and taken where samples prefer them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import glai_native as glai
from glai_native.training.fitting import FitResult
from glai_native.training.untrained import or_untrained


def noisy_linear(n: int = 2_600, d: int = 120, n_classes: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Return samples of which a network of many units learns the noise."""
    random = np.random.default_rng(0)
    x = random.standard_normal((n, d)).astype(np.float32)
    scores = x @ random.standard_normal((d, n_classes)) / np.sqrt(d)
    return x, (scores + 0.7 * random.standard_normal(scores.shape)).argmax(1)


@pytest.fixture(scope="module")
def trained() -> FitResult:
    x, y = noisy_linear()
    return glai.GLAIClassifier(hidden_layer_sizes=64, structure_epochs=6, solver="sgd").fit(x, y).result_


def test_they_are_tried_where_trained_ones_bring_nothing(trained: FitResult) -> None:
    assert "gates that were never trained are" in trained.reason
    assert trained.seconds["untrained"] > 0
    figures = trained.reason.rsplit("(", 1)[1].rstrip(")").split(" against ")
    assert trained.score == pytest.approx(max(map(float, figures)), abs=1e-4)


def test_the_better_ones_on_held_out_samples_are_taken(trained: FitResult) -> None:
    behind = replace(trained, score=trained.linear_score - 0.1, solver="sgd")
    asked = []

    def fit_over(drawn: glai.PathSelector, score: float) -> FitResult:
        asked.append(drawn)
        return replace(behind, score=score, model=glai.GLAI(drawn, glai.PathEstimator.of_units(drawn, 8)))

    taken = or_untrained(behind, 5_000, 3, lambda drawn: fit_over(drawn, behind.score + 0.05))
    assert taken.model.selector is not behind.model.selector
    assert "never trained are taken" in taken.reason
    kept = or_untrained(behind, 5_000, 3, lambda drawn: fit_over(drawn, behind.score))
    assert kept.model is behind.model
    assert "never trained are not clearly better" in kept.reason
    first, second = asked
    assert first.structure_id == second.structure_id != behind.model.selector.structure_id
    assert first.widths == behind.model.selector.widths
    assert torch.equal(first.project(torch.ones(1, 120)), behind.model.selector.project(torch.ones(1, 120)))


@pytest.mark.parametrize(
    ("changed", "n_samples"),
    [
        ({"solver": "dual"}, 5_000),
        ({}, 2_000),
        ({"score": float("nan")}, 5_000),
        ({"score": 0.9}, 5_000),
    ],
)
def test_nothing_is_tried(trained: FitResult, changed: dict[str, float], n_samples: int) -> None:
    alike = {"solver": "sgd", "score": 0.5, "linear_score": 0.5, "standard_error": 0.01}
    given = replace(trained, **alike | changed)

    def refuse(drawn: glai.PathSelector) -> FitResult:
        raise AssertionError(drawn)

    assert or_untrained(given, n_samples, 0, refuse) is given


def test_values_are_compared_by_squared_errors() -> None:
    x, _ = noisy_linear()
    y = x[:, 0] + 2 * np.random.default_rng(1).standard_normal(len(x))
    result = (
        glai.GLAIRegressor(hidden_layer_sizes=32, structure_epochs=3, solver="statistics").fit(x, y).result_
    )
    assert "gates that were never trained are" in result.reason
    errors = result.reason.rsplit("(", 1)[1].rstrip(")").split(" against ")
    assert -result.score == pytest.approx(min(map(float, errors)), rel=1e-3)


def test_a_budget_that_is_spent_leaves_none_for_them() -> None:
    x, y = noisy_linear()
    model = glai.GLAIClassifier(hidden_layer_sizes=64, budget=1e-3).fit(x, y)
    assert "never trained" not in model.result_.reason
