"""What ``glai train`` is told of its samples: the file, what is tested on, what is learnt, how columns are prepared."""

from __future__ import annotations

import argparse

import torch

from glai_native.data.tables import NO_TABLE, TABLES, Preparing, TableNames
from glai_native.data.trained_on import StreamedOn, TestedOn, TrainedOn, streamed_on, trained_on


def read_samples(
    arguments: argparse.Namespace,
    known: TableNames = NO_TABLE,
    has_values: bool | None = None,
    centred_in: torch.dtype | None = None,
) -> TrainedOn:
    """Read the samples of a training.

    Args:
        arguments: of ``glai train``.
        known: of its table by the model whose structure is kept.
        has_values: whether that model's outputs are values; None: there is none.
        centred_in: as :func:`trained_on`.

    Raises:
        ValueError: options that say nothing of such data, or that the kept model contradicts.
    """
    return trained_on(
        arguments.data,
        arguments.label,
        known,
        seed=arguments.seed,
        task=_told_task(arguments, known, has_values),
        tested_on=TestedOn(arguments.test_share, arguments.test),
        preparing=_preparing(arguments),
        centred_in=centred_in,
    )


def stream_samples(
    arguments: argparse.Namespace, known: TableNames = NO_TABLE, has_values: bool | None = None
) -> StreamedOn:
    """Open the samples of a training that are read in chunks; arguments and errors as :func:`read_samples`."""
    return streamed_on(
        arguments.data,
        arguments.label,
        known,
        seed=arguments.seed,
        task=_told_task(arguments, known, has_values),
        tested_on=TestedOn(arguments.test_share, arguments.test),
        preparing=_preparing(arguments),
    )


def _preparing(arguments: argparse.Namespace) -> Preparing | None:
    return None if arguments.no_preparation else Preparing(arguments.categories, arguments.drop)


def _told_task(arguments: argparse.Namespace, known: TableNames, has_values: bool | None) -> str:
    """Return the task, as told or as the kept model's; raise as :func:`read_samples` where options are at fault."""
    is_table = arguments.data.suffix in TABLES
    for option in ("categories", "drop", "no_preparation"):
        if getattr(arguments, option) and (not is_table or known.columns is not None):
            what = "the model of --structure knows its columns" if is_table else f"got {arguments.data}"
            raise ValueError(f"--{option.replace('_', '-')} is of new tables, {' and '.join(TABLES)}: {what}")
    if arguments.no_preparation and (arguments.categories or arguments.drop):
        raise ValueError("--no-preparation takes all columns as numbers, without --categories and --drop")
    if has_values is None:
        return str(arguments.task)
    kept = "regression" if has_values else "classification"
    if arguments.task not in ("auto", kept):
        raise ValueError(f"--task must be {kept}, as of the model of --structure, got {arguments.task}")
    return kept
