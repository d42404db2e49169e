"""The demo's settings and figures, and what it counts as parameters."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class DemoSettings:
    """What can be set from the command line."""

    hidden: int = 128
    epochs: int | None = None  # None: 30, fewer for large data
    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)  # of Adam; each model gets the best on validation
    seed: int = 0

    def epochs_for(self, n_samples: int) -> int:
        """Return the passes over ``n_samples``: 30 where data is small, at least 8 where it is large."""
        return self.epochs or max(8, min(30, 120_000 // max(n_samples, 1)))

    def batch_size_for(self, n_samples: int) -> int:
        """Return the samples of a step."""
        return 64 if n_samples < 10_000 else 256


@dataclass
class Training:
    """A trained model's figures.

    Attributes:
        scale: of the structure, for the models that have one.
        rate: Adam's, chosen on validation.
        seconds: of training alone, epochs times the median epoch; evaluation and the choice of the rate excluded.
        disturbance: seconds that really passed over ``seconds``; far above 1, the machine was busy.
        curve: ``(seconds, test accuracy)`` after each epoch, the first before training.
    """

    name: str
    total_parameters: int
    trained_parameters: int
    scale: str = ""
    rate: float = 0.0
    seconds: float = 0.0
    disturbance: float = 1.0
    accuracy: float = 0.0
    curve: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class Structure:
    """A structure's figures at one size."""

    scale: str
    widths: list[int]
    settled: bool
    seconds: float
    epochs: list[dict[str, float]]
    density: float
    deviation: float
    bytes_per_sample: int
    capture_seconds: float
    structure_id: str


@dataclass
class Side:
    """One way to a changed model.

    Attributes:
        seconds: of the change alone; sums and solving for GLAI, training for an MLP.
        accuracy: on the test samples of all classes.
        first_accuracy: on those of the first classes; None where no classes came later.
        first_accuracy_before: the same before the later classes came.
    """

    seconds: float
    accuracy: float
    first_accuracy: float | None = None
    first_accuracy_before: float | None = None


@dataclass
class Change:
    """GLAI changed through its sums, the same summed and solved anew, and what an MLP does instead.

    Attributes:
        samples: learnt later, forgotten, or held by all parties together.
        digest: of the sums of ``glai``.
        digest_anew: of those of ``anew``.
        glai: sums added to, taken from, or added up.
        anew: sums of the samples in question, from the start.
        mlp: fine-tuned on the later classes; trained anew without the forgotten samples; the parties' averaged.
        mlp_in_hindsight: the best accuracy of the fine-tuned MLP at any rate after any epoch, seen on the test samples;
            ``mlp`` has the rate that did best on later classes, as nothing else is there to choose it on.
    """

    samples: int
    digest: str
    digest_anew: str
    glai: Side
    anew: Side
    mlp: Side
    mlp_in_hindsight: float | None = None


@dataclass
class LearnForgetMerge:
    """What changes of the data cost, on one structure.

    Attributes:
        samples: for training; a part of them where there are many.
        first_classes: labels of those that the structure was measured on; all where none come later.
        later_classes: labels of those that come later.
        left_out: why none come later.
        units: random ones.
        features: D.
        unknowns: M = units + D + 1, the rows of the gram matrix.
        structure_seconds: what it took to draw and measure the units.
        l2: of every solution.
        learn: classes that come later, without the samples of the first; None where left out.
        forget: a tenth of the samples taken out.
        merge: five parties.
    """

    samples: int
    first_classes: list[int | float | str]
    later_classes: list[int | float | str]
    left_out: str
    units: int
    features: int
    unknowns: int
    structure_seconds: float
    l2: float
    learn: Change | None
    forget: Change
    merge: Change


@dataclass
class DemoReport:
    """Everything that ``glai demo`` measured; ``--json`` prints it."""

    data: dict[str, Any]
    settings: dict[str, Any]
    build: dict[str, Any]
    models: list[Training]
    structures: list[Structure]
    conversion: list[dict[str, Any]]
    retraining: list[dict[str, Any]]
    merging: list[dict[str, Any]]
    folder: str
    learn_forget_merge: LearnForgetMerge | None = None
    seconds: float = 0.0

    def structure_seconds(self, model: Training) -> float:
        """Sum up training and capture of the structure whose learned gates ``model`` reads; 0 where it reads none."""
        learned = bool(model.scale) and "random" not in model.name
        return sum(
            s.seconds + s.capture_seconds for s in self.structures if learned and s.scale == model.scale
        )

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(asdict(self), indent=2, allow_nan=False)


def standard_error(accuracy: float, samples: int) -> float:
    """Of an accuracy measured on ``samples``; two hits and two misses added, so that 100% has one too."""
    share = (accuracy * samples + 2) / (samples + 4)
    return float((share * (1 - share) / (samples + 4)) ** 0.5)
