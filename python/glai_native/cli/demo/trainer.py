"""How the demo trains: a plain PyTorch loop, over native kernels where the model is an estimator."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from rich.progress import Progress, TaskID
from torch import Tensor, nn

from glai_native.cli.demo.figures import DemoSettings, Training
from glai_native.gates.packed import PackedGates

CHOICE_SAMPLES = 8000  # at most, to choose a rate on
CHOICE_SHARE = 0.2  # of those, for validation


@dataclass(frozen=True)
class Inputs:
    """What a model reads: z ``[N, D]``, and path gates where it is an estimator."""

    z: Tensor
    gates: PackedGates | None = None

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, ids: Tensor | slice) -> Inputs:
        return Inputs(self.z[ids], None if self.gates is None else self.gates[ids])

    def logits(self, model: nn.Module) -> Tensor:
        """Compute the model's logits of all samples, ``[N, C]``."""
        return cast(Tensor, model(self.z) if self.gates is None else model(self.z, self.gates))

    @torch.no_grad()
    def test(self, model: nn.Module, y: Tensor) -> tuple[float, float]:
        """Return the model's accuracy, and the negative of its cross-entropy."""
        logits = self.logits(model)
        accuracy = float((logits.argmax(1) == y).double().mean())
        return accuracy, -float(nn.functional.cross_entropy(logits, y))


class Trainer:
    """Adam on cross-entropy, at the rate that does best on a part of the training samples.

    Args:
        settings: rates, seed, epochs.
        n_samples: of the demo's trainings; epochs and batch follow from it.
        bar, task: where progress is shown; each training advances it by one.
    """

    def __init__(self, settings: DemoSettings, n_samples: int, bar: Progress, task: TaskID) -> None:
        self.settings, self.bar, self.task = settings, bar, task
        self.epochs = settings.epochs_for(n_samples)
        self.batch_size = settings.batch_size_for(n_samples)

    def show(self, description: str) -> None:
        """Say on the bar what is being done."""
        self.bar.update(self.task, description=description)

    def advance(self, steps: int = 1) -> None:
        """Say on the bar that so many steps are done."""
        self.bar.update(self.task, advance=steps)

    def choose_rate(self, name: str, model: nn.Module, inputs: Inputs, y: Tensor) -> float:
        """Choose the rate that does best on a part of ``inputs`` when trained on the rest; ``model`` stays as it is."""
        self.show(f"{name.strip()}: choosing its rate")
        n = min(len(inputs), CHOICE_SAMPLES)
        n_validation = max(1, int(n * CHOICE_SHARE))
        fitted, held_back = slice(n_validation, n), slice(n_validation)
        scores = {}
        for rate in self.settings.rates:
            candidate = copy.deepcopy(model)
            for _ in self._epochs(candidate, inputs[fitted], y[fitted], self.epochs, rate):
                pass
            scores[rate] = inputs[held_back].test(candidate, y[held_back])
        return max(scores, key=lambda rate: scores[rate])

    def train(
        self,
        training: Training,
        model: nn.Module,
        inputs: Inputs,
        y: Tensor,
        test: Inputs,
        y_test: Tensor,
        epochs: int | None = None,
    ) -> None:
        """Train ``model`` at the training's rate, and fill in its figures; epochs None: the demo's."""
        epochs = epochs or self.epochs
        accuracies, seconds = [test.test(model, y_test)[0]], []
        for epoch, spent in enumerate(self._epochs(model, inputs, y, epochs, training.rate), start=1):
            seconds.append(spent)
            accuracies.append(test.test(model, y_test)[0])
            self.show(f"{training.name.strip()}: epoch {epoch}")
        # The median epoch stands for all: whatever else ran on the machine in between is left out.
        typical = statistics.median(seconds)
        training.seconds = typical * epochs
        training.disturbance = sum(seconds) / training.seconds
        training.curve = [(typical * epoch, accuracy) for epoch, accuracy in enumerate(accuracies)]
        training.accuracy = accuracies[-1]
        self.advance()

    def _epochs(
        self, model: nn.Module, inputs: Inputs, y: Tensor, epochs: int, rate: float
    ) -> Iterator[float]:
        """Adam on cross-entropy, the rate falling to zero; yields the seconds of each epoch."""
        generator = torch.Generator().manual_seed(self.settings.seed)
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        n_steps = epochs * -(-len(y) // self.batch_size)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=n_steps)
        for _ in range(epochs):
            start = time.perf_counter()
            for ids in torch.randperm(len(y), generator=generator, device="cpu").split(self.batch_size):
                loss = nn.functional.cross_entropy(inputs[ids].logits(model), y[ids])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            yield time.perf_counter() - start
