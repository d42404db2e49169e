"""GLAI's control on tables: its defaults, over a selector that was never trained."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, r2_score

import glai_native as glai
from glai_native.training.new_structure import new_units


class RandomGates:
    """The projection, the sizes and the solver that GLAI's learners take at their defaults; the gates are random.

    Args:
        classify: y holds classes 0 to C-1, otherwise values.
        seed: of the selector's start and of the solver.
    """

    def __init__(self, classify: bool, seed: int) -> None:
        self.classify = classify
        self.seed = seed

    def fit(self, x: NDArray[np.float32], y: NDArray[Any]) -> Self:
        """Fit the projection on x ``[N, D]``, and the linear model of random gates on y ``[N]``."""
        samples, targets = torch.from_numpy(x), torch.from_numpy(y)
        projection = glai.InputProjection.fit(samples, seed=self.seed)
        units = new_units(x.shape[1])
        outputs = int(y.max()) + 1 if self.classify else 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = torch.nn.Sequential(
                torch.nn.Linear(projection.out_features, units),
                torch.nn.ReLU(),
                torch.nn.Linear(units, outputs),
            )
        selector = glai.PathSelector(network, projection)
        targets = targets if self.classify else targets[:, None]
        self.model = glai.fit(selector, samples, targets, seed=self.seed, progress=False).model
        return self

    def score(self, x: NDArray[np.float32], y: NDArray[Any]) -> float:
        """Return the accuracy on x and y, or R2."""
        samples = torch.from_numpy(x)
        with torch.no_grad():
            output = (
                self.model.predict(samples)
                if isinstance(self.model, glai.PathKernelModel)
                else self.model(samples)
            )
        if self.classify:
            return float(accuracy_score(y, output.argmax(1)))
        return float(r2_score(y, output[:, 0]))
