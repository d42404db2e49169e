"""Which units an exact learner begins with, random or trained ones, samples say that neither has learnt."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glai_native.solvers.exact.sums import IntegerStatistics
from glai_native.structure.first_samples import FirstSamples
from glai_native.structure.integer_features import IntegerFeatures
from glai_native.structure.measured_rows import MIX, hash_rows
from glai_native.training.holding_out import rows_held_out
from glai_native.training.new_structure import train_selector

# Of the samples, what is drawn: most rows, most numbers of x among them, and fewest rows that tell anything.
MOST_ROWS, MOST_NUMBERS, FEWEST_ROWS = 20_000, 1 << 25, 1_000
HELD_OUT = 0.2
LEAST_GAIN = 0.002  # of accuracy or R2: for less it does not pay that units have seen samples, which stays
STRUCTURE_EPOCHS = 3  # of a trained structure: more gained nothing (BANKING77)
SCORED_ROWS = 2048  # that are mapped at a time


class Choice(NamedTuple):
    """A map, and in words why it is that one."""

    features: IntegerFeatures
    reason: str


class DrawnSamples:
    """Samples drawn by a hash of x, at most 20,000: the same ones, whatever their order and however they are cut.

    Of samples with equal x one is drawn, by a hash of its target: copies on both sides would flatter whoever has learnt
    them by heart.

    Args:
        in_features: D.
    """

    def __init__(self, in_features: int) -> None:
        self._most = min(MOST_ROWS, MOST_NUMBERS // in_features)
        self._x = torch.empty(0, in_features, device="cpu")
        self._hashes = np.empty(0, dtype=np.int64)  # increasing
        self._ties = np.empty(0, dtype=np.int64)
        self._targets: NDArray[Any] | None = None

    def add(self, x: Tensor, targets: NDArray[Any]) -> None:
        """Add samples: x float32 ``[N, D]``, finite, on the CPU, and labels ``[N]`` or values ``[N, C]``."""
        hashes = hash_rows(x).numpy()
        known = targets[:0] if self._targets is None else self._targets
        rows = np.arange(len(hashes))
        if len(self._hashes) == self._most:  # others than these need not be sorted
            rows = rows[hashes <= self._hashes[-1]]
        hashes = np.concatenate([self._hashes, hashes[rows]])
        ties = np.concatenate([self._ties, _hash_targets(targets[rows])])
        order = np.lexsort([(ties ^ hashes) * MIX, hashes])
        first = np.ones(len(order), dtype=np.bool_)
        first[1:] = hashes[order[1:]] != hashes[order[:-1]]
        kept = order[first][: self._most]
        self._hashes, self._ties = hashes[kept], ties[kept]
        self._x = torch.cat([self._x, x[torch.from_numpy(rows)]])[torch.from_numpy(kept)]
        self._targets = np.concatenate([known, targets[rows]])[kept]

    def listed(self) -> tuple[Tensor, NDArray[Any]]:
        """Return x and targets, in an order that their content alone tells; labels are numbered as they sort."""
        assert self._targets is not None
        if self._targets.ndim == 1:
            return self._x, np.unique(self._targets, return_inverse=True)[1]
        return self._x, self._targets


def _hash_targets(targets: NDArray[Any]) -> NDArray[np.int64]:
    """Return a hash of each target: of labels of their texts, of values of their numbers."""
    if targets.ndim == 2:
        return hash_rows(torch.from_numpy(targets.astype(np.float32))).numpy()
    labels, numbers = np.unique(targets, return_inverse=True)
    texts = [blake2b(str(label).encode(), digest_size=8).digest() for label in labels.tolist()]
    return np.frombuffer(b"".join(texts), dtype=np.int64)[numbers]


@dataclass(frozen=True)
class _Judged:
    """Samples that units are learnt with and judged by.

    Attributes:
        x: float32 ``[N, D]``.
        y: class indices ``[N]``, or values float64 ``[N, C]`` of variance 1.
        n_outputs: C.
        rows: of the samples that are learnt, then of those held out.
    """

    x: Tensor
    y: Tensor
    n_outputs: int
    rows: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, x: Tensor, targets: NDArray[Any], seed: int) -> _Judged:
        """Hold out a fifth, drawn by a seed and, of classes, in proportion."""
        if targets.ndim == 1:
            y, n_outputs = torch.from_numpy(targets.astype(np.int64)), int(targets.max()) + 1
        else:
            values = torch.from_numpy(targets.astype(np.float64))
            spread, mean = torch.std_mean(values, 0, correction=0)
            y, n_outputs = (values - mean) / spread.where(spread > 0, 1), values.shape[1]
        return cls(x, y, n_outputs, rows_held_out(y, HELD_OUT, seed))

    @property
    def has_values(self) -> bool:
        return self.y.is_floating_point()

    def losses(self, features: IntegerFeatures) -> Tensor:
        """Return what a learner of these features loses on each sample held out: a wrong class, or the mean square."""
        train, held_out = self.rows
        kind = "values" if self.has_values else "classes"
        sums = IntegerStatistics(features, self.n_outputs, targets=kind, ledger=False)
        sums.update(self.x[train], self.y[train])
        solution = sums.solve("gcv")
        parts = [
            solution.scores(features.transform(self.x[rows]), torch.float64)
            for rows in held_out.split(SCORED_ROWS)
        ]
        scores, truth = torch.cat(parts), self.y[held_out]
        return (scores - truth).square().mean(1) if self.has_values else (scores.argmax(1) != truth).double()

    def told(self, losses: Tensor) -> str:
        """Return in words how good answers of such losses are."""
        if self.has_values:
            return f"R2 {1 - float(losses.mean()) / self.spread:.4f}"
        return f"{100 * (1 - float(losses.mean())):.2f}% right"

    @property
    def spread(self) -> float:
        """What a loss is measured by: of values their variance among those held out; of classes 1."""
        spread = float(self.y[self.rows[1]].var(0, correction=0).mean()) if self.has_values else 1.0
        return spread or 1.0


def choose_features(
    first: FirstSamples,
    drawn: DrawnSamples,
    n_units: int,
    *,
    seed: int,
    scale: str,
    progress: bool,
) -> Choice:
    """Choose between random units and as many of a network that is trained on four fifths of the samples drawn.

    Both are learnt with those, and judged by the other fifth. The trained ones are taken where they are better by more
    than the standard error of the difference, and by 0.2 points of accuracy or 0.002 of R2: otherwise the simpler
    ones, which have seen less of the samples. What was judged is what is taken, a function of the samples and the seed.

    Of classes, right answers are what counts, although squared errors of scores vary less: on features of Tiny-ImageNet
    trained units are 0.02 of R2 worse, and no better by log loss, and answer 0.6 points more of the test samples right.

    Source: the one-standard-error rule, Breiman, Friedman, Olshen and Stone, Classification and Regression Trees
    (1984), here of paired differences.

    Args:
        first: all samples, which settle mean and scale.
        drawn: some of them, with their targets.
        n_units: of either.
        seed: of all that is drawn.
        scale: as :meth:`IntegerFeatures.fit` takes it.
        progress: show a bar.
    """
    random = IntegerFeatures.from_first(first, n_units, seed=seed, scale=scale)
    x, targets = drawn.listed()
    if len(x) < FEWEST_ROWS:
        why = f"{len(x):,} different samples are too few to compare them with trained ones"
        if MOST_NUMBERS // x.shape[1] < FEWEST_ROWS:
            why = f"samples of {x.shape[1]:,} features are too wide to compare them with trained ones"
        return Choice(random, f"random units: {why}")
    if len(np.unique(targets, axis=0)) < 2:
        return Choice(random, "random units: all targets are the same")
    judged = _Judged.of(x, targets, seed)
    train, held_out = judged.rows
    if len(held_out) < 2:
        return Choice(random, "random units: classes have too few samples to hold some out")
    try:
        selector = train_selector(
            x[train],
            judged.y[train].float() if judged.has_values else judged.y[train],
            judged.n_outputs,
            n_units,
            None,
            epochs=STRUCTURE_EPOCHS,
            seed=seed,
            progress=progress,
        )
        trained = IntegerFeatures.from_first(first, None, selector, scale=scale)
        of_trained = judged.losses(trained)
    except (ValueError, FloatingPointError) as said:  # of sizes of x that random units read
        return Choice(random, f"random units: others could not be trained: {said}")
    of_random = judged.losses(random)
    gains = (of_random - of_trained) / judged.spread
    gain, error = float(gains.mean()), float(gains.std()) / len(gains) ** 0.5
    needed = max(error, LEAST_GAIN)
    features, kind = (trained, "trained") if gain > needed else (random, "random")
    reason = (
        f"{kind} units: on {len(held_out):,} samples held out {judged.told(of_trained)} with units trained on "
        f"{len(train):,} others, {judged.told(of_random)} with random ones; trained ones had to be better by "
        f"{f'{needed:.4f}' if judged.has_values else f'{100 * needed:.2f} points'}"
    )
    return Choice(features, reason)
