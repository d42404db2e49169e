"""The solution of sums as they are, whatever came or went since it was asked for last."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from glai_native.solvers.exact.resolving import keeps_penalty, rows_worth, solve_again
from glai_native.solvers.exact.solution import ExactSolution, solve_sums
from glai_native.solvers.exact.sums import IntegerStatistics

Told = tuple[float | str, Any]


class CurrentSolution:
    """The solution of statistics, solved when it is asked for, and brought up to date while few samples changed.

    It begins to note the changes of the statistics, which nobody else must then begin anew.

    Args:
        statistics: that it is the solution of.
    """

    def __init__(self, statistics: IntegerStatistics) -> None:
        self.statistics = statistics
        # Of the sums of that name, and the one that was solved for last, which changes are told from.
        self._now: tuple[ExactSolution, Told, str] | None = None
        self._solved: tuple[ExactSolution, Told] | None = None

    def known(self, l2: float | str, class_weight: Tensor | str | None = None) -> ExactSolution | None:
        """Return the solution where it need not be solved for: of the sums as they are, and told the same."""
        if self._now is None or self._now[1:] != (_told(l2, class_weight), self.statistics.state):
            return None
        return self._now[0]

    def take(self, solution: ExactSolution, l2: float | str, class_weight: Tensor | str | None) -> None:
        """Take over a solution of these very sums."""
        self._now = (solution, _told(l2, class_weight), self.statistics.state)

    def of(
        self,
        l2: float | str,
        class_weight: Tensor | str | None = None,
        held_out: IntegerStatistics | None = None,
    ) -> ExactSolution:
        """Return the solution; arguments and errors as :meth:`IntegerStatistics.solve`, values in steps."""
        told, found = _told(l2, class_weight), self.known(l2, class_weight)
        if found is None:
            self._now = None
            found = self._brought_up_to_date(told) or self._solved_anew(l2, class_weight, held_out)
            self._now = (found, told, self.statistics.state)
        return found

    def _brought_up_to_date(self, told: Told) -> ExactSolution | None:
        changes = self.statistics.changes
        if self._solved is None or self._solved[1] != told or changes is None:
            return None
        solution = self._solved[0]
        if len(changes) > rows_worth(self.statistics.n_features - 1):
            return None
        if isinstance(told[0], str) and not keeps_penalty(solution, self.statistics.n_samples):
            return None
        return solve_again(solution, changes.features, changes.targets, changes.weights)

    def _solved_anew(
        self, l2: float | str, class_weight: Tensor | str | None, held_out: IntegerStatistics | None
    ) -> ExactSolution:
        self._solved = None  # its factor makes room for the next
        held = None if held_out is None else held_out.feature_sums()
        sums = self.statistics.feature_sums()
        solution = solve_sums(sums, l2, class_weight=class_weight, held_out=held)
        self._solved = None if solution.base is None else (solution, _told(l2, class_weight))
        self.statistics.note_solved()
        return solution

    def __getstate__(self) -> dict[str, Any]:
        """Leave the factor behind, which is as large as the sums and is made again."""
        state = self.__dict__ | {"_solved": None}
        if self._now is not None:
            state["_now"] = (self._now[0].without_base(), *self._now[1:])
        return state


def _told(l2: float | str, class_weight: Tensor | str | None) -> Told:
    """Return what a solution depends on beside the sums."""
    return l2, tuple(class_weight.tolist()) if isinstance(class_weight, Tensor) else class_weight
