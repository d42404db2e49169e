"""A training's checkpoint says how far it has come in metadata, which must fit each other to be gone on from."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

from glai_native.machine.files import TensorFile, is_integer, is_number
from glai_native.solvers.solution import SgdEpoch

CHECKPOINT_FORMAT = "glai-sgd"
CHECKPOINT_VERSION = 2  # 1 has a checksum over its tensors alone, and NaN for what was not validated


def open_checkpoint(path: Path) -> TensorFile:
    """Open a checkpoint and check it; of its content only that it is as it was written."""
    return TensorFile(path, CHECKPOINT_FORMAT, newest=CHECKPOINT_VERSION)


def history_to_json(history: Sequence[SgdEpoch]) -> str:
    """Return epochs as JSON: of each its number, loss, validation loss and score (null without one), and seconds."""
    rows = [[None if value != value else value for value in astuple(epoch)] for epoch in history]
    return json.dumps(rows)


def read_progress(file: TensorFile, steps_per_epoch: int, validated: bool) -> tuple[int, int, list[SgdEpoch]]:
    """Return the steps that were taken, the best epoch and all epochs.

    Args:
        file: of the training that goes on.
        steps_per_epoch: of it.
        validated: whether it has held-out samples.

    Raises:
        ValueError: they do not fit each other, or are no figures of a training.
    """
    rows = file.entry("history", _parse)
    what = "a list of epochs from 1 on: [number, loss, validation loss, score, seconds]"
    file.require("history", isinstance(rows, list), what)
    history: list[SgdEpoch] = []
    for row in rows:
        file.require("history", _is_epoch(row, len(history) + 1, validated), what)
        number, *figures = row
        history.append(SgdEpoch(number, *(math.nan if figure is None else figure for figure in figures)))
    step = file.integer("step")
    expected = len(history) * steps_per_epoch
    file.require("step", step == expected, f"{expected}, the steps of {len(history)} epochs")
    least = 0 if validated else len(history)
    return step, file.integer("best_epoch", least, len(history)), history


def _is_epoch(row: object, number: int, validated: bool) -> bool:
    if not isinstance(row, list) or len(row) != 5:
        return False
    epoch, loss, *validation, seconds = row
    sound = all(is_number(value) if validated else value is None or value != value for value in validation)
    return is_integer(epoch, number, number) and is_number(loss) and sound and is_number(seconds, 0)


def _parse(text: str) -> object:
    try:
        return json.loads(text)  # NaN included, of version 1
    except RecursionError:
        raise ValueError("nested too deeply") from None
