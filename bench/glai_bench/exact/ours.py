"""The exact head as the class-incremental comparison runs it: integer features and sums, solved when asked."""

from __future__ import annotations

import torch
from torch import Tensor

import glai_native as glai
from glai_bench.solvers.mlp import make_mlp

STRUCTURE_EPOCHS = 3
STRUCTURE_RATE, STRUCTURE_BATCH = 1e-3, 128


class Exact:
    """Integer statistics of a map that is frozen on the first task's samples.

    Args:
        in_features: D.
        n_classes: of all tasks.
        size: of the Gram: units, D linear features and the constant.
        seed: of the random units, or of the selector's start.
        structure: samples and classes that a selector is trained on; None: units are random.
        first: samples that mean, scale and multipliers are taken from; None: those of the first task.
        l2: as ``IntegerStatistics.solve`` takes it.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        size: int,
        seed: int,
        *,
        structure: tuple[Tensor, Tensor] | None = None,
        first: Tensor | None = None,
        l2: float | str = "gcv",
    ) -> None:
        self.n_units = size - in_features - 1
        self.n_classes, self.seed, self.structure, self.l2 = n_classes, seed, structure, l2
        self.statistics: glai.IntegerStatistics | None = None
        if first is not None:
            self._begin(first)

    def _begin(self, x: Tensor) -> None:
        selector = None
        if self.structure is not None:
            samples, classes = self.structure
            classes = classes.unique(return_inverse=True)[1]
            network = make_mlp(x.shape[1], self.n_units, int(classes.max()) + 1, self.seed)
            monitor = glai.StructureMonitor(max_epochs=STRUCTURE_EPOCHS)
            selector = glai.train_structure(
                network, samples, classes, None, monitor, batch_size=STRUCTURE_BATCH,
                learning_rate=STRUCTURE_RATE, seed=self.seed, progress=False,
            )  # fmt: skip
        features = glai.IntegerFeatures.fit(x, self.n_units, selector, self.seed)
        self.statistics = glai.IntegerStatistics(features, self.n_classes)

    def learn(self, x: Tensor, y: Tensor) -> None:
        if self.statistics is None:
            self._begin(x)
        self.sums.update(x, y)

    @property
    def sums(self) -> glai.IntegerStatistics:
        assert self.statistics is not None
        return self.statistics

    def solve(self) -> None:
        self.solution = self.sums.solve(self.l2)

    def scores(self, x: Tensor) -> Tensor:
        return torch.cat(
            [self.solution.scores(self.sums.features.transform(rows)) for rows in x.split(4_096)]
        )
