"""Outputs are added to statistics, and put in another order: columns of the sums with the targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Self

import torch
from torch import Tensor

from glai_native.data.counts import require_count
from glai_native.data.labels import Label
from glai_native.estimator.outputs import require_order
from glai_native.solvers.statistics.sharing import SharedSums


class SumsByOutput(SharedSums):
    """Sums of which those with the targets have a column for each output.

    The Gram matrix has none, and no change of outputs touches it.
    """

    _rhs: Tensor
    _squares: Tensor
    on_counts: Tensor

    def add_outputs(self, k: int, labels: Sequence[Label] | None = None) -> None:
        """Add k classes, with labels where the others have some: the samples so far have target 0 there."""
        k = require_count("add_outputs", "k", k)
        known = self._labels_of_added("add_outputs", k, labels)
        wider = self._by_column(lambda sums: torch.cat([sums, sums.new_zeros((*sums.shape[:-1], k))], dim=-1))
        wider._labels = None if known is None else tuple(known)
        wider._scaling_of_added(k)
        self.become(wider)

    def _by_column(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return statistics whose sums over each output, the last dimension, are changed."""
        changed, sums = copy(self), (self._rhs, self._squares, self.on_counts)
        changed._rhs, changed._squares, changed.on_counts = (change(each) for each in sums)
        return changed

    def _append_outputs(self, labels: Sequence[Label], seed: int) -> None:
        self.add_outputs(len(labels), labels)

    def permute_outputs(self, order: Tensor) -> None:
        """Make output i what output ``order[i]`` (int64 ``[C]``) was; the sums become tensors of their own."""
        require_order("permute_outputs", order, self.out_features)
        order = order.to(self.device)
        permuted = self._by_column(lambda sums: sums[..., order].contiguous())
        permuted._permute_meaning(order)
        self.become(permuted)
