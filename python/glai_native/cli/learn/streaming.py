"""``glai learn`` reads large data in chunks, and goes on after a kill, to the digest of all at once."""

from __future__ import annotations

import argparse
import glob
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glai_native.cli.command import chosen_part, require_writable_file
from glai_native.cli.models import (
    Model,
    as_learnt,
    columns_in_order,
    features_for,
    figures_tell_of_repeats,
    has_values,
    kind_of,
    labels_of,
    targets_for,
)
from glai_native.cli.train.exact_streaming import Checkpoint, beside, is_large, numbered, of_rows
from glai_native.data.labels import require_same_type
from glai_native.data.sources import Rows, Source
from glai_native.data.streaming import StreamedRows, stream_source
from glai_native.data.tables import TABLES
from glai_native.data.targets import class_labels_of
from glai_native.machine.memory import give_back_freed
from glai_native.machine.ranks import Ranks
from glai_native.solvers.exact.chunks import CountedChunks
from glai_native.training.exact.learner import ExactLearner
from glai_native.training.tables import names_of

DIGITS = 12  # of a digest, in the name of a checkpoint


def left_behind(model: Path) -> list[Path]:
    """Return checkpoints beside a model that runs left which were ended."""
    return sorted(model.parent.glob(f"{glob.escape(model.name)}.checkpoint-*"))


@dataclass(frozen=True)
class Ongoing:
    """The checkpoint of what one model learns.

    Its name has the model's digest, of the state that the samples are to join: what has another digest goes on with
    another file, or none, and never learns them twice. Once all are learnt, the digest that the model will have joins
    the name: where the model has it already, it was saved.

    Attributes:
        saving: the file, and when it is written.
        is_saved: the run was ended after it had saved the model.
    """

    saving: Checkpoint
    is_saved: bool = False

    @classmethod
    def of(cls, arguments: argparse.Namespace, model: ExactLearner) -> Ongoing:
        """Return what ``--checkpoint`` or ``--resume`` asks for.

        Raises:
            ValueError: as :meth:`Checkpoint.of`, or the file could not be written.
        """
        digest = model.digest()[:DIGITS]
        path = beside(arguments.model, f".checkpoint-{digest}")
        require_writable_file("--checkpoint", path)
        for left in left_behind(arguments.model):
            if left.name.endswith(f"-{digest}") and left != path:
                if not arguments.resume:
                    raise ValueError(
                        f"{left}: is left of a run that has saved this model; --resume removes it"
                    )
                return cls(Checkpoint(left, 0), is_saved=True)
            if left.name.startswith(f"{path.name}-"):  # all was learnt, and not saved
                left.replace(path)
        saving = Checkpoint.of(arguments, path, model.l2, Ranks("learn", None))
        assert saving is not None
        return cls(saving)

    def note_learnt(self, model: ExactLearner) -> Ongoing:
        """Return this with the name that the file has until the model is saved."""
        path = beside(self.saving.path, f"-{model.digest()[:DIGITS]}")
        self.saving.path.replace(path)
        return replace(self, saving=replace(self.saving, path=path))


@dataclass(frozen=True)
class StreamedSamples:
    """Samples that an exact learner is to learn in chunks.

    Attributes:
        source: where they are from.
        part: which of its samples they are.
        rows: these, one part of the data after the other.
        ongoing: or None.
    """

    source: Source
    part: str
    rows: list[StreamedRows]
    ongoing: Ongoing | None

    @classmethod
    def open(cls, arguments: argparse.Namespace, model: Model) -> StreamedSamples | None:
        """Return the samples of large data, and those of a run that is to go on after a kill.

        None: those of any others, and those that have to be read whole, which says what is wrong with them.

        Raises:
            ValueError: ``--checkpoint`` or ``--resume`` is asked for where there are no such sums, or data that cannot
                be read in chunks.
        """
        asked = arguments.checkpoint is not None or arguments.resume
        path = arguments.data
        if asked and not isinstance(model, ExactLearner):
            raise ValueError(
                f"{arguments.model}: --checkpoint and --resume are of models of exact sums, got a model of kind "
                f"'{kind_of(model)}'"
            )
        comes_in_chunks = (
            path is not None and path.exists() and (path.is_dir() or path.suffix in (".npz", *TABLES))
        )
        if asked and not comes_in_chunks:
            raise ValueError("--checkpoint and --resume need data in a file or folder")
        if not isinstance(model, ExactLearner) or not comes_in_chunks:
            return None
        if arguments.label is not None and path.suffix not in TABLES:
            return None
        if not asked and (model.l2 == "held-out" or not is_large(path)):
            return None
        ongoing = Ongoing.of(arguments, model) if asked else None
        try:
            data = stream_source(path, arguments.label, names_of(model))
        except ValueError:
            if asked:
                raise
            return None
        part = chosen_part(arguments.part, data.source, "train")
        rows = data.rows(
            part, arguments.seed, of_classes=not has_values(model), test_share=arguments.test_share
        )
        return cls(data.source, part, rows, ongoing)

    def __len__(self) -> int:
        """How many they are."""
        return sum(map(len, self.rows))

    def learn(self, model: ExactLearner) -> StreamedSamples:
        """Let the model learn them: all, or none; return them with the checkpoint that there is until it is saved."""
        labels = [
            class_labels_of(self.source.path, rows.targets) for rows in self.rows if not has_values(model)
        ]
        for each in labels:  # what is wrong is said before the work
            require_same_type(self.source.path, labels_of(model), each, "y", "the model's")
        told = model.verbose
        model.verbose = True
        saving: dict[str, Any] = {}
        if self.ongoing is not None:
            saving = {"checkpoint": self.ongoing.saving.path, "save_seconds": self.ongoing.saving.seconds}
        try:
            with columns_in_order(model), figures_tell_of_repeats():
                model.partial_fit(CountedChunks(self._chunks(model), len(self)), **saving)
        finally:
            model.verbose = told
        return self if self.ongoing is None else replace(self, ongoing=self.ongoing.note_learnt(model))

    def _chunks(
        self, model: ExactLearner
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[Any], None, NDArray[Any] | None]]:
        begin = 0
        for meant in self.rows:
            for at, rows in numbered(meant, begin):
                with of_rows(at, rows):
                    x, y = features_for(model, self.source, rows).numpy(), self._targets(model, rows)
                give_back_freed()  # by what has read them
                yield x, y, None, rows.ids
                del x, rows  # before the next are read
            begin += len(meant)

    def _targets(self, model: ExactLearner, rows: Rows) -> NDArray[Any]:
        """Return targets of a chunk as the learner takes them; labels may be new."""
        if has_values(model):
            return as_learnt(targets_for(model, self.source, rows).numpy())
        return class_labels_of(self.source.path, rows.y)
