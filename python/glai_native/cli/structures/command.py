"""``glai inspect | prune | grow`` look at structures, and make others of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from glai_native.cli.arguments import positive_integer, seed
from glai_native.cli.command import add_command, add_out
from glai_native.cli.commands import COMMANDS

INSPECT_EXAMPLES = """\
examples:
  glai inspect                                       what this build can do
  glai inspect glai-demo                             a model
  glai inspect glai-demo/gates                       a gate store: density, deviation, patterns, constant units
  glai inspect glai-demo --data digits --plot a.png  a model's gates on a data set, and a picture
  glai inspect glai-demo other --data digits         how far two models' units agree on it
  glai inspect gates other-gates --json              two stores of the same samples; figures as JSON
"""
PRUNE_EXAMPLES = """\
examples:
  glai prune glai-demo --store glai-demo/gates -o smaller            same output on the samples of the store
  glai prune glai-demo --data digits -o smaller                      on the training samples of a data set
  glai prune glai-demo --data digits --keep 0.5 -o half              half of the paths, and the accuracy it costs
"""
GROW_EXAMPLES = """\
examples:
  glai grow glai-demo --units 64 -o larger            64 units more in the first hidden layer, same output
  glai grow two-layers --layer 1 --units 8 -o larger  in the second
"""


def add_inspect(commands: Any) -> None:
    """Add ``inspect`` to the command line's subparsers."""
    inspect = add_command(commands, "inspect", COMMANDS["inspect"].summary, INSPECT_EXAMPLES, _inspect)
    inspect.add_argument(
        "folder", type=Path, nargs="?", help="a model's or a store's folder (default: the build)"
    )
    inspect.add_argument("other", type=Path, nargs="?", help="another one to compare it with")
    _add_data(inspect, "compute the gates of models on its training samples")
    inspect.add_argument("--plot", type=Path, metavar="FILE", help="draw the gates (.png, .pdf or .svg)")


def add_prune(commands: Any) -> None:
    """Add ``prune`` to the command line's subparsers."""
    prune = add_command(commands, "prune", COMMANDS["prune"].summary, PRUNE_EXAMPLES, _prune)
    prune.add_argument("model", type=Path, metavar="MODEL", help="folder of the model")
    prune.add_argument("--store", type=Path, metavar="FOLDER", help="gates of the samples that count")
    _add_data(prune, "its training samples count instead, and accuracy on its test samples is shown")
    further = prune.add_mutually_exclusive_group()
    further.add_argument(
        "--keep", type=float, metavar="SHARE", help="keep this share of the paths that are left, in (0, 1]"
    )
    further.add_argument(
        "--min-norm",
        type=float,
        metavar="X",
        help="drop paths whose norm times their gate's standard deviation is less",
    )
    add_out(prune)


def add_grow(commands: Any) -> None:
    """Add ``grow`` to the command line's subparsers."""
    grow = add_command(commands, "grow", COMMANDS["grow"].summary, GROW_EXAMPLES, _grow)
    grow.add_argument("model", type=Path, metavar="MODEL", help="folder of the model")
    grow.add_argument("--units", type=positive_integer, required=True, help="how many to add")
    grow.add_argument(
        "--layer", type=int, default=0, help="hidden layer, 0 for the first (default: %(default)s)"
    )
    grow.add_argument("--seed", type=seed, default=0, help="default: %(default)s")
    add_out(grow)


def _add_data(parser: argparse.ArgumentParser, purpose: str) -> None:
    parser.add_argument(
        "--data", type=Path, metavar="PATH", help=f"'digits', MNIST's folder, or .npz: {purpose}"
    )


def _inspect(arguments: argparse.Namespace) -> int:
    from glai_native.cli.structures.session import inspect

    return inspect(arguments)


def _prune(arguments: argparse.Namespace) -> int:
    from glai_native.cli.structures.session import prune_model

    return prune_model(arguments)


def _grow(arguments: argparse.Namespace) -> int:
    from glai_native.cli.structures.session import grow_model

    return grow_model(arguments)
