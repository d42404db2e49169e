"""Time of a step of the structure's training: the native loop, and PyTorch's autograd with fused Adam.

A call that is timed takes several steps, as training does, on batches of its own; the two take turns. The clock is the
processor's where one thread computes, so that other programs count for little, and the wall's otherwise.

python -m glai_bench.steps.structure --threads 1
python -m glai_bench.steps.structure --output bench/results/structure-steps.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

import glai_native as glai
from glai_bench.clock import OURS, cpu_name, measure
from glai_native.structure.network import relu_network
from glai_native.structure.steps import Batches, NativeSteps, TorchSteps

# (batch, widths), and the target: times faster than PyTorch
CASES = (
    ((512, (50, 64, 10)), 3.0),
    ((128, (16, 128, 26)), 3.0),
    ((512, (784, 256, 10)), 1.5),
    ((128, (50, 256, 256, 10)), 1.0),
    ((512, (784, 1024, 1024, 10)), 1.0),
)
SAMPLES = 8192
STEPS = 8  # per call
RATE = 1e-3
SECONDS, QUICK_SECONDS = 4.0, 0.5


def time_structure_steps(batch: int, widths: Sequence[int], seconds: float) -> dict[str, Any]:
    """Microseconds of a step by name, and how many times faster ours is."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn((SAMPLES, widths[0]), generator=generator)
    y = torch.randint(widths[-1], (SAMPLES,), generator=generator)
    calls: dict[str, Callable[[], object]] = {}
    for name, kind in ((OURS, NativeSteps), ("torch", TorchSteps)):
        torch.manual_seed(0)
        steps = kind(relu_network(widths), batch, RATE)
        orders = itertools.cycle(torch.randperm(SAMPLES, generator=generator).split(STEPS * batch))

        def run(steps: NativeSteps | TorchSteps = steps, orders: Iterator[torch.Tensor] = orders) -> float:
            return steps.run_epoch([Batches(z, y, None, next(orders))], STEPS * batch)

        calls[name] = run
    clock = processor_seconds if torch.get_num_threads() == 1 else None
    medians = measure(calls.pop(OURS), calls, seconds, clock=clock)
    taken = {name: median / STEPS * 1e6 for name, median in medians.items()}
    return {
        "batch": batch,
        "widths": list(widths),
        "microseconds": taken,
        "times faster": taken["torch"] / taken[OURS],
    }


def processor_seconds(call: Callable[[], object]) -> float:
    """Seconds of this process's own."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m glai_bench.steps.structure",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SECONDS:g} seconds per shape")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="T", help="default: 1 2")
    parser.add_argument("--seconds", type=float, help=f"per shape (default: {SECONDS:g})")
    parser.add_argument("--output", type=Path, help="also write the figures as JSON")
    arguments = parser.parse_args(argv)
    seconds = arguments.seconds
    if seconds is None:
        seconds = QUICK_SECONDS if arguments.quick else SECONDS
    rows = []
    before = torch.get_num_threads()
    try:
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            for (batch, widths), target in CASES:
                figures = time_structure_steps(batch, widths, seconds)
                rows.append(figures | {"threads": threads, "target": target})
    finally:
        torch.set_num_threads(before)
    print_rows(rows, Console())
    if arguments.output:
        machine = {
            "processor": cpu_name(),
            "cpu_isa": glai.build_info()["cpu_isa"],
            "torch": torch.__version__,
        }
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    return 0


def print_rows(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Print a line per shape and number of threads."""
    table = Table(title="a step of the structure's training, float32", box=SIMPLE)
    for column in ("batch", "network", "threads", "ours µs", "torch µs", "times faster", "target"):
        table.add_column(column, justify="right")
    for row in rows:
        taken = row["microseconds"]
        table.add_row(
            str(row["batch"]),
            "-".join(map(str, row["widths"])),
            str(row["threads"]),
            f"{taken[OURS]:.0f}",
            f"{taken['torch']:.0f}",
            f"{row['times faster']:.2f}",
            f"{row['target']:g}",
        )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
