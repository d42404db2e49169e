"""What is fitted to the tables at its defaults, and how long gradient boosting may take."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor

from glai_bench.tables.random_gates import RandomGates
from glai_native import GLAIClassifier, GLAIRegressor

LINEAR, MLP, TUNED, BOOSTING, LIGHTGBM = (
    "linear",
    "scikit-learn's MLP",
    "tuned MLP",
    "gradient boosting",
    "LightGBM",
)
GLAI, RANDOM = "GLAI", "GLAI, random gates"
# In the order of the page; the tuned MLP takes its settings from a cell of its own.
NAMES = (LINEAR, MLP, TUNED, BOOSTING, LIGHTGBM, GLAI, RANDOM)
# A tree for each class and iteration, on a thousand features: hours, of what is not what GLAI is held against.
LIMITED = (BOOSTING, LIGHTGBM)
LIMIT_SECONDS = 600


def installed() -> tuple[str, ...]:
    """Return the learners that there are: all, but LightGBM where its package is not installed."""
    there = importlib.util.find_spec("lightgbm") is not None
    return tuple(name for name in NAMES if name != LIGHTGBM or there)


def _linear(classify: bool, seed: int) -> Any:
    return LogisticRegression(random_state=seed) if classify else Ridge(random_state=seed)


def _mlp(classify: bool, seed: int) -> Any:
    return (MLPClassifier if classify else MLPRegressor)(random_state=seed)


def _gradient_boosting(classify: bool, seed: int) -> Any:
    return (HistGradientBoostingClassifier if classify else HistGradientBoostingRegressor)(random_state=seed)


def _lightgbm(classify: bool, seed: int) -> Any:
    package = importlib.import_module("lightgbm")
    kind = package.LGBMClassifier if classify else package.LGBMRegressor
    return kind(random_state=seed, n_jobs=1, verbose=-1)


def _glai(classify: bool, seed: int) -> Any:
    return (GLAIClassifier if classify else GLAIRegressor)(random_state=seed)


DEFAULTS: dict[str, Callable[[bool, int], Any]] = {
    LINEAR: _linear,
    MLP: _mlp,
    BOOSTING: _gradient_boosting,
    LIGHTGBM: _lightgbm,
    GLAI: _glai,
    RANDOM: RandomGates,
}
