"""The MLPs that the solvers are held against: trained in PyTorch as fast as PyTorch does it, curves taken at epochs."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class MlpSettings:
    """What is tuned. hidden: units (0: linear softmax); optimizer: a class of torch.optim; average: of the iterates."""

    hidden: int
    learning_rate: float
    batch_size: int
    optimizer: str = "Adam"
    average: bool = True
    epochs: int = 12


@dataclass(frozen=True)
class Point:
    """A point of a training curve; seconds are of training alone."""

    epoch: int
    seconds: float
    validation: float
    test: float


class Stopwatch:
    """Seconds that ran while it was not paused."""

    def __init__(self) -> None:
        self._seconds, self._since = 0.0, time.perf_counter()

    def pause(self) -> float:
        """Stops it; seconds so far."""
        self._seconds += time.perf_counter() - self._since
        return self._seconds

    @property
    def seconds(self) -> float:
        """Where it was paused."""
        return self._seconds

    def resume(self) -> None:
        self._since = time.perf_counter()


def make_mlp(in_features: int, hidden: int, out_features: int, seed: int) -> nn.Sequential:
    """hidden: units of its one hidden layer; 0: none, linear softmax."""
    torch.manual_seed(seed)
    if not hidden:
        return nn.Sequential(nn.Linear(in_features, out_features))
    return nn.Sequential(nn.Linear(in_features, hidden), nn.ReLU(), nn.Linear(hidden, out_features))


@torch.no_grad()
def accuracy_of(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    return float((model(x).argmax(1) == y).double().mean())


def trained_mlps(
    mlp: nn.Sequential,
    x: Tensor,
    y: Tensor,
    settings: MlpSettings,
    seed: int,
    watch: Stopwatch,
    loss_of: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
) -> Iterator[nn.Sequential]:
    """Yields the model after each epoch, the watch paused; with averaging, the mean of that epoch's iterates."""
    parameters = list(mlp.parameters())
    # One call for all parameters, the fastest that torch has on a CPU.
    optimizer = getattr(torch.optim, settings.optimizer)(parameters, lr=settings.learning_rate, fused=True)
    averaged = copy.deepcopy(mlp)
    means = [parameter.data for parameter in averaged.parameters()]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(settings.epochs):
        steps = 0
        for ids in torch.randperm(len(x), generator=generator).split(settings.batch_size):
            loss = loss_of(mlp(x[ids]), y[ids])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if settings.average:
                steps += 1
                torch._foreach_lerp_(means, [p.data for p in parameters], 1 / steps)
        watch.pause()
        yield averaged if settings.average else mlp
        watch.resume()
