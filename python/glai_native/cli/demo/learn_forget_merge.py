"""What sums over samples allow and trained weights do not: to learn more classes, forget samples, merge parties.

Ridge regression needs nothing of its samples but its sufficient statistics, the gram matrix and the products with the
targets. They are sums: samples join them and leave them again, as in recursive least squares (Plackett, "Some theorems
in least squares", 1950), and those of several owners add up. GLAI is linear in its path features once its structure is
frozen, so that this holds for it exactly; an MLP's features move with its weights.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from glai_native.cli.demo.figures import Change, DemoSettings, LearnForgetMerge, Side, Training
from glai_native.cli.demo.trainer import Inputs, Trainer
from glai_native.data.labelled import LabelledData
from glai_native.estimator.estimator import PathEstimator
from glai_native.gates.packed import PackedGates
from glai_native.solvers.statistics.sums import PathStatistics
from glai_native.structure.network import relu_network
from glai_native.structure.projection import InputProjection
from glai_native.structure.selector import PathSelector
from glai_native.structure.settling import train_structure

# What bounds memory and time on any data: 32 MB of gram matrix, in which 20,000 samples are summed in about a second.
UNKNOWNS = 2000
COMPONENTS = 64
SAMPLES = 20_000
L2 = 0.03  # of the mean diagonal of the first classes' gram matrix: the classes that come later have no say in it
LATER_SHARE = 5  # the last fifth of the classes comes later
FEWEST_SAMPLES = 5  # of the first and of the later classes: some to train on and some to choose a rate on
FORGOTTEN_SHARE = 10  # a tenth of the samples is taken out again
PARTIES = 5

T = TypeVar("T")


def learn_forget_merge(
    data: LabelledData, samples: Tensor, settings: DemoSettings, trainer: Trainer, mlp_rate: float
) -> LearnForgetMerge:
    """Measure what it takes to learn classes later, to forget and to merge, and what an MLP does instead.

    Args:
        data: what to learn.
        samples: indices of training samples, in random order; 20,000 at most are taken.
        settings: units of the MLPs, rates, seed.
        trainer: of the MLPs.
        mlp_rate: of the MLPs that are trained from the start on all classes, as it was chosen for the demo's.
    """
    changes = _Changes(data, samples[:SAMPLES], settings, trainer)
    return LearnForgetMerge(
        samples=len(changes.y),
        first_classes=list(data.classes[: changes.n_first]),
        later_classes=list(data.classes[changes.n_first :]),
        left_out=changes.left_out,
        units=changes.selector.widths[0],
        features=changes.selector.z_features,
        unknowns=changes.selector.n_paths * (changes.selector.z_features + 1),
        dtype=str(changes.all.dtype).removeprefix("torch."),
        structure_seconds=changes.structure_seconds,
        l2=changes.l2,
        learn=None if changes.left_out else changes.learn(),
        forget=changes.forget(mlp_rate),
        merge=changes.merge(mlp_rate),
    )


def n_steps(settings: DemoSettings) -> int:
    """Count what the bar shows: a structure, an MLP fine-tuned at each rate, one anew, the parties', three changes."""
    return 1 + 1 + len(settings.rates) + 1 + PARTIES + 3


