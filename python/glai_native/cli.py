"""The command line: ``glai demo | train | inspect | prune | grow | merge | federate | bench``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from glai_native import __version__
from glai_native.arguments import penalty_or_gcv, positive_integer, positive_number, seed
from glai_native.command import add_command, add_out, require_new_folder, require_plot, show
from glai_native.federate_command import add_federate_command
from glai_native.merge import METHODS
from glai_native.structure_commands import add_structure_commands
from glai_native.train_command import add_train_command

DEMO_EXAMPLES = """\
examples:
  glai demo                                 scikit-learn's digits, under a minute
  glai demo --data mnist/                   a folder of MNIST's IDX files (plain or .gz)
  glai demo --data embeddings.npz --json    x_train, y_train, x_test, y_test; figures as JSON
  glai demo --plot                          also draws glai-demo/demo.png
"""
MERGE_EXAMPLES = """\
examples:
  glai merge site-a site-b site-c -o merged
  glai merge site-a site-b -o merged --method statistics       as if trained on all data in one place
  glai merge site-a site-b -o merged --method activations_classes --json
"""
BENCH_EXAMPLES = """\
examples:
  glai bench --quick                                 a few cases, under three minutes
  glai bench --threads 1 --json                      the whole grid with one thread, for machines
  glai bench --shape 1024,256,384,64 --all           one shape (N,P,D,C), every row
  glai bench --device cuda --quick                   on a GPU, under four minutes
  glai bench --quick --explain                       which form each case takes, and why
  GLAI_DATA=data glai bench                          also with gates of selectors trained on MNIST and BANKING77
