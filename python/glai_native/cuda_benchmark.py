"""Times the gated ops and the path kernel on a GPU against the best form in torch, per precision."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import glai_native._native as _native
from glai_native.baselines import Calls
from glai_native.benchmark import (
    FORWARD,
    INPUT_GRAD,
    OPS,
    WEIGHT_GRAD,
    Grid,
    Row,
    agreement_check,
    compared,
    op_calls,
    our_call,
)
from glai_native.cases import DENSITIES, GIANT, INDEPENDENT, QUICK_DENSITIES, SHAPES, Case, Shape, make_case
from glai_native.cuda_baselines import COMPILED, cuda_baselines, forget_compiled
from glai_native.cuda_card import PRECISIONS, Card, arithmetic
from glai_native.gates.packed import PackedGates
from glai_native.gates.packing import pack_gates
from glai_native.machine.backend import build_info
from glai_native.machine.progress import epoch_progress
from glai_native.measuring import OURS, measure
from glai_native.ops.gated_matmul import reference as ref
from glai_native.ops.path_matrices import path_kernel
from glai_native.real_gates import DATA_VARIABLE, SOURCES

PATH_KERNEL = "path kernel"
# Samples, units, features.
PATH_KERNEL_SHAPE = (60_000, 256, 784)

SAMPLES = (256, 4096, 65_536)
QUICK_SAMPLES = 4096
# Few outputs, middling, many; the many with one number of samples only.
QUICK_SHAPES = (
    *(Shape(n, one.p, one.d, one.c) for one in (SHAPES[6], SHAPES[3]) for n in SAMPLES),
    Shape(QUICK_SAMPLES, GIANT.p, GIANT.d, GIANT.c),
)
# Ours, per kind of device: what choose_cuda_form chooses from, and for a run on the CPU the like of it.
FORMS = {"cuda": ("dense", "compaction", "reference"), "cpu": ("compaction", "reference")}
QUICK_SECONDS, SECONDS = 0.12, 0.3
QUICK_MINUTES = 3.0

# Inputs that one op has taken turns with leave the second-level cache between two uses; the clock overwrites it
# besides, which is what small inputs rely on.
MAX_SETS = 8

# Of the largest expected value. bf16: sums of hundreds of paths are rounded after each by some torch forms.
TOLERANCES = {"bf16": 6e-2, "tf32": 1e-2, "fp32": 1e-3}
# Ours, which rounds once, on a slice against float64.
OURS_TOLERANCES = {"bf16": 1e-2, "tf32": 5e-3, "fp32": 1e-4}
SLICE_ROWS, SLICE_PATHS = 64, 4

Skipped = dict[str, str]


class Rotation:
    """One call made of the same form on several sets of inputs, which take turns.

    The first time it goes through all of them, so that what each keeps is made then, and returns what the first gave.
    """

    def __init__(self, calls: Sequence[Callable[[], Tensor]]) -> None:
        self._calls = calls
        self._turn = -1

    def __call__(self) -> Tensor:
        """The next one's result."""
        if self._turn < 0:
            for call in self._calls[:0:-1]:
                call()
        self._turn = (self._turn + 1) % len(self._calls)
        return self._calls[self._turn]()


@dataclass
class Findings:
    """What comes out of a run: cells, what was left out of the grid, and which forms were left out of which cell."""

    rows: list[Row] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


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
            run = _Run(card, precision, seconds, bandwidth, rates[precision], compiled, forms, end, found)
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
                    {"shape": "all that follows", "gates": "any", "reason": _sentence(error)}
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


