"""This file holds the solvers by name, the choice between them, and the options that each takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch

from glai_native.estimator.estimator import PathEstimator
from glai_native.machine.memory import free_memory
from glai_native.solvers.dual.model import PathKernelModel
from glai_native.solvers.dual.ridge import cholesky_bytes
from glai_native.solvers.dual.solving import solve_dual
from glai_native.solvers.sgd.solving import solve_sgd
from glai_native.solvers.sgd.training import train_estimator
from glai_native.solvers.solution import Solve
from glai_native.solvers.statistics.solving import solve_statistics
from glai_native.solvers.statistics.sums import PathStatistics
from glai_native.structure.selector import PathSelector

SOLVE: dict[str, Solve] = {"dual": solve_dual, "sgd": solve_sgd, "statistics": solve_statistics}

# Up to here the dual takes a minute at most (python -m glai_bench.solvers).
DUAL_SAMPLES = 20_000

_OPTIONS_OF: dict[str, Callable[..., Any]] = {
    "dual": PathKernelModel.fit_samples,
    "sgd": train_estimator,
    "statistics": PathStatistics.solve,
}
# What fit gives them itself.
_OWN = {
    "self",
    "x",
    "samples",
    "estimator",
    "gates",
    "targets",
    "sample_weight",
    "validation",
    "seed",
    "progress",
    "process_group",
}


def choose_solver(
    selector: PathSelector | None,
    estimator: PathEstimator | None,
    n_samples: int,
    n_outputs: int,
    options: Iterable[str] = (),
) -> tuple[str, str]:
    """Choose a solver for N samples that are there at once, and say why.

    It is ``"dual"`` or ``"sgd"``; where that one lacks an option that is given, one that has them all.

    Args:
        selector: the frozen structure; None: a new one on the CPU.
        estimator: the numbers that are there already; None: none are.
        n_samples: N.
        n_outputs: C.
        options: names of those that are given.
    """
    solver, reason = _choose_by_size(selector, estimator, n_samples, n_outputs)
    missing = [name for name in options if name not in options_of(solver)]
    if missing:
        for other in ("statistics", "sgd", "dual"):
            if set(options) <= set(options_of(other)):
                return other, f"{', '.join(missing)} is given, which '{solver}' has not"
    return solver, reason


def _choose_by_size(
    selector: PathSelector | None, estimator: PathEstimator | None, n_samples: int, n_outputs: int
) -> tuple[str, str]:
    if estimator is not None and estimator.kind != "full paths":
        return "sgd", f"the model has {estimator.kind}, and the dual is for full paths"
    if n_samples > DUAL_SAMPLES:
        return "sgd", f"{n_samples:,} samples are more than the {DUAL_SAMPLES:,} that the dual is quick for"
    weight = torch.empty(0, device="cpu", dtype=torch.float32) if selector is None else selector.hidden[0][0]
    if cholesky_bytes(n_samples, n_outputs, weight.element_size()) > free_memory(weight.device) // 2:
        return "sgd", f"the kernel matrix of {n_samples:,} samples does not fit in memory"
    return "dual", f"at {n_samples:,} samples the closed form is quick"


def options_of(solver: str) -> list[str]:
    """Return the names of the options that a solver has."""
    return [name for name in inspect.signature(_OPTIONS_OF[solver]).parameters if name not in _OWN]


def require_options(solver: str, options: dict[str, Any]) -> None:
    """Raise where there are options that the solver does not have."""
    known = options_of(solver)
    for name in options:
        if name not in known:
            raise ValueError(f"fit: solver '{solver}' has the options {', '.join(known)}, got '{name}'")
