"""``glai train --exact`` learns the training part of the data by integer sums, tests, and saves."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glai_native.cli.command import require_new_folder, show, tell_unknown
from glai_native.cli.models import (
    answers,
    features_for,
    figures_tell_of_repeats,
    has_values,
    learnt_twice,
    open_model,
    targets_for,
)
from glai_native.cli.predict.scores import class_scores, value_scores
from glai_native.cli.train.exact_ranks import begin_alike
from glai_native.cli.train.exact_streaming import Checkpoint, StreamedRun, beside, is_streamed, read_targets
from glai_native.cli.train.samples import read_samples
from glai_native.cli.train.session import columns_text
from glai_native.data.sources import Rows, Source
from glai_native.data.tables import NO_TABLE, TableNames
from glai_native.data.targets import Task
from glai_native.data.trained_on import TrainedOn
from glai_native.machine.progress import samples_bar
from glai_native.machine.ranks import Ranks
from glai_native.solvers.exact.ledger import Ledger
from glai_native.structure.integer_features import IntegerFeatures
from glai_native.training.distributed import all_reduce, torchrun_group
from glai_native.training.exact.beginning import NAMES
from glai_native.training.exact.classifier import ExactClassifier
from glai_native.training.exact.learner import ExactLearner
from glai_native.training.exact.regressor import ExactRegressor
from glai_native.training.tables import keep_names, names_of

# Of other trainings.
OTHERS = (
    "hidden",
    "components",
    "structure_epochs",
    "epochs",
    "learning_rate",
    "increment",
    "energy",
    "country",
)
DEFAULT_STRUCTURE = "auto"


def train_exact(arguments: argparse.Namespace) -> int:
    """Run ``glai train --exact`` on all processes of torchrun, or on this one alone; return the exit status."""
    with torchrun_group() as group:
        ranks = Ranks("train", group)
        _require_options(arguments, ranks)
        with ranks.together():
            if ranks.is_first:
                require_new_folder(arguments.out)
        checkpoint = Checkpoint.of(arguments, beside(arguments.out, ".checkpoint"), arguments.l2, ranks)
        started = time.perf_counter()
        with ranks.together():
            structure, known, counting, kept = _structure(arguments.structure)
            if isinstance(structure, IntegerFeatures) and arguments.units not in (None, structure.n_units):
                raise ValueError(
                    f"--units must be the {structure.n_units} of {arguments.structure}, whose units are taken, got "
                    f"{arguments.units}"
                )
            learning: _Whole | StreamedRun
            if is_streamed(arguments):
                learning = StreamedRun.open(arguments, known, kept, checkpoint)
            else:
                learning = _Whole(read_samples(arguments, known, kept))
            if ranks.is_first:
                tell_unknown(learning.source)
        model = _learner(arguments, learning.task.of_values, structure, counting)
        learning.learn(model, ranks)
        if ranks.size > 1:
            all_reduce(model.statistics_, group)
        seconds = time.perf_counter() - started
        with ranks.together():
            if ranks.is_first:
                _finish(arguments, learning, model, seconds)
        if checkpoint is not None:
            checkpoint.remove()
    return 0


def _finish(
    arguments: argparse.Namespace, learning: _Whole | StreamedRun, model: ExactLearner, seconds: float
) -> None:
    """Solve, test, save and print."""
    source, task = learning.source, learning.task
    learnt = time.perf_counter()
    solution = model.solution()
    solved = time.perf_counter()
    scores = learning.scores(model) if len(learning.test) else {}
    keep_names(model, source.names)
    model.save(arguments.out)
    if not task.of_values and model.statistics_.out_features == 1:
        print(
            f"{source.path}: all samples are of one class, which is every answer until glai learn brings others",
            file=sys.stderr,
        )
    twice = learnt_twice(Ledger.empty(), model)
    twice.pop("samples_counted_twice", None)  # of one source that is no mistake
    figures: dict[str, Any] = {
        "data": source.name,
        "task": task.name,
        "task_reason": task.reason,
        "train": len(learning.train),
        "test": len(learning.test),
        **twice,
        **scores,
        "preparation": None if source.names.preparation is None else source.names.preparation.described(),
        "structure": str(arguments.structure or DEFAULT_STRUCTURE),
        "structure_reason": model.structure_reason_,
        "units": model.features_.n_units,
        "features": model.features_.n_features,
        "outputs": model.statistics_.out_features,
        "l2": solution.l2,
        "condition": solution.condition,
        "seconds_learning": round(seconds, 3),
        "seconds_solving": round(solved - learnt, 3),
        "digest": model.digest(),
        "folder": str(arguments.out),
    }
    if arguments.json:
        print(json.dumps(figures, indent=2))
    else:
        if figures["preparation"] is not None:
            figures["preparation"] = columns_text(figures["preparation"])
        hidden = {"per_class"} | {name for name, count in twice.items() if not count}
        show({name: value for name, value in figures.items() if name not in hidden}, False)


def _learner(
    arguments: argparse.Namespace, of_values: bool, structure: Any, counting: dict[str, Any]
) -> ExactLearner:
    """Return a learner that is told what the command was, and of values how another model counts them."""
    told = {} if arguments.units is None else {"n_units": arguments.units}
    told |= counting if of_values else {}
    kind: type[ExactLearner] = ExactRegressor if of_values else ExactClassifier
    return kind(
        **told,
        structure=structure,
        l2="gcv" if arguments.l2 is None else arguments.l2,
        ledger=not arguments.no_ledger,
        random_state=arguments.seed,
        verbose=True,
    )


@dataclass(frozen=True)
class _Whole:
    """Data in memory, of which all or a part is trained on, and a part tested on."""

    samples: TrainedOn

    @property
    def source(self) -> Source:
        return self.samples.source

    @property
    def task(self) -> Task:
        return self.samples.task

    @property
    def train(self) -> Rows:
        return self.samples.train

    @property
    def test(self) -> Rows:
        return self.samples.test

    def learn(self, model: ExactLearner, ranks: Ranks) -> None:
        """Let a learner learn this rank's share."""
        path, rows = self.source.path, self.train
        if rows.x.ndim < 2 or not len(rows.x):
            raise ValueError(f"{path}: train must be x [N >= 1, ...], got {list(rows.x.shape)}")
        if rows.y is not None and len(rows.y) != len(rows):
            raise ValueError(f"{path}: x and y must be equally long, got {len(rows)} and {len(rows.y)}")
        y = read_targets(path, rows, self.task.of_values)
        begin_alike(model, rows.x, y, ranks)
        share = ranks.share(len(rows))
        with ranks.together():
            if share.start < share.stop:
                with figures_tell_of_repeats():
                    model.partial_fit(
                        rows.x[share], y[share], ids=None if rows.ids is None else rows.ids[share]
                    )

    def scores(self, model: ExactLearner) -> dict[str, Any]:
        x, targets = (of(model, self.source, self.test) for of in (features_for, targets_for))
        with samples_bar("testing", len(x)) as done:
            found = answers(model, x, done)
        of = value_scores if found.classes is None else class_scores
        return of(found, targets.numpy())


