"""Times the gated ops and the path kernel on a GPU against the best form in torch, per precision."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from glai_bench.cuda.card import PRECISIONS, Card, arithmetic
from glai_bench.cuda.cell import PATH_KERNEL, CellRun, Findings, Skipped, first_line
from glai_bench.cuda.torch_forms import forget_compiled
from glai_bench.folders import DATA_VARIABLE
from glai_bench.ops.cases import DENSITIES, GIANT, INDEPENDENT, QUICK_DENSITIES, SHAPES, Shape
from glai_bench.ops.grid import Grid
from glai_bench.ops.real_gates import SOURCES
from glai_native.machine.backend import build_info
from glai_native.machine.progress import epoch_progress

SAMPLES = (256, 4096, 65_536)
QUICK_SAMPLES = 4096
# Few outputs, middling, many; the many with one number of samples only.
QUICK_SHAPES = (
    *(Shape(n, one.p, one.d, one.c) for one in (SHAPES[6], SHAPES[3]) for n in SAMPLES),
    Shape(QUICK_SAMPLES, GIANT.p, GIANT.d, GIANT.c),
)
QUICK_SECONDS, SECONDS = 0.12, 0.3
QUICK_MINUTES = 3.0


def bench_cuda(
    *,
    quick: bool = False,
    seconds: float | None = None,
    shapes: Sequence[Shape] | None = None,
    precisions: Sequence[str] = tuple(PRECISIONS),
    minutes: float | None = None,
    data: Path | None = None,
    forms: bool = False,
    progress: bool = True,
    card: Card | None = None,
) -> dict[str, Any]:
    """Times forward, weight gradient and input gradient over the grid, and the path kernel once, per precision.

    Args:
        quick: a few shapes and densities; torch.compile with bf16 at one number of samples only.
        seconds: budget per op, case and precision (None: 0.3, quick 0.12).
        shapes: instead of the grid's own.
        precisions: names among ``PRECISIONS``, timed in this order.
        minutes: what has not begun by then is left out (None: no end, quick 3).
        data: folder of the real gates' data; None leaves real gates out.
        forms: time also each of our own forms of forward and input gradient, forced.
        progress: show a bar.
        card: where to run (None: the current GPU).

    Returns:
        As for ``bench_ops``, a row with precision instead of threads, sets (of inputs that take turns), left_out
        (form to reason), floor_ms (the larger of: every input read and result written once, at the bandwidth of a
        copy; the multiply-adds of gates that are on, or at density 1 of one product, at the matrix rate),
        matrix_fraction (multiply-adds of the dense product per second over the matrix rate), and with ``forms``
        form (what was chosen) and forms_ms (by form).
    """
    start = time.perf_counter()
    card = card or Card.here()
    seconds = seconds if seconds is not None else QUICK_SECONDS if quick else SECONDS
    minutes = QUICK_MINUTES if minutes is None and quick else minutes
    end = float("inf") if minutes is None else start + 60 * minutes
    bandwidth = card.copy_bandwidth()
    rates = {precision: card.matrix_rate(precision) for precision in precisions}
    card.release()
    grid = cuda_grid(quick, shapes, data)
    found = Findings(skipped=list(grid.skipped))
    cells = list(_cells(grid, precisions, with_kernel=not shapes))
    real = grid.real_gates(data)
    with epoch_progress(progress) as bar, torch.no_grad():
        task = bar.add_task("", total=len(cells))
        compiled_for = None
        for precision, shape, density, source in cells:
            if compiled_for != (precision, shape):
                forget_compiled()
                compiled_for = (precision, shape)
            gates = source if density is None else f"{density:g}"
            bar.update(task, description=f"{precision} {shape or PATH_KERNEL} {gates}")
            compiled = not quick or (precision == "bf16" and shape is not None and shape.n == QUICK_SAMPLES)
            run = CellRun(card, precision, seconds, bandwidth, rates[precision], compiled, forms, end, found)
            with arithmetic(precision):
                if shape is None:
                    run.path_kernel()
                elif density is None:
                    run.products(shape, source, real[shape, source])
                else:
                    run.products(shape, source, density)
            bar.update(task, advance=1)
            try:
                card.release()
            except (
                RuntimeError
            ) as error:  # after a failed kernel the card answers nothing more: keep what there is
                found.skipped.append(
                    {"shape": "all that follows", "gates": "any", "reason": first_line(error)}
                )
                break
    return {
        "settings": {
            "device": "cuda",
            "quick": quick,
            "seconds": seconds,
            "minutes": minutes,
            "precisions": list(precisions),
            "forms": forms,
            "shapes": None if shapes is None else [str(shape) for shape in shapes],
        },
        "seconds": time.perf_counter() - start,
        "machine": {
            "card": card.name,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cache_bytes": card.cache_bytes,
            "copy_gb_per_s": bandwidth / 1e9,
            "matrix_gfma_per_s": {precision: rate / 1e9 for precision, rate in rates.items()},
            "glai_native": build_info(),
        },
        "rows": found.rows,
        "skipped": found.skipped,
    }


def cuda_grid(quick: bool, shapes: Sequence[Shape] | None, data: Path | None) -> Grid:
    """Every shape, or ``shapes``, with independent gates of every density.

    Those of as many samples as ``QUICK_SAMPLES``, and all ``shapes``, also with the gates of every source (quick: the
    first): selectors are trained on the host, and no source has samples for the largest.
    """
    every = [Shape(n, *size) for size in dict.fromkeys((s.p, s.d, s.c) for s in SHAPES) for n in SAMPLES]
    sources = [source.name for source in (SOURCES[:1] if quick else SOURCES)]
    cells: list[tuple[Shape, float | None, str]] = []
    for shape in shapes or (QUICK_SHAPES if quick else every):
        cells += [(shape, density, INDEPENDENT) for density in (QUICK_DENSITIES if quick else DENSITIES)]
        if data is not None and (shapes or shape.n == QUICK_SAMPLES):
            cells += [(shape, None, source) for source in sources]
    skipped: list[Skipped] = []
    if data is None and not shapes:
        reason = f"{DATA_VARIABLE} is not set: it names the folder with MNIST and BANKING77"
        skipped = [{"shape": "every shape", "gates": ", ".join(sources), "reason": reason}]
    return Grid(tuple(cells), tuple(skipped))


def _cells(
    grid: Grid, precisions: Sequence[str], with_kernel: bool
) -> Iterator[tuple[str, Shape | None, float | None, str]]:
    """Precision, shape (None: the path kernel), density, source; those of one shape share what is compiled."""
    for precision in precisions:
        if with_kernel:
            yield precision, None, 0.5, INDEPENDENT
        for cell in grid.cells:
            yield precision, *cell
