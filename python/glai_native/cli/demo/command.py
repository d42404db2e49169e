"""This file holds the arguments of ``glai demo``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from glai_native.cli.arguments import positive_integer, seed
from glai_native.cli.command import add_command, require_plot
from glai_native.cli.commands import COMMANDS

DEMO_EXAMPLES = """\
examples:
  glai demo                                 scikit-learn's digits, under a minute
  glai demo --data mnist/                   a folder of MNIST's IDX files (plain or .gz)
  glai demo --data embeddings.npz --json    x_train, y_train, x_test, y_test; figures as JSON
  glai demo --plot                          also draws glai-demo/demo.png
"""


def add(commands: Any) -> None:
    """Add ``demo`` to the command line's subparsers."""
    demo = add_command(commands, "demo", COMMANDS["demo"].summary, DEMO_EXAMPLES, _demo)
    demo.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="folder of MNIST IDX files, or .npz with x, y (default: digits)",
    )
    demo.add_argument(
        "--out", type=Path, default=Path("glai-demo"), metavar="FOLDER", help="default: %(default)s"
    )
    demo.add_argument(
        "--hidden", type=positive_integer, default=128, help="units of the MLP (default: %(default)s)"
    )
    demo.add_argument(
        "--epochs", type=positive_integer, help="per training (default: 30, fewer for large data)"
    )
    demo.add_argument("--seed", type=seed, default=0, help="default: %(default)s")
    demo.add_argument(
        "--plot", type=Path, nargs="?", const=Path(), metavar="FILE", help="draw (default: FOLDER/demo.png)"
    )


def _demo(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from glai_native.cli.demo.figures import DemoSettings
    from glai_native.cli.demo.picture import save_plot
    from glai_native.cli.demo.report import print_report
    from glai_native.cli.demo.steps import run_demo
    from glai_native.data.labelled import load_data
    from glai_native.machine.threads import one_torch_thread
    from glai_native.structure.settling import FEW_NUMBERS

    plot = arguments.out / "demo.png" if arguments.plot == Path() else arguments.plot
    if plot is not None:  # before the work, not after it
        require_plot(plot, made_later=arguments.out)
    settings = DemoSettings(hidden=arguments.hidden, epochs=arguments.epochs, seed=arguments.seed)
    data = load_data(arguments.data, arguments.seed)
    with one_torch_thread(settings.hidden * (data.x_train.shape[1] + data.n_classes) < FEW_NUMBERS):
        report = run_demo(data, arguments.out, settings)
    if arguments.json:
        print(report.to_json())
    else:
        print_report(report, Console())
    if plot is not None:
        save_plot(report, plot)
        print(f"Drawn: {plot}", file=sys.stderr)
    return 0