"""
# What commands raise where their input is at fault; anything else is our defect, and shows its traceback.
REFUSALS = (ValueError, TypeError, OSError, RuntimeError, MemoryError, ImportError, FloatingPointError)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status (2: bad input, one sentence on standard error)."""
    arguments = _parser().parse_args(argv)
    try:
        code = int(arguments.run(arguments))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # who reads our output has had enough; nor may Python say so when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except REFUSALS as error:
        sentence = (str(error) or type(error).__name__).splitlines()[0].removeprefix(f"{arguments.command}: ")
        if isinstance(error, OSError) and error.strerror:
            sentence = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
        print(f"glai {arguments.command}: {sentence}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"glai {arguments.command}: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="glai", description="GreenLightningAI: frozen activation patterns, linear path weights."
    )
    parser.add_argument("--version", action="version", version=f"glai_native {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = add_command(commands, "demo", "the main job, end to end, on real data", DEMO_EXAMPLES, _demo)
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

    add_train_command(commands)
    add_structure_commands(commands)
    add_federate_command(commands)

    merge = add_command(commands, "merge", "merge models of one structure", MERGE_EXAMPLES, _merge)
    merge.add_argument("models", type=Path, nargs="+", metavar="MODEL", help="folders of models")
    add_out(merge)
    merge.add_argument(
        "--method",
        choices=METHODS,
        default="samples",
        help="weights averaged by samples (default), or by how often a path was on for a class; or sums of "
        "statistics, solved: exact, for models of 'glai train --solver statistics'",
    )
    merge.add_argument(
        "--l2",
        type=penalty_or_gcv,
        help="of --method statistics: a number or gcv (default: as the models were solved)",
    )

    bench = add_command(commands, "bench", "time the ops against the best torch form", BENCH_EXAMPLES, _bench)
    add_bench_arguments(bench)
    bench.add_argument(
        "--explain", action="store_true", help="time nothing: show which form each case takes, and why"
    )
    return parser


def add_bench_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``glai bench`` and ``bench/bench_ops.py`` have in common."""
    parser.add_argument("--quick", action="store_true", help="a few cases only")
    parser.add_argument(
        "--threads",
        type=positive_integer,
        nargs="+",
        default=[1, 2],
        metavar="T",
        help="time every case with each of these numbers of threads (default: 1 2)",
    )
    parser.add_argument(
        "--seconds",
        type=positive_number,
        help="time budget per op, case and number of threads or precision (default: 1; on a GPU 0.3, quick 0.12)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=("bf16", "tf32", "fp32"),
        default=["bf16", "tf32", "fp32"],
        help="on a GPU: time every case in each of these (default: all)",
    )
    parser.add_argument(
        "--minutes",
        type=positive_number,
        help="on a GPU: what has not begun by then is left out (default: no end, quick 3)",
    )
    parser.add_argument(
        "--forms", action="store_true", help="on a GPU: time each of our own forms too, beside the one chosen"
    )
    parser.add_argument(
        "--shape", type=shape, nargs="+", metavar="N,P,D,C", help="these shapes instead of the grid's"
    )
    parser.add_argument("--all", action="store_true", help="print every row, not only the summary")


def shape(text: str) -> Any:
    """An argument of four positive integers, N,P,D,C."""
    from glai_native.cases import Shape

    sizes = [int(size) for size in text.split(",")]
    if len(sizes) != 4 or min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"must be four positive integers N,P,D,C, got {text}")
    return Shape(*sizes)


def _demo(arguments: argparse.Namespace) -> int:
    from glai_native.data import load_data
    from glai_native.demo.figures import DemoSettings
    from glai_native.demo.report import print_report, save_plot
    from glai_native.demo.steps import run_demo

    plot = arguments.out / "demo.png" if arguments.plot == Path() else arguments.plot
    if plot is not None:  # before the work, not after it
        require_plot(plot, made_later=arguments.out)
    settings = DemoSettings(hidden=arguments.hidden, epochs=arguments.epochs, seed=arguments.seed)
    report = run_demo(load_data(arguments.data, arguments.seed), arguments.out, settings)
    if arguments.json:
        print(report.to_json())
    else:
        print_report(report, Console())
    if plot is not None:
        save_plot(report, plot)
        print(f"Drawn: {plot}", file=sys.stderr)
    return 0


def _merge(arguments: argparse.Namespace) -> int:
    from glai_native.merge import merge
    from glai_native.model import GLAI

    require_new_folder(arguments.out)
    models = [GLAI.load(folder) for folder in arguments.models]
    names = [str(folder) for folder in arguments.models]
    merged = merge(models, arguments.method, l2=arguments.l2, names=names)
    merged.save(arguments.out)
    provenance = merged.estimator.provenance
    figures = {
        "method": arguments.method,
        **{f"samples of {party['name']}": party["samples"] for party in provenance["parties"]},
        "samples_seen": int(merged.estimator.samples_seen),
        **({"l2": provenance["l2"]} if "l2" in provenance else {}),
        "structure_id": merged.structure_id,
        "folder": str(arguments.out),
    }
    show(figures, arguments.json)
    return 0


def _bench(arguments: argparse.Namespace) -> int:
    if arguments.explain:
        return _explain(arguments)
    results = run_bench(arguments)
    if arguments.json:
        print(json.dumps(results, indent=2))
    else:
        print_bench(results, Console(), every_row=arguments.all)
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    from glai_native.explaining import (
        explain_cuda_grid,
        explain_grid,
        print_cuda_explanation,
        print_explanation,
    )
    from glai_native.real_gates import data_folder

    cuda, grid = arguments.device == "cuda", (arguments.quick, arguments.shape, data_folder())
    rows = explain_cuda_grid(*grid, arguments.precisions) if cuda else explain_grid(*grid)
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        (print_cuda_explanation if cuda else print_explanation)(rows, Console())
    return 0


def run_bench(arguments: argparse.Namespace) -> dict[str, Any]:
    """The benchmark as :func:`add_bench_arguments` describes it."""
    from glai_native.benchmark import bench_ops
    from glai_native.cuda_benchmark import bench_cuda
    from glai_native.real_gates import data_folder

    if arguments.minutes is not None and arguments.device != "cuda":
        raise ValueError("--minutes is only for --device cuda")
    if arguments.device == "cuda":
        return bench_cuda(
            quick=arguments.quick,
            seconds=arguments.seconds,
            shapes=arguments.shape,
            precisions=list(dict.fromkeys(arguments.precisions)),
            minutes=arguments.minutes,
            forms=arguments.forms,
            data=data_folder(),
        )
    return bench_ops(
        quick=arguments.quick,
        threads=list(dict.fromkeys(arguments.threads)),
        seconds=1.0 if arguments.seconds is None else arguments.seconds,
        shapes=arguments.shape,
        data=data_folder(),
    )


def print_bench(results: dict[str, Any], console: Console, every_row: bool) -> None:
    """The tables of :func:`run_bench`'s results."""
    from glai_native.bench_tables import print_results
    from glai_native.cuda_tables import print_cuda_results

    show = print_cuda_results if results["settings"].get("device") == "cuda" else print_results
    show(results, console, every_row)
