"""Cells are run and written to the file of results at once; what is there is not run again."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from glai_bench.claims.cell import Cell
from glai_bench.clock import cpu_name
from glai_native.machine.backend import build_info
from glai_native.machine.writing import write_files


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the comparisons of this folder have in common."""
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="how many (default: 5)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="(default: 1)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("bench/results/exact.json"),
        metavar="FILE",
        help="default: bench/results/exact.json; the page has the suffix .md",
    )


def opened(parser: argparse.ArgumentParser, path: Path, threads: int) -> dict[str, Any]:
    """Read the results so far, or begin new ones of this machine."""
    if not path.parent.is_dir():
        parser.error(f"--output must lie in a folder that is there, got {path}")
    if path.exists():
        results: dict[str, Any] = json.loads(path.read_text())
        if results["machine"]["threads"] != threads:
            parser.error(
                f"{path}: was written with --threads {results['machine']['threads']}; name another file"
            )
        return results
    machine = {
        "processor": cpu_name(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("torch", "numpy", "scikit-learn")},
        **build_info(),
        "threads": threads,
    }
    return {"machine": machine, "cells": {}}


def finished(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the results of the cells that ran, by key."""
    return {key: cell["result"] for key, cell in results["cells"].items() if "result" in cell}


def record(
    cells: Iterable[Cell], results: dict[str, Any], found: dict[str, dict[str, Any]], path: Path
) -> None:
    """Run what is not there yet, and write it; a cell that fails is said, and run again next time."""
    console = Console(stderr=True)
    for cell in cells:
        if cell.key in found:
            continue
        started = time.perf_counter()
        try:
            result = cell.run()
        except Exception as error:
            console.print(f"[red]failed[/red] {cell.key}: {type(error).__name__}: {error}", highlight=False)
            continue
        seconds = time.perf_counter() - started
        # Which machine, as a file may hold cells of several; and what else it did: times of a busy one are no times
        # of the method.
        machine = f"{cpu_name()}, {build_info()['cpu_isa']}"
        load = os.getloadavg()[0]
        results["cells"][cell.key] = {"result": result, "seconds": seconds, "load": load, "machine": machine}
        found[cell.key] = result
        console.print(f"{cell.key}: {seconds:.1f} s", highlight=False)
        if path.exists():  # what runs beside this one have measured is kept
            results["cells"] = json.loads(path.read_text())["cells"] | results["cells"]
        write_files({path: as_json(results).encode()})


def as_json(results: dict[str, Any]) -> str:
    """Return JSON with a cell on a line; figures to seven digits, which is more than any of them is good for."""
    rounded = json.loads(json.dumps(results["cells"]), parse_float=lambda text: float(f"{float(text):.7g}"))
    cells = ",\n".join(f"{json.dumps(key)}: {json.dumps(cell)}" for key, cell in sorted(rounded.items()))
    head = json.dumps({name: value for name, value in results.items() if name != "cells"}, indent=1)
    return f'{head[:-2]},\n "cells": {{\n{cells}\n}}\n}}\n'