class _Changes:
    """A frozen structure, what its gates read, and the sums of all samples to compare with."""

    def __init__(self, data: LabelledData, samples: Tensor, settings: DemoSettings, trainer: Trainer) -> None:
        self.settings, self.trainer = settings, trainer
        self.n_classes, self.n_later = data.n_classes, max(1, data.n_classes // LATER_SHARE)
        x, self.y, self.y_test = data.x_train[samples], data.y_train[samples], data.y_test
        self.left_out = self._reason_to_leave_out()
        if self.left_out:
            trainer.advance(2 + len(settings.rates))
            self.n_later = 0
        n_first = self.n_first = self.n_classes - self.n_later
        self.first, self.first_test = self.y < n_first, self.y_test < n_first

        start = time.perf_counter()
        selector = self.selector = self._structure(x[self.first], self.y[self.first])
        self.structure_seconds = time.perf_counter() - start
        self.z = selector.project(x)
        self.gates = selector.gates_of(self.z)
        self.test = Inputs(selector.project(data.x_test))
        self.glai_test = Inputs(self.test.z.double(), selector.gates_of(self.test.z))

        trainer.show("all samples in one sum")
        self.held = self._sum(self.first, n_first)
        self.l2 = L2 * self.held.mean_diagonal
        (self.all, self.estimator), self.seconds = _timed(lambda: self._anew(slice(None)))
        trainer.advance()

    def _reason_to_leave_out(self) -> str:
        """Say why no classes can come later; "" where they can."""
        if self.n_classes < 3:
            return f"Learning classes later takes 3 classes at least, the data have {self.n_classes}."
        n_first = self.n_classes - self.n_later
        for name, y, fewest in (("training", self.y, FEWEST_SAMPLES), ("test", self.y_test, 1)):
            counts = int((y < n_first).sum()), int((y >= n_first).sum())
            if min(counts) < fewest:
                return (
                    f"Learning classes later takes {fewest} {name} samples at least of the first {n_first} classes "
                    f"and of the last {self.n_later}, the data have {counts[0]} and {counts[1]}."
                )
        return ""

    # --- GLAI: a structure of the first classes alone, and sums ---

    def _structure(self, x: Tensor, y: Tensor) -> PathSelector:
        """Train a structure, small enough for its gram matrix, on what is there before more classes come."""
        n_components = min(COMPONENTS, len(x)) if x.shape[1] > COMPONENTS else None
        projection = InputProjection.fit(x, n_components=n_components)
        d = projection.out_features
        units = min(self.settings.hidden, UNKNOWNS // (d + 1) - 1)
        torch.manual_seed(self.settings.seed)
        return train_structure(
            relu_network([d, units, self.n_first]),
            x,
            y,
            projection,
            batch_size=self.trainer.batch_size,
            seed=self.settings.seed,
            progress=False,
            on_epoch=lambda epoch: self.trainer.show(f"structure, {units} units: epoch {epoch.epoch}"),
        )

    def _rows(self, rows: Tensor | slice) -> tuple[Tensor, PackedGates, Tensor]:
        """Select samples as sums take them: z, gates and classes."""
        return self.z[rows], self.gates[rows], self.y[rows]

    def _sum(self, rows: Tensor | slice, n_classes: int) -> PathStatistics:
        """Sum up samples in float64."""
        d, structure_id = self.selector.z_features, self.selector.structure_id
        sums = PathStatistics(self.selector.n_paths, d, n_classes, structure_id=structure_id)
        sums.update(*self._rows(rows))
        return sums

    def _anew(self, rows: Tensor | slice) -> tuple[PathStatistics, PathEstimator]:
        sums = self._sum(rows, self.n_classes)
        return sums, sums.solve(self.l2)

    def _change(
        self, samples: int, changed: tuple[PathEstimator, float], anew: tuple[PathEstimator, float], mlp: Side
    ) -> Change:
        """Compare the changed sums' weights with new ones; the MLP's side is what it did instead."""
        sides = [
            Side(seconds, self.glai_test.test(model, self.y_test)[0]) for model, seconds in (changed, anew)
        ]
        weights = [
            torch.cat([model.weight.flatten(), model.bias.flatten()]).detach() for model, _ in (changed, anew)
        ]
        difference = (weights[0] - weights[1]).abs().max() / weights[1].abs().max()
        self.trainer.advance()
        return Change(samples, float(difference), glai=sides[0], anew=sides[1], mlp=mlp)

    def _of_first(self, model: nn.Module, test: Inputs) -> float:
        return test[self.first_test].test(model, self.y_test[self.first_test])[0]

    # --- the three changes ---

    def learn(self) -> Change:
        """Learn the last classes when the samples of the first ones are gone."""
        later = ~self.first
        mlp, in_hindsight = self._fine_tuned_mlp(later)
        self.trainer.show("classes that come later")
        sums = self.held
        before = self._of_first(sums.solve(self.l2), self.glai_test)

        def learnt() -> PathEstimator:
            sums.add_outputs(self.n_later)
            sums.update(*self._rows(later))
            return sums.solve(self.l2)

        changed = _timed(learnt)
        change = self._change(int(later.sum()), changed, (self.estimator, self.seconds), mlp)
        change.glai.first_accuracy_before = before
        for side, model in ((change.glai, changed[0]), (change.anew, self.estimator)):
            side.first_accuracy = self._of_first(model, self.glai_test)
        change.mlp_in_hindsight = in_hindsight
        return change

    def forget(self, mlp_rate: float) -> Change:
        """Forget a tenth of the samples, without the others."""
        n_forgotten = max(1, len(self.y) // FORGOTTEN_SHARE)
        forgotten, kept = slice(n_forgotten), slice(n_forgotten, None)
        mlp = self._mlp(self.n_classes)
        training = self._trained("MLP without them", mlp, kept, mlp_rate)
        self.trainer.show("samples that are forgotten")
        sums = self.all.copy()

        def left() -> PathEstimator:
            sums.downdate(*self._rows(forgotten))
            return sums.solve(self.l2)

        changed = _timed(left)
        (_, anew), seconds = _timed(lambda: self._anew(kept))
        return self._change(n_forgotten, changed, (anew, seconds), Side(training.seconds, training.accuracy))

    def merge(self, mlp_rate: float) -> Change:
        """Merge five parties, each with a fifth of the samples."""
        parties = torch.arange(len(self.y), device="cpu").tensor_split(PARTIES)
        seconds, start = 0.0, self._mlp(self.n_classes)
        mlps = [copy.deepcopy(start) for _ in parties]
        for i, (mlp, rows) in enumerate(zip(mlps, parties, strict=True), start=1):
            seconds += self._trained(f"MLP of party {i}", mlp, rows, mlp_rate).seconds
        average = {
            name: torch.stack([mlp.state_dict()[name] for mlp in mlps]).mean(0) for name in start.state_dict()
        }
        start.load_state_dict(average)
        side = Side(seconds, self.test.test(start, self.y_test)[0])
        self.trainer.show("parties that merge")

        def merged() -> PathEstimator:
            sums, *others = (self._sum(rows, self.n_classes) for rows in parties)
            for other in others:
                sums.merge(other)
            return sums.solve(self.l2)

        return self._change(len(self.y), _timed(merged), (self.estimator, self.seconds), side)

    # --- the MLP beside them ---

    def _mlp(self, n_classes: int) -> nn.Sequential:
        d, hidden = self.z.shape[1], self.settings.hidden
        torch.manual_seed(self.settings.seed)
        return relu_network([d, hidden, n_classes])

    def _trained(self, name: str, mlp: nn.Module, rows: Tensor | slice, rate: float) -> Training:
        training = Training(name, 0, 0, rate=rate)
        self.trainer.train(training, mlp, Inputs(self.z[rows]), self.y[rows], self.test, self.y_test)
        return training

    def _fine_tuned_mlp(self, later: Tensor) -> tuple[Side, float]:
        """Train an MLP on the first classes, then on the later ones alone, at the rate that does best on these.

        Returns its side, and the best accuracy on all classes at any rate after any epoch. Nobody can choose that
        rate and that epoch: it takes the old samples, which are gone, and is seen on those of the test.
        """
        first = self._mlp(self.n_first)
        training = Training("MLP, first classes", 0, 0)
        old, y_old = Inputs(self.z[self.first]), self.y[self.first]
        training.rate = self.trainer.choose_rate(training.name, first, old, y_old)
        self.trainer.train(
            training, first, old, y_old, self.test[self.first_test], self.y_test[self.first_test]
        )
        wider = self._mlp(self.n_classes)
        with torch.no_grad():
            wider[0].load_state_dict(first[0].state_dict())
            for grown, learnt in zip(wider[2].parameters(), first[2].parameters(), strict=True):
                grown[: self.n_first] = learnt
        name, new, y_new = "MLP, later classes", Inputs(self.z[later]), self.y[later]
        best = self.trainer.choose_rate(name, wider, new, y_new)
        tuned = {rate: copy.deepcopy(wider) for rate in self.settings.rates}
        trainings = {rate: self._trained(name, mlp, later, rate) for rate, mlp in tuned.items()}
        in_hindsight = max(accuracy for each in trainings.values() for _, accuracy in each.curve[1:])
        of_first = self._of_first(tuned[best], self.test)
        chosen = trainings[best]
        return Side(chosen.seconds, chosen.accuracy, of_first, training.accuracy), in_hindsight


def _timed(compute: Callable[[], T]) -> tuple[T, float]:
    """Compute something, and return it and the seconds that took."""
    start = time.perf_counter()
    result = compute()
    return result, time.perf_counter() - start
