"""``glai learn`` reads large data in chunks, and goes on after a kill, to the digest of all at once."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glai_native.cli.command import chosen_part
from glai_native.cli.models import (
    Model,
    as_learnt,
    columns_in_order,
    features_for,
    figures_tell_of_ids,
    has_values,
    kind_of,
    labels_of,
    targets_for,
)
from glai_native.cli.train.exact_streaming import Checkpoint, is_large, numbered, of_rows
from glai_native.data.labels import require_same_type
from glai_native.data.sources import Rows, Source
from glai_native.data.streaming import StreamedRows, stream_source
from glai_native.data.targets import class_labels_of
from glai_native.machine.memory import give_back_freed
from glai_native.machine.ranks import Ranks
from glai_native.solvers.exact.chunks import CountedChunks
from glai_native.training.exact.learner import ExactLearner
from glai_native.training.tables import names_of


@dataclass(frozen=True)
class StreamedSamples:
    """Samples that an exact learner is to learn in chunks.

    Attributes:
        source: where they are from.
        part: which of its samples they are.
        rows: these, one part of the data after the other.
        checkpoint: or None.
    """

    source: Source
    part: str
    rows: list[StreamedRows]
    checkpoint: Checkpoint | None

    @classmethod
    def open(cls, arguments: argparse.Namespace, model: Model) -> StreamedSamples | None:
        """Return the samples of large data, and those of a run that is to go on after a kill; None: of any others.

        Raises:
            ValueError: ``--checkpoint`` or ``--resume`` is asked for where there are no such sums.
        """
        asked = arguments.checkpoint is not None or arguments.resume
        path = arguments.data
        if not isinstance(model, ExactLearner):
            if asked:
                raise ValueError(
                    f"{arguments.model}: --checkpoint and --resume are of models of exact sums, got a model of kind "
                    f"'{kind_of(model)}'"
                )
            return None
        if path is None or not path.exists():
            if asked:
                raise ValueError("--checkpoint and --resume need data in a file or folder")
            return None
        if not asked and (model.l2 == "held-out" or not is_large(path)):
            return None
        checkpoint = None
        if asked:  # the file is of these sums alone: of others, which hold its samples already, there is none
            name = f"{arguments.model.name}.checkpoint-{model.digest()[:12]}"
            checkpoint = Checkpoint.of(
                arguments, arguments.model.with_name(name), model.l2, Ranks("learn", None)
            )
        data = stream_source(path, arguments.label, names_of(model))
        part = chosen_part(arguments.part, data.source, "train")
        rows = data.rows(
            part, arguments.seed, of_classes=not has_values(model), test_share=arguments.test_share
        )
        return cls(data.source, part, rows, checkpoint)

    def __len__(self) -> int:
        """How many they are."""
        return sum(map(len, self.rows))

    def learn(self, model: ExactLearner) -> None:
        """Let the model learn them: all, or none."""
        labels = [
            class_labels_of(self.source.path, rows.targets) for rows in self.rows if not has_values(model)
        ]
        for each in labels:  # what is wrong is said before the work
            require_same_type(self.source.path, labels_of(model), each, "y", "the model's")
        told = model.verbose
        model.verbose = True
        saving: dict[str, Any] = {}
        if self.checkpoint is not None:
            saving = {"checkpoint": self.checkpoint.path, "save_seconds": self.checkpoint.seconds}
        try:
            with columns_in_order(model), figures_tell_of_ids():
                model.partial_fit(CountedChunks(self._chunks(model), len(self)), **saving)
        finally:
            model.verbose = told

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
