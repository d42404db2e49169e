"""This file makes a solver of sufficient statistics: sums over the samples, and the penalty that suits them."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from glai_native.estimator.estimator import PathEstimator
from glai_native.machine.ranks import Ranks
from glai_native.solvers.solution import Solution, Split, judge, mean_score
from glai_native.solvers.statistics.reducing import all_reduce
from glai_native.solvers.statistics.sums import PathStatistics
from glai_native.structure.selector import PathSelector

# Unknowns beyond which cross-validation of the statistics takes minutes; l2 is then one of these shares of the mean
# diagonal, by the held-out samples.
GCV_UNKNOWNS = 2048
L2_SHARES = (1e-3, 1e-2, 1e-1)


def solve_statistics(
    selector: PathSelector,
    estimator: PathEstimator,
    split: Split,
    *,
    seed: int,
    progress: bool,
    options: dict[str, Any],
    process_group: dist.ProcessGroup | None = None,
) -> Solution:
    """Solve the sums and score them without the held-out samples, then take those in too. This is a :class:`Solve`."""
    train, held_out = split.train, split.held_out
    ranks = Ranks("fit", process_group)
    own = train.part(ranks.share(len(train)))
    with ranks.together():
        statistics = PathStatistics.like(estimator)
        statistics.structure_id = selector.structure_id
        statistics.fill(own.parts())
    if process_group is not None:
        all_reduce(statistics, process_group)
    solve: dict[str, Any] = {"l2": "gcv", "directions": estimator.directions, "progress": progress} | options

    def solved() -> PathEstimator:
        return statistics.solve(**solve).to(estimator.dtype)

    size = estimator.n_paths * (estimator.in_features + 1)
    if solve["l2"] == "gcv" and held_out is not None and size > GCV_UNKNOWNS:
        found = {}
        for share in L2_SHARES:
            solve["l2"] = share * statistics.mean_diagonal
            found[solve["l2"]] = mean_score(solved(), held_out)
        solve["l2"] = max(found, key=lambda l2: found[l2])
    solution = solved()
    scores = judge(solution, held_out)
    temperature = solution.temperature
    if held_out is not None and split.held_out_of_whole:
        statistics.add(held_out)
        solution = solved()
    solution.temperature = temperature
    return Solution(solution, scores, statistics)
