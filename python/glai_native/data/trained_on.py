"""The samples of a training: which are trained on and which tested on, what is learnt, and how columns are prepared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from glai_native.data.features import float_features
from glai_native.data.preparing.columns import Columns
from glai_native.data.preparing.preparation import Preparation
from glai_native.data.sources import PARTS, TEST_SHARE, Rows, Source, read_source, rows_of_split
from glai_native.data.streaming import StreamedRows, stream_source
from glai_native.data.tables import NO_TABLE, TABLES, Preparing, TableNames
from glai_native.data.targets import Task, choose_task, class_labels_of, values_of


@dataclass(frozen=True)
class TestedOn:
    """Which samples are tested on, and not trained on, of data that come whole.

    Attributes:
        share: of the samples; None: none, but of scikit-learn's digits a quarter.
        path: a file of others; None: there is none.
    """

    share: float | None = None
    path: Path | None = None


@dataclass(frozen=True)
class TrainedOn:
    """What is trained on and tested on.

    Attributes:
        source: where they are from; its names say how a table's columns are prepared.
        train: features float32 or float64 ``[N, D]``; labels of one type ``[N]``, or values float64 ``[N, C]``.
        test: the same; of no rows where nothing is tested on.
        task: which of the two.
    """

    source: Source
    train: Rows
    test: Rows
    task: Task


def trained_on(
    path: Path | None,
    label: str | None = None,
    known: TableNames = NO_TABLE,
    *,
    seed: int = 0,
    task: str = "auto",
    tested_on: TestedOn | None = None,
    preparing: Preparing | None = None,
    centred_in: torch.dtype | None = None,
) -> TrainedOn:
    """Read what a training needs.

    Args:
        path: as :func:`~glai_native.data.sources.read_source` takes it, with targets.
        label: of a table, the label's column.
        known: what a model that is to read a table knows of its columns.
        seed: of the split, where we make it.
        task: as :func:`choose_task`.
        tested_on: which samples are not trained on; None: a quarter of data that come whole.
        preparing: how a table's columns are prepared, by what is trained on; None: they are numbers, as they are.
        centred_in: what the projection of a model that is to read them centres in; None: as the data need it.

    Raises:
        ValueError: data that cannot be trained on, which name the row and the column where one is at fault.
    """
    source = read_source(path, label, known, labelled=True, preparing=preparing)
    chosen = choose_task(source.names, (rows.y for rows in source.parts.values()), task)
    parts = {part: _readable(source, part, chosen, centred_in) for part in source.parts}
    source = replace(source, parts=parts)
    train, test = _split(source, seed, chosen, tested_on)
    if isinstance(train.x, Columns):
        preparation = Preparation.fit(source.path, train.x)
        train, test = (replace(rows, x=preparation.transform(source.path, rows.x)) for rows in (train, test))
        source = replace(source, names=replace(source.names, preparation=preparation))
    if tested_on is not None and tested_on.path is not None:
        test = _of_file(tested_on.path, source, chosen, centred_in)
    return TrainedOn(source, train, test, chosen)


@dataclass(frozen=True)
class StreamedOn:
    """What is trained on and tested on, of data that are read in chunks.

    Attributes:
        source: where they are from, without samples; its names say how a table's columns are prepared.
        train: as the file holds them, or prepared.
        test: the same; of no rows where nothing is tested on.
        task: what targets are.
    """

    source: Source
    train: StreamedRows
    test: StreamedRows
    task: Task


def streamed_on(
    path: Path,
    label: str | None = None,
    known: TableNames = NO_TABLE,
    *,
    seed: int = 0,
    task: str = "auto",
    tested_on: TestedOn | None = None,
    preparing: Preparing | None = None,
) -> StreamedOn:
    """Open what :func:`trained_on` reads whole: the same samples, split alike, which need not fit in memory.

    A new table is prepared by rows that are drawn, all of them where they are no more than 131,072 and 64 MiB.

    Args:
        path: as :func:`~glai_native.data.streaming.stream_source`.
        label: as :func:`trained_on`.
        known: as :func:`trained_on`.
        seed: of the split, and of what is drawn.
        task: as :func:`choose_task`.
        tested_on: as :func:`trained_on`.
        preparing: as :func:`trained_on`.

    Raises:
        ValueError: targets that cannot be trained on, columns that cannot be prepared.
    """
    data = stream_source(path, label, known, preparing=preparing, seed=seed)
    chosen = choose_task(data.source.names, (rows.y for rows in data.parts.values()), task)
    whole = data.parts.get("all")
    share = share_of(data.source, whole is not None, tested_on)
    if whole is None:
        train, test = (data.parts[part] for part in PARTS)
    elif share is None:
        data = data.prepared()
        train = data.parts["all"]
        test = train.only(np.empty(0, dtype=np.int64))
    else:
        split = rows_of_split(data.source.path, len(whole), whole.y, seed, not chosen.of_values, share)
        data = data.prepared(split[0])
        train, test = (data.parts["all"].only(rows) for rows in split)
    if tested_on is not None and tested_on.path is not None:
        names = data.source.names
        others = stream_source(
            tested_on.path, names.label if tested_on.path.suffix in TABLES else None, names
        )
        test = others.parts["test" if "test" in others.parts else "all"]
    return StreamedOn(data.source, train, test, chosen)


def share_of(source: Source, comes_whole: bool, tested_on: TestedOn | None) -> float | None:
    """Return the share of samples that is split off to be tested on; None: none, of data that come whole.

    Raises:
        ValueError: data come in train and test, and something else is asked for.
    """
    if tested_on is None:
        return TEST_SHARE
    if not comes_whole and tested_on != TestedOn():
        raise ValueError(
            f"{source.path}: comes in train and test, and --test and --test-share are of data without"
        )
    if tested_on.share is None and (tested_on.path is not None or not source.comes_in_parts):
        return None
    return TEST_SHARE if tested_on.share is None else tested_on.share


def _split(source: Source, seed: int, task: Task, tested_on: TestedOn | None) -> tuple[Rows, Rows]:
    whole = source.parts.get("all")
    share = share_of(source, whole is not None, tested_on)
    if whole is not None and share is None:
        if whole.y is not None and len(whole.x) != len(whole.y):
            raise ValueError(
                f"{source.path}: x and y must be equally long, got {len(whole.x)} and {len(whole.y)}"
            )
        return whole, whole[slice(0, 0)]
    split = {"of_classes": not task.of_values, "test_share": TEST_SHARE if share is None else share}
    train, test = (source.rows(part, seed, **split) for part in PARTS)  # type: ignore[arg-type]
    return train, test


def _of_file(path: Path, trained: Source, task: Task, centred_in: torch.dtype | None) -> Rows:
    """Return the samples of another file; a table's names and preparation are those of what is trained on."""
    label = trained.names.label if path.suffix in TABLES else None
    source = read_source(path, label, trained.names, labelled=True)
    return _readable(source, "test" if "test" in source.parts else "all", task, centred_in)


def _readable(source: Source, part: str, task: Task, centred_in: torch.dtype | None) -> Rows:
    """Return rows with features as floats and targets checked; rows that errors name are those of the file here."""
    rows, suffix = source.parts[part], "" if part == "all" else f"_{part}"
    name = source.names.label or f"y{suffix}"
    y = (
        values_of(source.path, rows, None, name)
        if task.of_values
        else class_labels_of(source.path, rows.y, f"y{suffix}")
    )
    x = rows.x
    if not isinstance(x, Columns) and x.ndim >= 2 and len(x):
        x = x.reshape(len(x), -1)
        x = float_features(source.path, x, f"x{suffix}", source.names.columns, centred_in=centred_in)
    return Rows(x, y, rows.ids)
