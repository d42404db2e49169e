"""Times the gated ops against the best form in torch, over a grid of cases; every result is compared first."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glai_bench.clock import OURS, call_cost, cpu_name, measure, quickest, sgemm_rates
from glai_bench.folders import DATA_VARIABLE
from glai_bench.instruction_peak import instruction_peak
from glai_bench.ops.cases import (
    DENSITIES,
    INDEPENDENT,
    QUICK_DENSITIES,
    QUICK_SHAPES,
    SHAPES,
    Case,
    Shape,
    make_case,
)
from glai_bench.ops.real_gates import SOURCES, RealGates
from glai_bench.ops.torch_forms import Calls, forward_baselines, input_grad_baselines, weight_grad_baselines
from glai_native.gates.packed import PackedGates
from glai_native.gates.packing import pack_gates
from glai_native.machine.backend import build_info
from glai_native.machine.progress import epoch_progress
from glai_native.ops.gated_matmul import gated_matmul, gated_matmul_input_grad, gated_matmul_weight_grad

FORWARD, WEIGHT_GRAD, INPUT_GRAD = OPS = ("forward", "weight gradient", "input gradient")

# Calls on weights over this take seconds: of independent gates these densities have to do for them, and no real ones.
LARGE_WEIGHT_BYTES, LARGE_DENSITIES = 1 << 28, (0.5, 0.25, 0.1)

# From this density on our bf16 is timed beside our fp32, with this share of a cell's budget; what it may be off by.
BF16_DENSITY = 0.25
BF16_SHARE = 0.15
BF16_TOLERANCE = 2e-2
# Share of a cell's budget for our calls alone, whose quickest is what the processor's peak is compared with.
BEST_SHARE = 0.2

Row = dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """What is to be timed.

    Attributes:
        cells: shape, density and source of the gates (density None: that of the source's selector).
        skipped: what was left out: shape, gates, reason.
    """

    cells: tuple[tuple[Shape, float | None, str], ...]
    skipped: tuple[dict[str, str], ...]

    @classmethod
    def chosen(cls, quick: bool, shapes: Sequence[Shape] | None, data: Path | None) -> Grid:
        """The whole grid, or a few cases of it; ``shapes``: instead of its own."""
        shapes = shapes or (QUICK_SHAPES if quick else SHAPES)
        return cls.of(shapes, QUICK_DENSITIES if quick else DENSITIES, data)

    @classmethod
    def of(cls, shapes: Sequence[Shape], densities: Sequence[float], data: Path | None) -> Grid:
        """Every shape with independent gates of every density, and with the gates of every source."""
        cells: list[tuple[Shape, float | None, str]] = []
        skipped: list[dict[str, str]] = []
        for shape in shapes:
            large = shape.weight_bytes > LARGE_WEIGHT_BYTES
            cells += [(shape, one, INDEPENDENT) for one in densities if not large or one in LARGE_DENSITIES]
            for source in SOURCES:
                if data is None:
                    reason = f"{DATA_VARIABLE} is not set: it names the folder with MNIST and BANKING77"
                elif large:
                    reason = f"{shape.weight_bytes / 1e6:.0f} MB of weights, a call takes seconds"
                else:
                    cells.append((shape, None, source.name))
                    continue
                skipped.append({"shape": str(shape), "gates": source.name, "reason": reason})
        return cls(tuple(cells), tuple(skipped))

    def real_gates(self, data: Path | None) -> dict[tuple[Shape, str], Tensor]:
        """Bits of every cell whose gates are a source's, by shape and source."""
        real = RealGates(data) if data is not None else None
        return {
            (shape, source): real.gates(source, shape.n, shape.p)
            for shape, density, source in self.cells
            if density is None and real is not None
        }

    def cases(self, data: Path | None) -> Iterator[Case]:
        """The cases, one at a time; the selectors are trained before the first, so that missing data show then."""
        bits = self.real_gates(data)
        for shape, density, source in self.cells:
            if density is not None:
                yield make_case(shape, density)
            else:
                gates = bits[shape, source]
                yield make_case(shape, float(gates.double().mean()), gates=gates, source=source)


def bench_ops(
    *,
    quick: bool = False,
    threads: Sequence[int] = (1, 2),
    seconds: float = 1.0,
    shapes: Sequence[Shape] | None = None,
    data: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Times forward, weight gradient and input gradient in float32 over the grid of cases.

    Args:
        quick: a few cases only.
        threads: numbers of threads, for torch and for us; every case is timed with each.
        seconds: budget per op, case and number of threads.
        shapes: instead of the grid's own.
        data: folder of the real gates' data; None leaves real gates out.
        progress: show a bar.

    Returns:
        ``{"settings": ..., "seconds": ..., "machine": ..., "rows": [...], "skipped": [...]}``: what was asked for, how
        long all of it took, where it ran, what came out and what was left out. A row has op, shape ``[N, P, D, C]``,
        gates (the source), density, deviation, threads, milliseconds of ours and of every baseline, which was best,
        the ratio best / ours, ours_best_ms: the quickest of our calls without others between them, bf16_ratio: our
        time in float32 over ours with precision "bf16" (None under density 0.25), and peak_fraction: useful
        multiply-adds per second (N·P·D·C·density over ours_best_ms) over the processor's peak: the quickest loop of
        nothing but FMA, compiled and timed in the same run, times the threads; without a compiler the rate of torch's
        sgemm with as many threads.
    """
    grid = Grid.chosen(quick, shapes, data)
    before, start = torch.get_num_threads(), time.perf_counter()
    rows: list[Row] = []
    try:
        torch.set_num_threads(1)  # the selectors' training then repeats, and so do their gates
        cost = call_cost()
        rates = sgemm_rates(threads)
        fma_peak = instruction_peak(build_info()["cpu_isa"], "float32")
        peaks = rates if fma_peak is None else {count: fma_peak * count for count in threads}
        with epoch_progress(progress) as bar:
            task = bar.add_task("training selectors", total=len(grid.cells))
            for case in grid.cases(data):
                bar.update(task, description=f"{case.shape} density {case.density:.2f} {case.source}")
                rows += _bench_case(case, threads, seconds, peaks)
                bar.update(task, advance=1)
    finally:
        torch.set_num_threads(before)
    machine = {
        "cpu": cpu_name(),
        "isa": build_info()["cpu_isa"],
        "torch": torch.__version__,
        "blas": _blas_name(),
        "precision": "float32",
        "threads": list(threads),
        "fma_peak_gfma_per_s": fma_peak,
        "sgemm_gfma_per_s": {str(count): rates[count] for count in threads},
        "sgemm_scaling": {str(count): rates[count] / rates[1] for count in threads if 1 in rates},
        "call": cost,
        "glai_native": build_info(),
    }
    return {
        "settings": {
            "quick": quick,
            "threads": list(threads),
            "seconds": seconds,
            "shapes": None if shapes is None else [str(shape) for shape in shapes],
        },
        "seconds": time.perf_counter() - start,
        "machine": machine,
        "rows": rows,
        "skipped": list(grid.skipped),
    }


def _bench_case(case: Case, threads: Sequence[int], seconds: float, peaks: dict[int, float]) -> Iterator[Row]:
    gates = pack_gates(case.gates)
    for op in OPS:
        ours, baselines = op_calls(op, case, gates)
        expected = ours()
        ours_bf16 = our_call(op, case, gates, precision="bf16")
        check = agreement_check(f"{op} {case.shape}", expected, 1e-3)
        for count in threads:
            torch.set_num_threads(count)
            medians = measure(ours, baselines, seconds, check)
            best = quickest(ours, BEST_SHARE * seconds)
            yield {
                "op": op,
                "shape": [case.shape.n, case.shape.p, case.shape.d, case.shape.c],
                "gates": case.source,
                "density": case.density,
                "deviation": gates.deviation(),
                "threads": count,
                **compared(medians),
                "ours_best_ms": best * 1e3,
                "bf16_ratio": _bf16_ratio(ours, ours_bf16, case, seconds, expected),
                "peak_fraction": case.shape.work * gates.density() / best / (peaks[count] * 1e9),
            }


def _bf16_ratio(
    ours: Callable[[], Tensor],
    ours_bf16: Callable[[], Tensor],
    case: Case,
    seconds: float,
    expected: Tensor,
) -> float | None:
    """Our time in float32 over ours with bf16, taking turns."""
    if case.density < BF16_DENSITY:
        return None
    check = agreement_check(f"bf16 {case.shape}", expected, BF16_TOLERANCE)
    medians = measure(ours, {"bf16": ours_bf16}, BF16_SHARE * seconds, check)
    return medians[OURS] / medians["bf16"]


def agreement_check(what: str, expected: Tensor, tolerance: float) -> Callable[[str, Tensor], None]:
    """Raises RuntimeError for a named result that is off by more than that share of the largest expected value."""
    limit = tolerance * float(expected.abs().max())

    def check(name: str, result: Tensor) -> None:
        # In parts, so that no third tensor of that size is made.
        parts = zip(result.chunk(64), expected.chunk(64), strict=True)
        if not all(float((a - b).abs().max()) <= limit for a, b in parts):
            raise RuntimeError(f"{what}: '{name}' computes something else")

    return check


def compared(medians: dict[str, float]) -> Row:
    """The part of a row that says how ours did beside the best of the others."""
    mine = medians[OURS]
    others = {name: value for name, value in medians.items() if name != OURS}
    best = min(others, key=lambda name: others[name])
    return {
        "ours_ms": mine * 1e3,
        "baselines_ms": {name: value * 1e3 for name, value in others.items()},
        "best": best,
        "ratio": others[best] / mine,
    }


def op_calls(op: str, case: Case, gates: PackedGates) -> tuple[Callable[[], Tensor], Calls]:
    """Our call, and every torch form by name."""
    baselines = {
        FORWARD: forward_baselines,
        INPUT_GRAD: input_grad_baselines,
        WEIGHT_GRAD: weight_grad_baselines,
    }
    return our_call(op, case, gates), baselines[op](case)


def our_call(
    op: str, case: Case, gates: PackedGates, precision: str | None = None, form: str | None = None
) -> Callable[[], Tensor]:
    """Our call alone; ``form``: of the products that have several."""
    x, weight, dy = case.x, case.weight, case.dy
    if op == FORWARD:
        return lambda: gated_matmul(x, gates, weight, precision=precision, form=form)
    if op == INPUT_GRAD:
        return lambda: gated_matmul_input_grad(dy, gates, weight, precision=precision, form=form)
    out = torch.empty_like(weight)  # both sides write where a gradient already has its memory
    return lambda: gated_matmul_weight_grad(x, gates, dy, out=out, precision=precision)


def _blas_name() -> str:
    """The line of torch's configuration that names its matrix library."""
    lines = [line.strip(" -") for line in torch.__config__.show().splitlines()]
    for line in lines:
        if "Math Kernel Library" in line:
            return re.sub(r" for .*", "", line)
    return next((m[1] for line in lines if (m := re.search(r"BLAS_INFO=(\w+)", line))), "unknown")
