"""The command ``glai bench``, which ``glai_native``'s command line finds by the entry point :func:`add`."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from glai_native.cli.arguments import positive_integer, positive_number
from glai_native.cli.command import add_command

if TYPE_CHECKING:
    from rich.console import Console

EXAMPLES = """\
examples:
  glai bench --quick                                 a few cases, under three minutes
  glai bench --threads 1 --json                      the whole grid with one thread, for machines
  glai bench --shape 1024,256,384,64 --all           one shape (N,P,D,C), every row
  glai bench --device cuda --quick                   on a GPU, under four minutes
  glai bench --quick --explain                       which form each case takes, and why
  GLAI_DATA=data glai bench                          also with gates of selectors trained on MNIST and BANKING77
"""


def add(commands: Any) -> None:
    """Add ``glai bench`` to the commands of ``glai``."""
    bench = add_command(commands, "bench", "time the ops against the best torch form", EXAMPLES, _bench)
    add_bench_arguments(bench)
    bench.add_argument(
        "--explain", action="store_true", help="time nothing: show which form each case takes, and why"
    )


def add_bench_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``glai bench`` and ``python -m glai_bench`` have in common."""
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
    """Parse an argument of four positive integers, N,P,D,C."""
    from glai_bench.ops.cases import Shape

    sizes = [int(size) for size in text.split(",")]
    if len(sizes) != 4 or min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"must be four positive integers N,P,D,C, got {text}")
    return Shape(*sizes)


def _bench(arguments: argparse.Namespace) -> int:
    if arguments.explain:
        return _explain(arguments)
    from rich.console import Console

    results = run_bench(arguments)
    if arguments.json:
        print(json.dumps(results, indent=2))
    else:
        print_bench(results, Console(), every_row=arguments.all)
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from glai_bench.explaining import (
        explain_cuda_grid,
        explain_grid,
        print_cuda_explanation,
        print_explanation,
    )
    from glai_bench.folders import data_folder

    cuda, grid = arguments.device == "cuda", (arguments.quick, arguments.shape, data_folder())
    rows = explain_cuda_grid(*grid, arguments.precisions) if cuda else explain_grid(*grid)
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        (print_cuda_explanation if cuda else print_explanation)(rows, Console())
    return 0


def run_bench(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the benchmark that :func:`add_bench_arguments` describes."""
    from glai_bench.cuda.grid import bench_cuda
    from glai_bench.folders import data_folder
    from glai_bench.ops.grid import bench_ops

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
    """Print the tables of :func:`run_bench`'s results."""
    from glai_bench.cuda.tables import print_cuda_results
    from glai_bench.ops.tables import print_results

    show = print_cuda_results if results["settings"].get("device") == "cuda" else print_results
    show(results, console, every_row)
