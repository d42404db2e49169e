"""Times of a training step on a GPU, ours beside PyTorch's, per shape and precision; and their table."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console

from glai_bench.clock import OURS, measure
from glai_bench.cuda.card import Card, arithmetic
from glai_bench.ops.tables import make_table
from glai_bench.steps.cuda_steps import (
    MLPS,
    StepSamples,
    StepShape,
    make_loop,
    require_reference_step,
    torch_steps,
)
from glai_native.machine.backend import build_info
from glai_native.machine.progress import epoch_progress

# And the target: times faster than the best MLP.
SHAPES = ((StepShape(512, 193, 50, 10), 3.0), (StepShape(128, 17, 384, 77), None))
PRECISIONS = ("fp32", "tf32", "bf16")
STEPS = 8  # per call that is timed: what the step before left is in the cache, as in training

Results = dict[str, Any]


def bench_cuda_steps(
    seconds: float,
    density: float = 0.5,
    *,
    card: Card | None = None,
    keep: Callable[[Results], None] = lambda results: None,
    progress: bool = True,
) -> Results:
    """Times every shape in every precision.

    Args:
        seconds: per shape and precision, all contenders together.
        density: of the gates.
        card: where to run (None: the current GPU).
        keep: is given what there is so far, after each shape and precision.
        progress: show a bar.

    Returns:
        settings, machine, seconds, rows and skipped. A row: shape, precision, target, mlp (its layers), parameters
        (GLAI's and the MLP's), ms (of a step, by contender; of one that is 2.5 times slower than the fastest in torch
        its best trial, of all others the median), best (MLP), ratio (its time over ours) and left_out (contender to
        reason). skipped: shape, precision and reason.
    """
    start = time.perf_counter()
    card = card or Card.here()
    rows: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    results = {
        "settings": {"device": "cuda", "seconds": seconds, "density": density, "steps per call": STEPS},
        "machine": {
            "card": card.name,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cache_bytes": card.cache_bytes,
            "glai_native": build_info(),
        },
        "seconds": 0.0,
        "rows": rows,
        "skipped": skipped,
    }
    cells = [(shape, target, precision) for shape, target in SHAPES for precision in PRECISIONS]
    with epoch_progress(progress) as bar:
        for shape, target, precision in bar.track(cells, description="steps"):
            where = {"shape": list(shape), "precision": precision}
            try:
                with arithmetic(precision):
                    rows.append(
                        where | {"target": target} | _time_cell(shape, precision, density, seconds, card)
                    )
                card.release()
            except (RuntimeError, ValueError) as error:
                skipped.append(where | {"reason": _sentence(error)})
            results["seconds"] = time.perf_counter() - start
            keep(results)
    return results


def _time_cell(
    shape: StepShape, precision: str, density: float, seconds: float, card: Card
) -> dict[str, Any]:
    samples = StepSamples(shape, density, card)
    loop = make_loop(shape, samples, precision)
    require_reference_step(loop, samples, precision)
    calls, left_out = {}, {}
    for name, make in torch_steps(shape, samples).items():
        try:
            step = make()
            step.require_falling_loss()
        except Exception as error:  # a compiler's are of many types
            left_out[name] = _sentence(error)
        else:
            calls[name] = _repeated(step.replay)
    if not any(name in calls for name in MLPS):
        raise RuntimeError(f"no MLP is left to compare with: {left_out}")

    def clock(call: Callable[[], object]) -> float:
        samples.turn()
        loop.hold(samples.ids)
        return card.clock(call)

    medians = measure(_repeated(loop.replay), calls, seconds, clock=clock)
    taken = {name: median / STEPS * 1e3 for name, median in medians.items()}
    best = min((name for name in MLPS if name in taken), key=lambda name: taken[name])
    return {
        "mlp": shape.mlp,
        "parameters": [shape.parameters, shape.mlp_parameters],
        "ms": taken,
        "best": best,
        "ratio": taken[best] / taken[OURS],
        "left_out": left_out,
    }


def _repeated(step: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        for _ in range(STEPS):
            step()

    return call


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]


def print_cuda_steps(results: Results, console: Console) -> None:
    """Prints a line per contender, the ratio and its target beside ours, and what was left out."""
    machine, rows = results["machine"], results["rows"]
    console.print(f"\n{machine['card']}, torch {machine['torch']}\n", highlight=False)
    mlps = dict.fromkeys(f"{row['mlp']} at {_shape(row)}" for row in rows)
    table = make_table(
        "a training step, replayed from its CUDA graph; ratio: best MLP / ours",
        f"MLP, of as many parameters as GLAI: {'; '.join(mlps)}. Both sides: float32 parameters, gradients and AdamW "
        "state; operands of products fp32, or rounded to tf32. Ours, as training does, also gathers its batch from the "
        "samples, adds up their losses and averages the iterates; the others' batch lies in place.",
        3,
        "(N,P,D,C)",
        "in",
        "step",
        "ms",
        "ratio",
        "target",
    )
    for row in rows:
        for name, taken in row["ms"].items():
            figures = _ratio(row) if name == OURS else ("", "")
            table.add_row(_shape(row), row["precision"], name, f"{taken:.4f}", *figures)
        table.add_section()
    console.print(table)
    left_out = [(f"{name}, ", row, reason) for row in rows for name, reason in row["left_out"].items()]
    left_out += [("", one, one["reason"]) for one in results["skipped"]]
    for what, where, reason in left_out:
        line = f"Left out: {what}{_shape(where)}, {where['precision']}: {reason}"
        console.print(line, highlight=False, markup=False)


def _shape(row: dict[str, Any]) -> str:
    return f"({','.join(map(str, row['shape']))})"


def _ratio(row: dict[str, Any]) -> tuple[str, str]:
    """Of the best MLP's time to ours, in red where it misses its target, and that."""
    ratio, target = f"{row['ratio']:.2f}", row["target"]
    if target is None:
        return ratio, ""
    return (ratio if row["ratio"] >= target else f"[red]{ratio}[/]"), f"{target:g}"
