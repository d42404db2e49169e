"""``glai learn | forget`` let samples join what a model has seen, and take them out again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from glai_native.cli.arguments import positive_number
from glai_native.cli.command import add_command, add_model_and_rows
from glai_native.cli.commands import COMMANDS

LEARN_EXAMPLES = """\
examples:
  glai learn model new.npz                 the model in its folder is replaced, in one step
  glai learn model new.csv --out larger    or stays, and the result is another folder
  glai learn model large/ --checkpoint 60  killed? the same again, with --resume
new classes are added; the numbers are those of all samples together, whatever the order in which they came

A model that has weights alone (--solver sgd, or dual) keeps nothing of its samples: its numbers are trained further
on the new ones alone, so that what it knew of earlier ones may be forgotten, which is said ("exact": false). For
numbers of all samples: glai train DATA --exact --out FOLDER, or --solver statistics.
"""
FORGET_EXAMPLES = """\
examples:
  glai forget model withdrawn.npz              samples as they were learnt
  glai forget model data.csv --ids ids.txt     the rows of these ids, one a line, or a column id of a .csv
  glai forget model data.npz --ids ids.csv --out smaller
the numbers are those of the samples that are left; structure, mean and scale have still seen the others

A model that has weights alone (--solver sgd, or dual) cannot forget; train it again without the samples.
"""


def add_learn(commands: Any) -> None:
    """Add ``learn`` to the command line's subparsers."""
    learn = add_command(commands, "learn", COMMANDS["learn"].summary, LEARN_EXAMPLES, _learn)
    add_model_and_rows(learn, "train", "the split, where we make it, and of training weights alone")
    learn.add_argument(
        "--checkpoint",
        type=positive_number,
        metavar="SECONDS",
        help="of a model of exact sums: keep what has been learnt beside MODEL every so many seconds, which --resume "
        "goes on with after a kill",
    )
    learn.add_argument(
        "--resume",
        action="store_true",
        help="go on from what the same command kept before it was killed, to the same digest",
    )
    _add_other_folder(learn)


def add_forget(commands: Any) -> None:
    """Add ``forget`` to the command line's subparsers."""
    forget = add_command(commands, "forget", COMMANDS["forget"].summary, FORGET_EXAMPLES, _forget)
    add_model_and_rows(forget, "train")
    forget.add_argument(
        "--ids",
        type=Path,
        metavar="FILE",
        help="of DATA the samples of these ids alone: one a line, or the column id of a .csv",
    )
    _add_other_folder(forget)


def _add_other_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FOLDER",
        help="a new folder for the result (default: MODEL is replaced, in one step)",
    )


def _learn(arguments: argparse.Namespace) -> int:
    from glai_native.cli.learn.session import learn

    return learn(arguments)


def _forget(arguments: argparse.Namespace) -> int:
    from glai_native.cli.learn.session import forget

    return forget(arguments)
