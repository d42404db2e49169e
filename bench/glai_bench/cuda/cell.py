"""One cell of a GPU's benchmark: the three products of a shape, or the path kernel, in one precision."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import glai_native._native as _native
import glai_native.ops.oracle as ref
from glai_bench.clock import OURS, measure
from glai_bench.cuda.card import PRECISIONS, Card
from glai_bench.cuda.torch_forms import COMPILED, cuda_baselines
from glai_bench.ops.cases import INDEPENDENT, Case, Shape, make_case
from glai_bench.ops.grid import (
    FORWARD,
    INPUT_GRAD,
    OPS,
    WEIGHT_GRAD,
    Row,
    agreement_check,
    compared,
    op_calls,
    our_call,
)
from glai_bench.ops.torch_forms import Calls
from glai_native.gates.packed import PackedGates
from glai_native.gates.packing import pack_gates
from glai_native.ops.path_matrices import path_kernel

PATH_KERNEL = "path kernel"
# Samples, units, features.
PATH_KERNEL_SHAPE = (60_000, 256, 784)

# Ours, per kind of device: what choose_cuda_form chooses from, and for a run on the CPU the like of it.
FORMS = {"cuda": ("dense", "compaction", "reference"), "cpu": ("compaction", "reference")}

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


@dataclass(frozen=True)
class CellRun:
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
        """Of the inputs."""
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
            self._skip(str(shape), density, first_line(error))
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
                self._skip(f"{op} {shape}", density, first_line(error))
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
            self._skip(PATH_KERNEL, 0.5, first_line(error))
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
                left_out[name] = first_line(error)
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


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, or its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _chosen_form(op: str, shape: Shape, gates: PackedGates, precision: str) -> str:
    sizes = (shape.d, shape.c) if op == FORWARD else (shape.c, shape.d)
    estimate = gates.density(), gates.deviation()
    return str(_native.explain_cuda_form(shape.n, shape.p, *sizes, precision != "fp32", estimate)["form"])
