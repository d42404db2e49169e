"""Times the gated ops against the best form in torch: interleaved, medians, every result compared first."""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor

from glai_native.backend import build_info
from glai_native.baselines import Calls, forward_baselines, input_grad_baselines, weight_grad_baselines
from glai_native.cases import DENSITIES, QUICK_DENSITIES, QUICK_SHAPES, SHAPES, Case, Shape, make_case
from glai_native.ops import gated_matmul, gated_matmul_input_grad, gated_matmul_weight_grad, pack_gates
from glai_native.training import epoch_progress

MIN_ROUNDS = 3
MAX_ROUNDS = 200
OURS = "glai_native"


def measure(calls: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Median seconds per call, the calls taking turns, each round starting with the next.

    Args:
        calls: what to time, by name.
        seconds: budget for all of them together; at least three rounds are run whatever it says.
    """
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    for call in calls.values():
        call()
    end = time.perf_counter() + seconds
    for i in range(MAX_ROUNDS):
        if i >= MIN_ROUNDS and time.perf_counter() > end:
            break
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.perf_counter()
            calls[name]()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def bench_ops(
    *,
    quick: bool = False,
    threads: int | None = None,
    seconds: float = 1.0,
    progress: bool = True,
) -> dict[str, Any]:
    """Times forward, weight gradient and input gradient in float32 over the grid of cases.

    Args:
        quick: a few cases only.
        threads: for torch and for us; None leaves torch's setting.
        seconds: budget per op and case.
        progress: show a bar.

    Returns:
        ``{"machine": ..., "rows": [...]}``; a row has shape, density, op, milliseconds of ours and of every
        baseline, which was best, and the ratio best / ours.
    """
    shapes, densities = (QUICK_SHAPES, QUICK_DENSITIES) if quick else (SHAPES, DENSITIES)
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    rows: list[dict[str, Any]] = []
    try:
        with epoch_progress(progress) as bar:
            task = bar.add_task("", total=len(shapes) * len(densities))
            for shape in shapes:
                for density in densities:
                    bar.update(task, description=f"{shape} density {density}")
                    rows += _bench_case(make_case(shape, density), seconds)
                    bar.update(task, advance=1)
        machine = {
            "cpu": _cpu_name(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "glai_native": build_info(),
            "precision": "float32",
        }
    finally:
        torch.set_num_threads(before)
    return {"machine": machine, "rows": rows}


def _bench_case(case: Case, seconds: float) -> Iterable[dict[str, Any]]:
    gates = pack_gates(case.gates)
    x, weight, dy = case.x, case.weight, case.dy
    ops: dict[str, tuple[Callable[[], Tensor], Calls]] = {
        "forward": (lambda: gated_matmul(x, gates, weight), forward_baselines(case)),
        "weight gradient": (lambda: gated_matmul_weight_grad(x, gates, dy), weight_grad_baselines(case)),
        "input gradient": (lambda: gated_matmul_input_grad(dy, gates, weight), input_grad_baselines(case)),
    }
    for op, (ours, baselines) in ops.items():
        expected = ours()
        for name, baseline in baselines.items():
            if not torch.allclose(baseline(), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
                raise RuntimeError(f"{op} {case.shape}: the baseline '{name}' computes something else")
        medians = measure({OURS: ours, **baselines}, seconds)
        mine = medians.pop(OURS)
        best = min(medians, key=lambda name: medians[name])
        yield {
            "shape": [case.shape.n, case.shape.p, case.shape.d, case.shape.c],
            "density": case.density,
            "op": op,
            "ours_ms": mine * 1e3,
            "baselines_ms": {name: value * 1e3 for name, value in medians.items()},
            "best": best,
            "ratio": medians[best] / mine,
        }


def print_results(results: dict[str, Any], console: Console) -> None:
    """Prints the rows as a table, and the geometric mean of the ratios per op."""
    machine = results["machine"]
    table = Table(
        title=f"best torch / ours, float32, {machine['threads']} threads, {machine['cpu']}, "
        f"torch {machine['torch']}, {machine['glai_native']['cpu_isa']}",
        title_justify="left",
        caption="N samples, P paths, D features, C outputs; a ratio over 1: ours is faster",
        caption_justify="left",
        box=SIMPLE,
    )
    for i, column in enumerate(
        ("(N,P,D,C)", "density", "op", "ours ms", "best torch ms", "ratio", "best torch form")
    ):
        table.add_column(column, justify="right" if 2 < i < 6 or i == 1 else "left", no_wrap=i < 6)
    for row in results["rows"]:
        table.add_row(
            str(Shape(*row["shape"])),
            f"{row['density']:g}",
            row["op"],
            f"{row['ours_ms']:.3f}",
            f"{row['baselines_ms'][row['best']]:.3f}",
            f"{row['ratio']:.2f}",
            row["best"],
        )
    console.print(table)
    for op in dict.fromkeys(row["op"] for row in results["rows"]):
        summary = []
        for part, dense in (("density under 1", False), ("density 1", True)):
            ratios = [
                row["ratio"] for row in results["rows"] if row["op"] == op and (row["density"] == 1) == dense
            ]
            mean = math.exp(statistics.fmean(math.log(ratio) for ratio in ratios))
            summary.append(f"{part}: geometric mean {mean:.2f}, least {min(ratios):.2f}")
        console.print(f"{op}: {'; '.join(summary)}")
    console.print(
        "At density 1 the gates do nothing and torch sums the weights first; these kernels do not yet."
    )


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
