"""Strategies of what stands on a structure's paths: statistics, averaged weights, and class means."""

from __future__ import annotations

import torch
from torch import Tensor

from glai_native.federated.messages import SAMPLES, averaged
from glai_native.federated.path_progress import PathProgress, solved
from glai_native.federated.strategy import SumsStrategy
from glai_native.solvers.statistics.sums import PathStatistics

# The score of a class that nobody has samples of.
NEVER = -1e30


class StatisticsStrategy(SumsStrategy[PathProgress]):
    """Each party's sufficient statistics, exactly once, when it replies; the model of the union so far is solved.

    The solution is that of all parties' samples together, at the same l2 to rounding, however they are skewed.
    """

    action = "statistics"
    counts = frozenset(("on_counts", SAMPLES))

    def candidates(self, names: set[str]) -> set[str]:
        """Who has not contributed."""
        return names - set(self.progress.contributed)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of :meth:`PathStatistics.sums`, and the number of samples."""
        estimator = self.progress.estimator
        p, d, c = estimator.n_paths, estimator.in_features, estimator.out_features
        size = p * (d + 1)
        return {
            "gram": (size * (size + 1) // 2,),
            "rhs": (p, d + 1, c),
            "squares": (c,),
            "on_counts": (p, c),
            SAMPLES: (1,),
        }

    def config(self, number: int) -> dict[str, int | float | bool | str]:
        """Nothing that the structure does not say."""
        return {}

    def combine(self, total: dict[str, Tensor], names: set[str]) -> None:
        """Adds to the statistics of earlier rounds, and solves."""
        progress = self.progress
        sums = PathStatistics.from_sums(total, int(total[SAMPLES]), progress.selector.structure_id)
        statistics = sums if progress.statistics is None else progress.statistics + sums
        # which may fail: nothing is changed before
        estimator = solved(statistics, self.settings, progress.estimator)
        progress.statistics, progress.estimator = statistics, estimator
        progress.contributed = sorted({*progress.contributed, *names})


class EstimatorStrategy(SumsStrategy[PathProgress]):
    """Path weights trained by the parties, averaged by samples, or by how often a path was on for the class."""

    action = "estimator"
    counts = frozenset(("on_counts", SAMPLES))

    @property
    def by_class(self) -> bool:
        """Whether weights are averaged by activations per class."""
        return self.settings.method == "activations_classes"

    def candidates(self, names: set[str]) -> set[str]:
        """All."""
        return names

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the weighted parameters, their counts, and the number of samples."""
        estimator = self.progress.estimator
        shapes = {name: tuple(parameter.shape) for name, parameter in estimator.named_parameters()}
        if self.by_class:
            shapes |= {f"{name}_by_class": shapes[name] for name in ("weight", "bias")}
        return shapes | {"on_counts": tuple(estimator.on_counts.shape), SAMPLES: (1,)}

    def config(self, number: int) -> dict[str, int | float | bool | str]:
        """Of the native loop."""
        settings = self.settings
        return {
            "epochs": settings.local_epochs,
            "batch_size": settings.batch_size,
            "learning_rate": settings.learning_rate,
            "seed": (settings.seed + 7919 * number) % 2**32,
            "by_class": self.by_class,
        }

    def model(self) -> dict[str, Tensor]:
        """The estimator's parameters."""
        return dict(self.progress.estimator.named_parameters())

    @torch.no_grad()
    def combine(self, total: dict[str, Tensor], names: set[str]) -> None:
        """The weighted average of what this round's parties trained."""
        estimator = self.progress.estimator
        counts = total["on_counts"]
        average = averaged(total)
        if self.by_class:
            seen = counts > 0  # where no party had the path on for the class: by samples
            share = counts.clamp(min=1).double()
            for name, (on, by) in {
                "weight": (seen.unsqueeze(1), share.unsqueeze(1)),
                "bias": (seen, share),
            }.items():
                average[name] = torch.where(on, total[f"{name}_by_class"] / by, average[name])
        for name, parameter in estimator.named_parameters():
            parameter.copy_(average[name])
        estimator.samples_seen.fill_(int(total[SAMPLES]))
        estimator.on_counts.copy_(counts)


class MeansStrategy(SumsStrategy[PathProgress]):
    """The mean of z in each class, exactly once from each party: a sample is of the class whose mean is nearest.

    ``|z - m|²`` is least where ``2·m·z - |m|²`` is largest, which is what the path that is always on computes.
    """

    action = "means"
    counts = frozenset(("counts", SAMPLES))

    def candidates(self, names: set[str]) -> set[str]:
        """Who has not contributed."""
        return names - set(self.progress.contributed)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of sums of z and counts, and the number of samples."""
        estimator = self.progress.estimator
        c = estimator.out_features
        return {"sums": (c, estimator.in_features), "counts": (c,), SAMPLES: (1,)}

    def config(self, number: int) -> dict[str, int | float | bool | str]:
        """Nothing that the structure does not say."""
        return {}

    @torch.no_grad()
    def combine(self, total: dict[str, Tensor], names: set[str]) -> None:
        """Adds to what earlier rounds left, and writes the means into the last path."""
        progress, estimator = self.progress, self.progress.estimator
        before = estimator.on_counts[-1]
        sums = total["sums"] + estimator.weight[-1].T.double() / 2 * before.unsqueeze(1)
        counts = before + total["counts"]
        means = sums / counts.clamp(min=1).unsqueeze(1)
        estimator.weight[-1] = 2 * means.T
        estimator.bias[-1] = -means.square().sum(1).where(counts > 0, -NEVER)
        estimator.on_counts[-1] = counts
        estimator.samples_seen.add_(int(total[SAMPLES]))
        progress.contributed = sorted({*progress.contributed, *names})
