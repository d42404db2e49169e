"""This file holds the solvers by name, which of them may suit, and the options that each takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

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

# Samples that the dual is tried with: its time grows with their cube. On BANKING77's 10,003 it was 1.1 points ahead of
# statistics of units, and took 7 s of one thread, as long as scikit-learn's MLP all in all; at 6,000 it takes two.
DUAL_SAMPLES = 6_000
# Up to here it is not compared: on digits, breast cancer and diabetes, of 331 to 1,347 samples, the loop was never
# clearly better on what was held out.
FEW_SAMPLES = 2_000
# Of the statistics of units, M at most, and the multiply-adds N·M² of their sums: three to ten seconds of one
# thread, which on MNIST's 60,000 samples, 2 points behind the loop, were a fifth of all.
UNIT_UNKNOWNS, UNIT_PRODUCTS = 2_500, 5 * 10**10
# Numbers beyond which a new estimator of the native loop is of units: a full path costs D·C multiplies, a unit D + C.
FULL_PATH_NUMBERS = 1 << 20
# Unknowns beyond which statistics of a selector's new estimator are those of units: a Gram matrix of 2 GB.
FULL_PATH_UNKNOWNS = 1 << 14

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
    "left_out",
}


class Candidate(NamedTuple):
    """A solver, the kind of estimator that it trains, and a closed form's multiply-adds on all samples."""

    solver: str
    kind: str
    products: float = 0.0


def list_candidates(
    selector: PathSelector,
    estimator: PathEstimator | None,
    n_samples: int,
    n_outputs: int,
    options: Iterable[str] = (),
    *,
    in_memory: bool = True,
) -> list[Candidate]:
    """List the solvers that may suit N samples, those that are tried first at the front.

    The native loop always may. Of a new estimator the statistics of units may too, while they are cheap; the dual
    where there are few samples, and of very few alone. What lacks an option that is given is left out.

    Args:
        selector: the frozen structure.
        estimator: the numbers that are there already, whose kind stays; None: none are.
        n_samples: N.
        n_outputs: C.
        options: names of those that are given.
        in_memory: whether the samples are there at once, which the dual needs.
    """
    kind = new_kind(selector, n_outputs, "sgd") if estimator is None else estimator.kind
    found = [Candidate("sgd", kind)]
    unknowns = selector.widths[-1] + selector.z_features + 1
    if (
        (kind == "units" if estimator is not None else selector.kept_paths is None)
        and unknowns <= UNIT_UNKNOWNS
        and n_samples * unknowns**2 <= UNIT_PRODUCTS
    ):
        found.append(Candidate("statistics", "units", n_samples * unknowns**2))
    weight = selector.hidden[0][0]
    if (
        in_memory
        and (estimator is None or kind == "full paths")
        and n_samples <= DUAL_SAMPLES
        and cholesky_bytes(n_samples, n_outputs, weight.element_size()) <= free_memory(weight.device) // 2
    ):
        found.append(Candidate("dual", "full paths", n_samples**3 / 3 + n_samples**2 * selector.z_features))
    given = set(options)
    able = [one for one in found if given <= set(options_of(one.solver))]
    if n_samples <= FEW_SAMPLES and any(one.solver == "dual" for one in able):
        return [one for one in able if one.solver == "dual"]
    if able:
        return able
    solver = next((name for name in ("statistics", "dual") if given <= set(options_of(name))), "sgd")
    return [Candidate(solver, new_kind(selector, n_outputs, solver) if estimator is None else estimator.kind)]


def new_kind(selector: PathSelector, n_outputs: int, solver: str) -> str:
    """Return the kind of a new estimator for a solver: full paths while they are few, units beyond.

    A pruned or grown structure has no units.
    """
    if selector.kept_paths is not None:
        return "full paths"
    unknowns = selector.n_paths * (selector.z_features + 1)
    if (solver == "statistics" and unknowns > FULL_PATH_UNKNOWNS) or (
        solver == "sgd" and unknowns * n_outputs > FULL_PATH_NUMBERS
    ):
        return "units"
    return "full paths"


def options_of(solver: str) -> list[str]:
    """Return the names of the options that a solver has."""
    return [name for name in inspect.signature(_OPTIONS_OF[solver]).parameters if name not in _OWN]


def require_options(solver: str, options: dict[str, Any]) -> None:
    """Raise where there are options that the solver does not have."""
    known = options_of(solver)
    for name in options:
        if name not in known:
            raise ValueError(f"fit: solver '{solver}' has the options {', '.join(known)}, got '{name}'")
