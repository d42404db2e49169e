"""What sums over samples allow and trained weights do not: to learn more classes, forget samples, merge parties.

Ridge regression needs nothing of its samples but its sufficient statistics, the gram matrix and the products with the
targets. They are sums: samples join them and leave them again, as in recursive least squares (Plackett, "Some theorems
in least squares", 1950), and those of several owners add up. Over the integer features of a frozen structure they are
sums of integers, which nothing rounds: the same bits whatever came before. An MLP's features move with its weights.
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
from glai_native.solvers.exact.solution import ExactSolution
from glai_native.solvers.exact.sums import IntegerStatistics
from glai_native.structure.integer_features import IntegerFeatures
from glai_native.structure.network import relu_network
from glai_native.structure.projection import InputProjection

# What bounds memory and time on most data: 20,000 samples of 784 features are summed in about two seconds.
UNITS = 1000
COMPONENTS = 64  # that the MLPs read, where there are more features
SAMPLES = 20_000
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
        units=changes.features.n_units,
        features=changes.features.in_features,
        unknowns=changes.features.n_features,
        structure_seconds=changes.structure_seconds,
        l2=changes.l2,
        learn=None if changes.left_out else changes.learn(),
        forget=changes.forget(mlp_rate),
        merge=changes.merge(mlp_rate),
    )


def n_steps(settings: DemoSettings) -> int:
    """Count what the bar shows: all in one sum, an MLP and its fine-tuning, one anew, the parties', three changes."""
    return 1 + 1 + len(settings.rates) + 1 + PARTIES + 3


class _Changes:
    """A frozen structure, and the sums of all samples to compare with."""

    def __init__(self, data: LabelledData, samples: Tensor, settings: DemoSettings, trainer: Trainer) -> None:
        self.settings, self.trainer = settings, trainer
        self.n_classes, self.n_later = data.n_classes, max(1, data.n_classes // LATER_SHARE)
        self.x, self.y = data.x_train[samples], data.y_train[samples]
        self.x_test, self.y_test = data.x_test, data.y_test
        self.left_out = self._reason_to_leave_out()
        if self.left_out:
            trainer.advance(2 + len(settings.rates))
            self.n_later = 0
        n_first = self.n_first = self.n_classes - self.n_later
        self.first, self.first_test = self.y < n_first, self.y_test < n_first

        first = self.x[self.first]
        projection = InputProjection.fit(
            first, n_components=min(COMPONENTS, len(first)) if first.shape[1] > COMPONENTS else None
        )
        self.z, self.test = projection(self.x), Inputs(projection(self.x_test))

        trainer.show("all samples in one sum")
        start = time.perf_counter()
        self.features = IntegerFeatures.fit(first, UNITS, seed=settings.seed)
        self.structure_seconds = time.perf_counter() - start
        self.held = self._sum(self.first, n_first)
        # The classes that come later have no say in it.
        self.l2 = self.held.solve("gcv").l2
        (self.all, self.solution), self.seconds = _timed(lambda: self._anew(slice(None)))
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

    # --- GLAI: random units, measured on the first classes alone, and sums ---

    def _sum(self, rows: Tensor | slice, n_classes: int) -> IntegerStatistics:
        sums = IntegerStatistics(self.features, n_classes)
        sums.update(self.x[rows], self.y[rows])
        return sums

    def _anew(self, rows: Tensor | slice) -> tuple[IntegerStatistics, ExactSolution]:
        sums = self._sum(rows, self.n_classes)
        return sums, sums.solve(self.l2)

    def _change(
        self,
        samples: int,
        changed: tuple[tuple[IntegerStatistics, ExactSolution], float],
        anew: tuple[tuple[IntegerStatistics, ExactSolution], float],
        mlp: Side,
    ) -> Change:
        """Compare the changed sums with new ones; the MLP's side is what it did instead."""
        sides = [Side(seconds, self._accuracy(solution)) for (_, solution), seconds in (changed, anew)]
        digest, digest_anew = (sums.digest() for (sums, _), _ in (changed, anew))
        self.trainer.advance()
        return Change(samples, digest, digest_anew, glai=sides[0], anew=sides[1], mlp=mlp)

    def _accuracy(self, solution: ExactSolution, rows: Tensor | slice = slice(None)) -> float:
        """Return the share of test samples that a solution has right."""
        found = solution.scores(self.features.transform(self.x_test[rows])).argmax(1)
        return float((found == self.y_test[rows]).double().mean())

    def _of_first(self, model: nn.Module, test: Inputs) -> float:
        return test[self.first_test].test(model, self.y_test[self.first_test])[0]

    # --- the three changes ---

    def learn(self) -> Change:
        """Learn the last classes when the samples of the first ones are gone."""
        later = ~self.first
        mlp, in_hindsight = self._fine_tuned_mlp(later)
        self.trainer.show("classes that come later")
        sums = self.held
        before = self._accuracy(sums.solve(self.l2), self.first_test)

        def learnt() -> tuple[IntegerStatistics, ExactSolution]:
            sums.add_outputs(self.n_later)
            sums.update(self.x[later], self.y[later])
            return sums, sums.solve(self.l2)

        changed, anew = _timed(learnt), ((self.all, self.solution), self.seconds)
        change = self._change(int(later.sum()), changed, anew, mlp)
        change.glai.first_accuracy_before = before
        for side, ((_, solution), _) in ((change.glai, changed), (change.anew, anew)):
            side.first_accuracy = self._accuracy(solution, self.first_test)
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

        def left() -> tuple[IntegerStatistics, ExactSolution]:
            sums.downdate(self.x[forgotten], self.y[forgotten])
            return sums, sums.solve(self.l2)

        changed = _timed(left)
        anew = _timed(lambda: self._anew(kept))
        return self._change(n_forgotten, changed, anew, Side(training.seconds, training.accuracy))

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

        def merged() -> tuple[IntegerStatistics, ExactSolution]:
            sums, *others = (self._sum(rows, self.n_classes) for rows in parties)
            for other in others:
                sums.merge(other)
            return sums, sums.solve(self.l2)

        return self._change(len(self.y), _timed(merged), ((self.all, self.solution), self.seconds), side)

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
