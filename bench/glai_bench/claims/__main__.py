"""Repeats the published claims of GLAI, with controls: structure settles early; accuracy; re-training only the
numbers; merging; energy.

Every cell (a claim, data set, method and seed) is written to the results at once, and the same command goes on where
it was stopped: cells that are there are not run again, those that failed are.

GLAI_DATA=data python -m glai_bench.claims              everything, five seeds: under an hour on two cores
GLAI_DATA=data python -m glai_bench.claims --quick      minutes
python -m glai_bench.claims --quick --data-sets digits --seeds 1    needs no data
GLAI_DATA=data python -m glai_bench.claims --claims merging --data-sets MNIST
python -m glai_bench.claims.report                      then writes the page
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import time
import traceback
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from glai_bench import claims
from glai_bench.claims.cell import DATA_SETS, Cell, Settings
from glai_bench.clock import cpu_name
from glai_bench.folders import DATA_VARIABLE, data_folder, results_folder
from glai_native.machine.backend import build_info
from glai_native.machine.writing import write_files

OUTPUT, QUICK_OUTPUT = "reproduction.json", "reproduction-quick.json"  # the latter is not kept: not evidence
PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "codecarbon")


def main(argv: Sequence[str] | None = None) -> int:
    arguments, settings, results = _prepare(sys.argv[1:] if argv is None else list(argv))
    torch.set_num_threads(arguments.threads)
    _warm_up()
    todo = [
        cell
        for name in arguments.claims
        for cell in claims.load(name).cells(settings)
        if cell.key not in settings.finished
    ]
    console = Console(stderr=True)
    console.print(
        f"{len(settings.finished)} cells finished before, {len(todo)} to run, into {arguments.output}"
    )
    failed = []
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=len(todo))
        for cell in todo:
            bar.update(task, description=cell.key)
            error = _run(cell, results, settings)
            write_files({arguments.output: _to_json(results).encode()})
            if error is not None:
                failed.append(cell.key)
                console.print(f"[red]failed[/red] {cell.key}: {error}", highlight=False)
            bar.advance(task)
    seconds = sum(cell["seconds"] for cell in results["cells"].values())
    console.print(f"{seconds / 60:.1f} minutes in all; {len(failed)} of {len(todo)} cells failed")
    return 1 if failed else 0


def _warm_up() -> None:
    """The first step of an optimizer in a process imports for seconds; that is no cell's time."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    torch.optim.Adam([parameter], fused=True).step()


def _to_json(results: dict[str, Any]) -> str:
    """JSON, a cell on a line; figures to seven digits, which is more than any of them is good for."""
    rounded = json.loads(json.dumps(results["cells"]), parse_float=lambda text: float(f"{float(text):.7g}"))
    cells = ",\n".join(f"{json.dumps(key)}: {json.dumps(cell)}" for key, cell in rounded.items())
    head = json.dumps({name: value for name, value in results.items() if name != "cells"}, indent=1)
    return f'{head[:-2]},\n "cells": {{\n{cells}\n}}\n}}\n'


def _run(cell: Cell, results: dict[str, Any], settings: Settings) -> str | None:
    """Runs a cell and records its result, or its error, which is returned."""
    started = time.perf_counter()
    try:
        result = cell.run()
        record: dict[str, Any] = {"result": result}
        settings.finished[cell.key] = result
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        record = {"error": message, "traceback": traceback.format_exc(limit=-3)}
    record["seconds"] = time.perf_counter() - started
    # What else the machine did: times of a busy one are no times of the method.
    record["load"] = os.getloadavg()[0]
    results["cells"][cell.key] = record
    return record.get("error")


def _prepare(argv: list[str]) -> tuple[argparse.Namespace, Settings, dict[str, Any]]:
    parser = argparse.ArgumentParser(
        prog="python -m glai_bench.claims",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="one seed, small parts of the data, few epochs")
    parser.add_argument("--seeds", type=int, metavar="N", help="how many (default: 5, quick: 1)")
    parser.add_argument(
        "--data-sets", nargs="+", choices=DATA_SETS, metavar="NAME", help=", ".join(DATA_SETS)
    )
    parser.add_argument(
        "--claims", nargs="+", choices=claims.NAMES, default=list(claims.NAMES), metavar="NAME",
        help=", ".join(claims.NAMES),
    )  # fmt: skip
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=f"(default: bench/results/{OUTPUT}, quick: {QUICK_OUTPUT})",
    )
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="(default: 2)")
    arguments = parser.parse_args(argv)
    try:
        arguments.output = arguments.output or results_folder() / (
            QUICK_OUTPUT if arguments.quick else OUTPUT
        )
    except FileNotFoundError as error:
        parser.error(str(error))
    seeds = arguments.seeds if arguments.seeds is not None else 1 if arguments.quick else 5
    if seeds < 1 or arguments.threads < 1:
        parser.error("--seeds and --threads must be at least 1")
    folder = data_folder()
    names = arguments.data_sets or list(DATA_SETS)
    if folder is None and names != ["digits"]:
        parser.error(
            f"set {DATA_VARIABLE} to a folder with mnist/ and banking77_minilm.npz, or ask for --data-sets digits"
        )
    head: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "glai_bench.claims", *argv]),
        "machine": {
            "processor": cpu_name(),
            "python": platform.python_version(),
            "packages": {name: _version(name) for name in PACKAGES},
            **build_info(),
            "threads": arguments.threads,
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        },
        "settings": {"quick": arguments.quick, "seeds": seeds, "threads": arguments.threads},
    }
    results = head | {"cells": _cells_before(arguments, parser)}
    finished = {key: cell["result"] for key, cell in results["cells"].items() if "result" in cell}
    return arguments, Settings(arguments.quick, tuple(range(seeds)), folder, tuple(names), finished), results


def _cells_before(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> dict[str, Any]:
    if not arguments.output.exists():
        return {}
    before = json.loads(arguments.output.read_text())
    for name in ("quick", "threads"):
        ours, theirs = getattr(arguments, name), before["settings"][name]
        if ours != theirs:
            parser.error(
                f"{arguments.output}: was written with {name}={theirs} and this run has {name}={ours}; "
                "name another file by --output, or delete it"
            )
    cells: dict[str, Any] = before["cells"]
    return cells


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    raise SystemExit(main())
