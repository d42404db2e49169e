"""Data that need not fit in memory are learnt exactly from here, in chunks, to the digest of all at once."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from glai_native.cli.models import (
    Answers,
    answers,
    as_learnt,
    features_for,
    figures_tell_of_repeats,
    targets_for,
)
from glai_native.cli.predict.scores import scores_of_classes, value_scores
from glai_native.cli.train.exact_ranks import begin_alike
from glai_native.cli.train.samples import stream_samples
from glai_native.data.features import float_features
from glai_native.data.sources import Rows, Source
from glai_native.data.streaming import StreamedRows, size_of
from glai_native.data.tables import TABLES, TableNames
from glai_native.data.targets import Task, class_labels_of, values_of
from glai_native.machine.memory import give_back_freed
from glai_native.machine.progress import samples_bar
from glai_native.machine.ranks import Ranks
from glai_native.machine.writing import find_file, remove_leftovers
from glai_native.solvers.exact.chunks import CountedChunks
from glai_native.solvers.exact.targets import FixedPoint
from glai_native.structure.first_samples import FirstSamples
from glai_native.structure.integer_features import IntegerFeatures
from glai_native.training.exact.beginning import as_told
from glai_native.training.exact.choosing import Choice, DrawnSamples, choose_features
from glai_native.training.exact.learner import ExactLearner

# Of a file, or of a folder's files: up to here they are read whole, which takes up to ten times as much memory.
STREAMED_BYTES = 1 << 26
# Of that where no more is lost: exact sums of random units are the same bits in chunks, and take no longer.
EXACT_SHARE, NUMBERS_SHARE = 1 / 32, 1 / 2
DEFAULT_SECONDS = 60.0  # between two saves, of a run that goes on


@dataclass(frozen=True)
class Checkpoint:
    """Where sums are saved while they are added up.

    Attributes:
        path: the file, beside the model's folder.
        seconds: between two saves.
    """

    path: Path
    seconds: float

    @classmethod
    def of(
        cls, arguments: argparse.Namespace, path: Path, l2: float | str, ranks: Ranks
    ) -> Checkpoint | None:
        """Return what ``--checkpoint`` and ``--resume`` ask for; None: nothing.

        Args:
            arguments: of the command.
            path: of one process; of many each adds its number.
            l2: of the learner.
            ranks: the processes.

        Raises:
            ValueError: there is nothing to go on with, or something that nobody has asked to go on with.
        """
        if arguments.checkpoint is None and not arguments.resume:
            return None
        if ranks.size > 1:
            path = beside(path, f"-{ranks.rank}")
        there = [name for name in ranks.gather("" if find_file(path) is None else str(path)) if name]
        if arguments.resume and not there:
            raise ValueError(f"nothing to resume: there is no {path}")
        if there and not arguments.resume:
            raise ValueError(
                f"{there[0]}: holds the sums of a run that was ended; --resume goes on with it, removing it begins anew"
            )
        if l2 == "held-out":
            raise ValueError("--checkpoint and --resume are not options of --l2 held-out")
        return cls(path, DEFAULT_SECONDS if arguments.checkpoint is None else arguments.checkpoint)

    def remove(self) -> None:
        """Remove the file: its sums are in the model."""
        self.path.unlink(missing_ok=True)
        remove_leftovers(self.path.parent, [self.path.name])


def beside(path: Path, ending: str) -> Path:
    """Return what stands beside a file or folder, called like it with an ending."""
    return path.parent / f"{path.name}{ending}"


def is_streamed(arguments: argparse.Namespace) -> bool:
    """Return whether data are read in chunks: large ones, and those of a run that is to go on after a kill."""
    path: Path | None = arguments.data
    asked = arguments.checkpoint is not None or arguments.resume
    if path is None or not path.exists():
        if asked:
            raise ValueError("--checkpoint and --resume need data in a file or folder")
        return False
    return asked or is_large(path, _share_read_whole(arguments))


def is_large(path: Path, share: float = EXACT_SHARE) -> bool:
    """Return whether data take more than a share of ``STREAMED_BYTES``."""
    return size_of(path) > STREAMED_BYTES * share


def _share_read_whole(arguments: argparse.Namespace) -> float:
    """Return up to what share of ``STREAMED_BYTES`` data are read whole.

    Where columns are prepared, or units trained, all rows say how, and in chunks some: what fits is read whole.
    """
    is_prepared = arguments.data.suffix in TABLES and not arguments.no_preparation
    if is_prepared or str(arguments.structure) == "trained":
        return 1.0
    return EXACT_SHARE if arguments.exact else NUMBERS_SHARE


def read_targets(path: str, rows: Rows, of_values: bool) -> NDArray[Any]:
    """Return targets of training samples as a learner takes them: labels, or values."""
    y = rows.y
    if not of_values:
        return class_labels_of(path, y)
    return as_learnt(values_of(path, rows, 1 if y is None or y.ndim == 1 else y.shape[1]))


@dataclass(frozen=True)
class StreamedRun:
    """A run of ``glai train --exact`` over data in chunks.

    Attributes:
        source: what the data are called, and how a table's columns are prepared.
        task: whether targets are values.
        train: what is trained on; targets as the learner takes them.
        test: what is tested on.
        checkpoint: or None.
    """

    source: Source
    task: Task
    train: StreamedRows
    test: StreamedRows
    checkpoint: Checkpoint | None

    @classmethod
    def open(
        cls,
        arguments: argparse.Namespace,
        known: TableNames,
        has_values: bool | None,
        checkpoint: Checkpoint | None,
    ) -> StreamedRun:
        """Read the targets, split the rows, and prepare a table (:func:`~glai_native.data.trained_on.streamed_on`)."""
        samples = stream_samples(arguments, known, has_values)
        return cls(samples.source, samples.task, samples.train, samples.test, checkpoint)

    @property
    def of_values(self) -> bool:
        """Whether targets are values."""
        return self.task.of_values

    def learn(self, model: ExactLearner, ranks: Ranks) -> None:
        """Let a learner learn this rank's share of what is trained on.

        All samples settle the features, unless these are trained, and all targets how they are counted: as if read
        whole.
        """
        whole, path = self.train.targets, self.source.path
        assert whole is not None
        # What is wrong is said before the work.
        y = read_targets(path, Rows(whole, whole), self.of_values)
        labels = [] if self.of_values else np.unique(y).tolist()
        del y
        told = model.get_params(deep=False)
        kind = model.structure
        choice: Choice | None = None
        with ranks.together():
            if ranks.is_first and isinstance(kind, str) and kind != "trained":
                choice = self._settled(model, kind)
                model.set_params(structure=choice.features)
        if self.of_values and told["step"] is None:
            values = torch.from_numpy(np.asarray(whole, dtype=np.float64).reshape(len(whole), -1))
            point = FixedPoint.of_first(values, None)
            model.set_params(step=point.step.tolist(), centre=point.centre.tolist())
        begin_alike(model, *self._first(ranks), ranks)
        if choice is not None:
            model.structure_reason_ = choice.reason
        known = set(model.statistics_.class_labels or [])
        later = [label for label in labels if label not in known]
        if later:
            model.statistics_.add_outputs(len(later), later)
        with ranks.together(), figures_tell_of_repeats():
            share = ranks.share(len(self.train))
            self._add(model, self.train if ranks.size == 1 else self.train.part(share), share.start)
        model.set_params(**told)

    def _first(self, ranks: Ranks) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Return the first samples of what is trained on, and their targets."""
        with ranks.together():
            x, y, *_ = next(self._chunks(self.train))
        return x, y

    def _add(self, model: ExactLearner, rows: StreamedRows, begin: int) -> None:
        """Let a learner that has begun learn rows, of which the first is number ``begin``."""
        if model.l2 == "held-out":
            with samples_bar("samples", len(rows)) as done:
                for x, y, _, ids in self._chunks(rows, begin):
                    model.partial_fit(x, y, ids=ids)
                    done(len(x))
        elif len(rows):
            chunks = CountedChunks(self._chunks(rows, begin), len(rows))
            saving = {} if self.checkpoint is None else {"save_seconds": self.checkpoint.seconds}
            model.partial_fit(
                chunks, checkpoint=None if self.checkpoint is None else self.checkpoint.path, **saving
            )

    def _settled(self, model: ExactLearner, kind: str) -> Choice:
        """Return the map that all samples settle, whatever their order."""
        first: FirstSamples | None = None
        with samples_bar("mean and scale", len(self.train)) as done:
            for x, y, *_ in self._chunks(self.train):
                if first is None:
                    first, drawn = FirstSamples(x.shape[1]), DrawnSamples(x.shape[1])
                first.add(torch.from_numpy(x))
                if kind == "auto":
                    drawn.add(torch.from_numpy(x), model.compared(y))
                done(len(x))
                del x, y
        assert first is not None
        assert isinstance(model.random_state, int)
        if kind == "auto":
            return choose_features(
                first,
                drawn,
                model.n_units,
                seed=model.random_state,
                scale=model.scale,
                progress=model.verbose,
            )
        features = IntegerFeatures.from_first(
            first, model.n_units, seed=model.random_state, scale=model.scale, weights=kind
        )
        return Choice(features, as_told(kind))

    def _chunks(
        self, meant: StreamedRows, begin: int = 0
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[Any], None, NDArray[Any] | None]]:
        path = self.source.path
        for at, rows in numbered(meant, begin):
            with of_rows(at, rows):
                if rows.x.ndim < 2:
                    raise ValueError(f"{path}: train must be x [N >= 1, ...], got {list(rows.x.shape)}")
                x = float_features(path, rows.x.reshape(len(rows), -1), columns=self.source.names.columns)
                targets = read_targets(path, rows, self.of_values)
            give_back_freed()  # by what has read them
            yield x.astype(np.float32, copy=False), targets, None, rows.ids
            del x, rows  # before the next are read

    def scores(self, model: ExactLearner) -> dict[str, Any]:
        """Return how right a model is on what is tested on."""
        found: list[tuple[NDArray[Any], ...]] = []
        labels = None
        with samples_bar("testing", len(self.test)) as done:
            for begin, rows in numbered(self.test):
                with of_rows(begin, rows):
                    x = features_for(model, self.source, rows)
                    targets = targets_for(model, self.source, rows).numpy()
                one = answers(model, x, done)
                labels = one.classes
                if labels is None:
                    found.append((one.values, targets))
                else:
                    found.append((one.best, one.log_probabilities[np.arange(len(targets)), targets], targets))
        columns = [np.concatenate(each) for each in zip(*found, strict=True)]
        if labels is None:
            none = np.empty(0)
            return value_scores(Answers(None, none.astype(np.int64), none, columns[0]), columns[1])
        return scores_of_classes(labels, *columns)


def numbered(rows: StreamedRows, begin: int = 0) -> Iterator[tuple[int, Rows]]:
    """Yield chunks, each with the number of its first row, counted from ``begin`` on."""
    for chunk in rows.chunks():
        yield begin, chunk
        begin += len(chunk)
        del chunk  # before the next is read


@contextmanager
def of_rows(begin: int, rows: Rows) -> Iterator[None]:
    """Say of which rows an error is, which counts from the first of them."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error}; of the {len(rows):,} rows from {begin:,} on") from None
