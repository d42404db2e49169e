"""The field's analytic class-incremental learners, each after its paper, in plain PyTorch.

Every one learns a task's samples with ``learn``, once, without seeing them again, and gives scores of all classes after
``solve``; what ``solve`` returns to is the state after the last task alone, so that a measurement of the final accuracy
need not solve after each.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, normalize, one_hot


class RanPAC:
    """Random ReLU units, ridge regression from float32 sums; the penalty is chosen on the current task alone.

    Source: McDonnell et al., "RanPAC: Random Projections and Pre-trained Models for Continual Learning", NeurIPS 2023,
    algorithm 1, and its code: weights standard normal, no bias; of 17 penalties, 1e-8 to 1e8, the one with the least
    squared error on the last fifth of the task's samples, solved from the sums of the others.
    """

    PENALTIES = tuple(10.0**power for power in range(-8, 9))

    def __init__(self, in_features: int, n_classes: int, size: int, seed: int) -> None:
        self.projection = torch.randn(in_features, size, generator=torch.Generator().manual_seed(seed))
        self.gram = torch.zeros(size, size)
        self.cross = torch.zeros(size, n_classes)

    def features(self, x: Tensor) -> Tensor:
        return (x @ self.projection).relu_()

    def learn(self, x: Tensor, y: Tensor) -> None:
        features, targets = self.features(x), one_hot(y, self.cross.shape[1]).float()
        self.gram.addmm_(features.T, features)
        self.cross.addmm_(features.T, targets)
        self.task = features, targets

    def solve(self) -> None:
        penalty = self._penalty(*self.task)
        self.weight = _ridge(self.gram, self.cross, penalty)

    def scores(self, x: Tensor) -> Tensor:
        return self.features(x) @ self.weight

    def _penalty(self, features: Tensor, targets: Tensor) -> float:
        n = int(0.8 * len(features))
        gram, cross = features[:n].T @ features[:n], features[:n].T @ targets[:n]
        losses = []
        for penalty in self.PENALTIES:
            predicted = features[n:] @ _ridge(gram, cross, penalty)
            losses.append(mse_loss(predicted, targets[n:]).nan_to_num(float("inf")))
        return self.PENALTIES[int(torch.stack(losses).argmin())]


def _ridge(gram: Tensor, cross: Tensor, penalty: float) -> Tensor:
    system = gram.clone()
    system.diagonal().add_(penalty)
    weight: Tensor = torch.linalg.solve_ex(system, cross).result  # of a singular system infinite, no error
    return weight


class ACIL:
    """Random ReLU units; the inverse of the regularised sums is updated by Woodbury's identity, in float64.

    Source: Zhuang et al., "ACIL: Analytic Class-Incremental Learning with Absolute Memorization and Privacy
    Protection", NeurIPS 2022, theorem 3.1. The penalty is one for all tasks; the paper takes it from a search, here on
    a fifth of the first task's samples.
    """

    PENALTIES = tuple(10.0**power for power in range(-3, 6))
    CHUNK = 1_000  # samples of one step of the recursion, whose system is as large

    def __init__(self, in_features: int, n_classes: int, size: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.projection = torch.randn(in_features, size, generator=generator) / in_features**0.5
        self.inverse: Tensor | None = None
        self.weight = torch.zeros(size, n_classes, dtype=torch.float64)

    def features(self, x: Tensor) -> Tensor:
        features: Tensor = (x @ self.projection).relu_().double()
        return features

    def learn(self, x: Tensor, y: Tensor) -> None:
        if self.inverse is None:
            size = len(self.weight)
            self.inverse = torch.eye(size, dtype=torch.float64) / self._penalty(x, y)
        for rows, classes in zip(x.split(self.CHUNK), y.split(self.CHUNK), strict=True):
            features = self.features(rows)
            targets = one_hot(classes, self.weight.shape[1]).double()
            reached = self.inverse @ features.T  # [M, N]
            system = features @ reached
            system.diagonal().add_(1.0)
            gain = torch.linalg.solve(system, reached.T).T
            self.inverse.addmm_(gain, reached.T, alpha=-1)
            self.weight.addmm_(gain, targets - features @ self.weight)

    def solve(self) -> None:
        """Nothing is left to do: the recursion keeps the weights."""

    def scores(self, x: Tensor) -> Tensor:
        return self.features(x) @ self.weight

    def _penalty(self, x: Tensor, y: Tensor) -> float:
        features, targets, n = self.features(x), one_hot(y).double(), int(0.8 * len(x))
        kernel = features @ features[:n].T  # the dual: fewer samples than units
        errors = []
        for penalty in self.PENALTIES:
            system = kernel[:n] + penalty * torch.eye(n, dtype=torch.float64)
            predicted = kernel[n:] @ torch.linalg.solve(system, targets[:n])
            errors.append(mse_loss(predicted, targets[n:]))
        return self.PENALTIES[int(torch.stack(errors).argmin())]


class StreamingLDA:
    """Class means and one covariance, shrunk by 1e-4 towards the identity.

    Source: Hayes and Kanan, "Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis", CVPR
    Workshops 2020, equations 1 to 3; a task's samples update mean and covariance at once, not one by one.
    """

    SHRINKAGE = 1e-4

    def __init__(self, in_features: int, n_classes: int) -> None:
        self.sums = torch.zeros(n_classes, in_features, dtype=torch.float64)
        self.counts = torch.zeros(n_classes, dtype=torch.float64)
        self.scatter = torch.zeros(in_features, in_features, dtype=torch.float64)  # within classes

    def learn(self, x: Tensor, y: Tensor) -> None:
        rows = x.double()
        for label in y.unique():
            of_class = rows[y == label]
            before = self.counts[label]
            mean = of_class.mean(0)
            if before:
                step = mean - self.sums[label] / before
                share = before * len(of_class) / (before + len(of_class))
                self.scatter.addr_(step, step, alpha=float(share))
            centred = of_class - mean
            self.scatter.addmm_(centred.T, centred)
            self.sums[label] += of_class.sum(0)
            self.counts[label] += len(of_class)

    def solve(self) -> None:
        means = self.sums / self.counts.clamp_min(1)[:, None]
        covariance = (1 - self.SHRINKAGE) * self.scatter / self.counts.sum()
        covariance.diagonal().add_(self.SHRINKAGE)
        self.weight = torch.linalg.solve(covariance, means.T)  # [D, C]
        self.bias = -0.5 * (means * self.weight.T).sum(1)

    def scores(self, x: Tensor) -> Tensor:
        scores: Tensor = x.double() @ self.weight + self.bias
        return scores


class NearestClassMean:
    """The class whose mean has the largest cosine with the sample.

    Source: Janson et al., "A Simple Baseline that Questions the Use of Pretrained-Models in Continual Learning",
    NeurIPS Workshop 2022; the first stage of RanPAC's comparison too.
    """

    def __init__(self, in_features: int, n_classes: int) -> None:
        self.sums = torch.zeros(n_classes, in_features, dtype=torch.float64)

    def learn(self, x: Tensor, y: Tensor) -> None:
        self.sums.index_add_(0, y, x.double())

    def solve(self) -> None:
        self.means = normalize(self.sums)

    def scores(self, x: Tensor) -> Tensor:
        return normalize(x.double()) @ self.means.T
