"""``glai predict | evaluate`` ask a model, and say how right it is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from glai_native.cli.command import add_command, add_model_and_rows
from glai_native.cli.commands import COMMANDS

PREDICT_EXAMPLES = """\
examples:
  glai predict model new.npz --out answers.csv             a label for each row of x
  glai predict model new.npz --out answers.csv --proba     and a column of probabilities for each class
  glai predict model new.npz --out answers.jsonl           one JSON object a line
  glai predict model digits --part test --out answers.npz  arrays label, and of --proba proba and classes
  glai predict model houses.csv --out prices.csv           of a table: columns are prepared as at first; a category that
                                                           was not there then is zeros, an unknown column left out
"""
EVALUATE_EXAMPLES = """\
examples:
  glai evaluate model digits                 classes: accuracy, log loss; values: R2, root mean squared error
  glai evaluate model new.npz --json
  glai evaluate model data.npz --part test --test-share 0.2   what glai train of the same share and --seed tested on
"""


def add_predict(commands: Any) -> None:
    """Add ``predict`` to the command line's subparsers."""
    predict = add_command(commands, "predict", COMMANDS["predict"].summary, PREDICT_EXAMPLES, _predict)
    add_model_and_rows(predict, "test")
    predict.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help=".csv, .npz, .npy (labels or values alone), or .jsonl or .json (one object a line); one that is there is "
        "replaced",
    )
    predict.add_argument("--proba", action="store_true", help="also the probability of each class")


def add_evaluate(commands: Any) -> None:
    """Add ``evaluate`` to the command line's subparsers."""
    evaluate = add_command(commands, "evaluate", COMMANDS["evaluate"].summary, EVALUATE_EXAMPLES, _evaluate)
    add_model_and_rows(evaluate, "test")


def _predict(arguments: argparse.Namespace) -> int:
    from glai_native.cli.predict.session import predict

    return predict(arguments)


def _evaluate(arguments: argparse.Namespace) -> int:
    from glai_native.cli.predict.session import evaluate

    return evaluate(arguments)