@dataclass(frozen=True)
class _Run:
    """One cell of the grid, with all that its rows are made from."""

    card: Card
    precision: str
    seconds: float
    bandwidth: float
    rate: float
    compiled: bool
    forms: bool
    end: float
    found: Findings

    @property
    def dtype(self) -> torch.dtype:
        return PRECISIONS[self.precision][0]

    def products(self, shape: Shape, source: str, gates_or_density: Tensor | float) -> None:
        """The three ops of one shape with those gates, bool ``[N, P]``, or independent ones of that density."""
        n, p, d, c = shape.n, shape.p, shape.d, shape.c
        size = self.dtype.itemsize
        inputs = size * (n * d + p * d * c + n * c) + n * p // 8
        bits = gates_or_density.to(self.card.device) if isinstance(gates_or_density, Tensor) else None
        density = float(gates_or_density if bits is None else bits.double().mean())
        if not self._fits(str(shape), density, size * n * p * c + 3 * inputs):
            return
        count = min(MAX_SETS, -(-2 * self.card.cache_bytes // inputs))
        try:
            sets = [
                make_case(
                    shape, density, self.dtype, seed, gates=bits, source=source, device=self.card.device
                )
                for seed in range(count)
            ]
            gates = [pack_gates(case.gates) for case in sets]
            # What the host knows chooses the form, as it does in training from a store.
            on, *_ = [packed.density() for packed in gates]
        except RuntimeError as error:  # memory
            self._skip(str(shape), density, _sentence(error))
            return
        # Of x, weight and dy each op reads two and writes what is as large as the third.
        # With every gate on the weights can be summed first: one product is left.
        needed = shape.work / p if on == 1 else shape.work * on
        floor = max(inputs / self.bandwidth, needed / self.rate)
        for op in OPS:
            try:
                ours, baselines = self._rotations(op, sets, gates)
                result = ours()
                _hold_to_float64(op, sets[0], result, OURS_TOLERANCES[self.precision])
                row = self._timed(f"{op} {shape}", ours, result, baselines)
                if self.forms and op != WEIGHT_GRAD:
                    row |= self._our_forms(op, sets, gates)
            except (RuntimeError, ValueError) as error:
                self._skip(f"{op} {shape}", density, _sentence(error))
                continue
            self.found.rows.append(
                {
                    "op": op,
                    "shape": [n, p, d, c],
                    "gates": source,
                    "density": density,
                    "deviation": gates[0].deviation(),
                    "precision": self.precision,
                    "sets": count,
                    **row,
                    "floor_ms": floor * 1e3,
                    "matrix_fraction": shape.work / (row["ours_ms"] / 1e3) / self.rate,
                }
            )

    def path_kernel(self) -> None:
        """The path kernel of one hidden layer."""
        n, units, d = PATH_KERNEL_SHAPE
        size = self.dtype.itemsize
        if not self._fits(PATH_KERNEL, 0.5, 4 * size * n * n):
            return
        generator = torch.Generator(self.card.device).manual_seed(0)
        x = torch.randn((n, d), generator=generator, device=self.card.device).to(self.dtype)
        bits = torch.rand((n, units), generator=generator, device=self.card.device) < 0.5
        layers = [pack_gates(bits)]
        a, ones = bits.to(self.dtype), x.new_ones((n, 1))
        x_one, a_one = torch.cat([x, ones], 1), torch.cat([a, ones], 1)
        one = x.new_ones(())
        baselines: Calls = {
            "two products, ones as columns": lambda: (x_one @ x_one.T).mul_(a_one @ a_one.T),
            "addmm": lambda: torch.addmm(one, x, x.T).mul_(torch.addmm(one, a, a.T)),
            "ones added in place": lambda: (x @ x.T).add_(1).mul_((a @ a.T).add_(1)),
        }
        try:
            result = path_kernel(x, layers)
            rows = slice(0, SLICE_ROWS)
            exact = ref.path_kernel_ref(x[rows].double(), [bits[rows]], x.double(), [bits])
            _hold(PATH_KERNEL, result[rows], exact, OURS_TOLERANCES[self.precision])
            row = self._timed(PATH_KERNEL, lambda: path_kernel(x, layers), result, baselines)
        except (RuntimeError, ValueError) as error:
            self._skip(PATH_KERNEL, 0.5, _sentence(error))
            return
        work = n * n * d  # the bits are counted, not multiplied
        floor = max(size * (n * n + n * d) / self.bandwidth, work / 2 / self.rate)
        self.found.rows.append(
            {
                "op": PATH_KERNEL,
                "shape": [n, units, d, 1],
                "gates": INDEPENDENT,
                "density": 0.5,
                "precision": self.precision,
                "sets": 1,
                **row,
                "floor_ms": floor * 1e3,
                "matrix_fraction": work / (row["ours_ms"] / 1e3) / self.rate,
            }
        )

    def _rotations(
        self, op: str, sets: Sequence[Case], gates: Sequence[PackedGates]
    ) -> tuple[Rotation, dict[str, Rotation]]:
        ours, forms = [], []
        for case, packed in zip(sets, gates, strict=True):
            call, calls = op_calls(op, case, packed)
            ours.append(call)
            forms.append({**calls, **cuda_baselines(op, case, self.compiled)})
        return Rotation(ours), {name: Rotation([calls[name] for calls in forms]) for name in forms[0]}

    def _our_forms(self, op: str, sets: Sequence[Case], gates: Sequence[PackedGates]) -> Row:
        calls = {
            form: Rotation(
                [our_call(op, case, packed, form=form) for case, packed in zip(sets, gates, strict=True)]
            )
            for form in FORMS[self.card.device.type]
        }
        first, *others = calls
        medians = measure(
            calls[first], {form: calls[form] for form in others}, self.seconds, clock=self.card.clock
        )
        times = {form: medians[OURS if form == first else form] * 1e3 for form in calls}
        return {"form": _chosen_form(op, sets[0].shape, gates[0], self.precision), "forms_ms": times}

    def _timed(
        self, what: str, ours: Callable[[], Tensor], expected: Tensor, baselines: dict[str, Any]
    ) -> Row:
        """Leaves out the forms that fail, lack memory or compute something else, and times the others."""
        check = agreement_check(what, expected, TOLERANCES[self.precision])
        usable: Calls = {}
        left_out = {} if self.compiled else {COMPILED: "takes seconds per shape"}
        for name, call in baselines.items():
            try:
                check(name, call())
            except Exception as error:  # a compiler's and a private function's are of many types
                left_out[name] = _sentence(error)
                self.card.release()
            else:
                usable[name] = call
        del expected
        if not usable:
            raise RuntimeError(f"no torch form is left to compare with: {left_out}")
        medians = measure(ours, usable, self.seconds, clock=self.card.clock)
        return {**compared(medians), "left_out": left_out}

    def _fits(self, shape: str, density: float, needed: int) -> bool:
        if time.perf_counter() > self.end:
            self._skip(shape, density, "the time was over")
        elif needed > 0.9 * self.card.memory_bytes:
            self._skip(shape, density, f"takes {needed / 1e9:.0f} GB")
        else:
            return True
        return False

    def _skip(self, shape: str, density: float, reason: str) -> None:
        gates = f"density {density:g}, {self.precision}"
        self.found.skipped.append({"shape": shape, "gates": gates, "reason": reason})


def _hold_to_float64(op: str, case: Case, result: Tensor, tolerance: float) -> None:
    """A slice of our result against the definition: some samples, of a gradient of the weights some paths."""
    rows, paths = slice(0, SLICE_ROWS), slice(0, SLICE_PATHS)
    x, weight, dy = case.x, case.weight, case.dy
    if op == FORWARD:
        exact = sum_over_paths(x[rows], case.gates[rows], weight)
    elif op == INPUT_GRAD:
        exact = sum_over_paths(dy[rows], case.gates[rows], weight.transpose(1, 2))
    else:
        masked = case.gates[:, paths].T.unsqueeze(2) * x.double()
        exact, result = masked.transpose(1, 2) @ dy.double(), result[paths]
    _hold(f"{op} {case.shape}", result if op not in (FORWARD, INPUT_GRAD) else result[rows], exact, tolerance)


def sum_over_paths(x: Tensor, gates: Tensor, weight: Tensor) -> Tensor:
    """The definition in float64, a path at a time: all of them at once would not fit beside the largest weights."""
    y = x.new_zeros((x.shape[0], weight.shape[2]), dtype=torch.float64)
    for gate, one in zip(gates.T, weight, strict=True):
        y += gate.unsqueeze(1) * (x.double() @ one.double())
    return y


def _hold(what: str, result: Tensor, exact: Tensor, tolerance: float) -> None:
    error = float((result.double() - exact).norm() / exact.norm())
    if not error <= tolerance:
        raise RuntimeError(f"{what}: '{OURS}' computes something else, relative error {error:.1e}")


def _sentence(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _chosen_form(op: str, shape: Shape, gates: PackedGates, precision: str) -> str:
    sizes = (shape.d, shape.c) if op == FORWARD else (shape.c, shape.d)
    estimate = gates.density(), gates.deviation()
    return str(_native.explain_cuda_form(shape.n, shape.p, *sizes, precision != "fp32", estimate)["form"])