def _require_options(arguments: argparse.Namespace, ranks: Ranks) -> None:
    """Raise where another training's options were given too."""
    for name in OTHERS:
        if getattr(arguments, name) not in (None, False):
            raise ValueError(f"--{name.replace('_', '-')} is not an option of --exact")
    if arguments.solver != "auto":
        raise ValueError(f"--solver is not an option of --exact, got {arguments.solver}")
    if ranks.size > 1 and arguments.l2 == "held-out":
        raise ValueError("--l2 held-out is of one process, not of torchrun's, which take a number or gcv")


def require_no_exact_options(arguments: argparse.Namespace) -> None:
    """Raise where options of ``--exact`` were given without it."""
    for name in ("units", "no_ledger"):
        if getattr(arguments, name) not in (None, False):
            raise ValueError(f"--{name.replace('_', '-')} needs --exact")
    if arguments.l2 == "held-out":
        raise ValueError("--l2 held-out needs --exact")
    if str(arguments.structure) in NAMES and not Path(arguments.structure).exists():
        raise ValueError(f"--structure {arguments.structure} needs --exact; without it, FOLDER of a model")


def _structure(given: Path | None) -> tuple[Any, TableNames, dict[str, Any], bool | None]:
    """Return the structure for a learner.

    Of a model that it is taken from also its table's names, its step and centre, and of one of tables whether its
    outputs are values.
    """
    if given is None or str(given) in NAMES:
        return str(given or DEFAULT_STRUCTURE), NO_TABLE, {}, None
    model = open_model(given)
    if not isinstance(model, ExactLearner):
        raise ValueError(
            f"--structure must be {', '.join(NAMES)} or an exact model's folder, got {given}, of another kind"
        )
    point = model.statistics_.fixed_point
    counting = {} if point is None else {"step": point.step.tolist(), "centre": point.centre.tolist()}
    names = names_of(model)
    return model.features_, names, counting, None if names.columns is None else has_values(model)
