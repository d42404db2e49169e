"""Outputs of integer sums are brought to one order here, by the labels of their classes, before sums are added up."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from uuid import uuid4

import torch
from torch import Tensor

from glai_native.data.counts import require_count
from glai_native.data.labels import Label, joined_labels, listed_labels, require_same_type
from glai_native.estimator.outputs import Outputs, require_order
from glai_native.machine.inference import outside_inference_mode
from glai_native.solvers.exact.adding import IntegerSums


def rearranged(sums: IntegerSums, places: Sequence[int]) -> IntegerSums:
    """Return sums whose output i is what output ``places[i]`` was, and zero where that is -1; the gram is the same."""
    if list(places) == list(range(sums.cross.shape[1])):
        return sums
    order = torch.tensor(places, dtype=torch.int64, device=sums.cross.device)
    grams = None if sums.class_grams is None else _taken(sums.class_grams, order, 0)
    return IntegerSums(sums.gram, _taken(sums.cross, order, 1), _taken(sums.counts, order, 0), grams)


def _taken(sums: Tensor, order: Tensor, dim: int) -> Tensor:
    taken = sums.index_select(dim, order.clamp(min=0))
    return taken.index_fill_(dim, (order < 0).nonzero().squeeze(1), 0)


def joined(
    mine: Sequence[Label] | None, theirs: Sequence[Label] | None, sizes: tuple[int, int]
) -> tuple[list[Label] | None, list[int], list[int]]:
    """Return the labels of both, sorted, and for each where either has it, -1 where it has not.

    Raises:
        ValueError: one has labels and the other none, they are of two types, or without labels they are not as many.
    """
    if (mine is None) != (theirs is None):
        known, text = (mine, "other") if theirs is None else (theirs, "these statistics")
        raise ValueError(
            f"merge: both must have class labels, or none, got none in {text} and {listed_labels(known or ())} in the "
            "other; set class_labels"
        )
    if mine is None or theirs is None:
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"merge: other must be of C={sizes[0]} outputs like these statistics, got C={sizes[1]}; "
                "add_outputs(k) adds classes"
            )
        return None, list(range(sizes[0])), list(range(sizes[0]))
    require_same_type("merge", mine, theirs, "other", "the labels here")
    labels = list(mine) if list(mine) == list(theirs) else joined_labels(mine, theirs)
    places = [{label: i for i, label in enumerate(own)} for own in (mine, theirs)]
    first, second = ([place.get(label, -1) for label in labels] for place in places)
    return labels, first, second


class LabelledSums(Outputs):
    """Integer sums whose outputs are classes, with labels or without, or values."""

    @property
    def class_labels(self) -> list[Label] | None:
        """What the data call class 0, 1, ...; None where outputs have no names.

        Set before samples come: a ledger knows them by their labels.

        Raises:
            ValueError: set to what are not C different labels of one type, or while the ledger holds samples.
        """
        return Outputs.class_labels.fget(self)  # type: ignore[attr-defined, no-any-return]

    @class_labels.setter
    def class_labels(self, labels: Iterable[Label] | None) -> None:
        before = self._labels
        Outputs.class_labels.fset(self, labels)  # type: ignore[attr-defined]
        if self._labels != before and self._are_known_by_labels:
            self._labels = before
            raise ValueError(
                "IntegerStatistics: class_labels must be set before samples are learnt, since the ledger knows these "
                "by them; or keep no ledger"
            )

    labels = class_labels

    @outside_inference_mode
    def add_outputs(self, k: int, labels: Sequence[Label] | None = None) -> None:
        """Add k classes, with labels where the others have some: the samples so far have target 0 there."""
        k = require_count("add_outputs", "k", k)
        if self._are_values:
            raise ValueError("add_outputs: outputs must be classes, and these are values")
        known = self._labels_of_added("add_outputs", k, labels)
        wider = rearranged(self._sums(), [*range(self.out_features), *[-1] * k])
        self._become(wider, None if known is None else tuple(known))

    def _append_outputs(self, labels: Sequence[Label], seed: int) -> None:
        self.add_outputs(len(labels), labels)

    @outside_inference_mode
    def permute_outputs(self, order: Tensor) -> None:
        """Make output i what output ``order[i]`` (int64 ``[C]``) was."""
        require_order("permute_outputs", order, self.out_features)
        if self._are_values:
            raise ValueError("permute_outputs: outputs must be classes, and these are values")
        places = order.tolist()
        labels = None if self._labels is None else tuple(self._labels[i] for i in places)
        self._become(rearranged(self._sums(), places), labels)

    def _become(self, sums: IntegerSums, labels: tuple[Label, ...] | None) -> None:
        """Take sums of other outputs over, in one step."""
        self.__dict__ = (
            self.__dict__ | sums._asdict() | {"_labels": labels, "changes": None, "state": uuid4().hex}
        )

    @abstractmethod
    def _sums(self) -> IntegerSums: ...

    @property
    @abstractmethod
    def _are_values(self) -> bool: ...

    @property
    @abstractmethod
    def _are_known_by_labels(self) -> bool: ...
