"""Sums of integer features over samples: learning, forgetting and merging leave the same bits, whatever came first."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from glai_native.data.counts import require_count
from glai_native.machine.inference import outside_inference_mode
from glai_native.machine.interrupts import uninterrupted
from glai_native.machine.memory import require_memory, unwritten_zeros
from glai_native.solvers.exact.accumulating import AccumulatedSums
from glai_native.solvers.exact.adding import IntegerSums, added, require_held, require_memory_of_sums
from glai_native.solvers.exact.aligning import joined, rearranged
from glai_native.solvers.exact.alike import require_alike, require_few
from glai_native.solvers.exact.changes import MOST_CHANGES, Changes
from glai_native.solvers.exact.deciding import DISCRIMINANTS
from glai_native.solvers.exact.digest import digest_of
from glai_native.solvers.exact.ledger import Ledger
from glai_native.solvers.exact.samples import Given, Ids, IntegerSamples
from glai_native.solvers.exact.solution import ExactSolution, solve_sums
from glai_native.solvers.exact.system import CONSTANT, FeatureSums
from glai_native.solvers.exact.targets import FixedPoint
from glai_native.structure.integer_features import IntegerFeatures


class IntegerStatistics(AccumulatedSums):
    """What the ridge solution over integer features needs of its samples, exact to the bit.

    All are sums of integers over samples: any order, cutting, merging, number of threads or machine gives the same
    bits, and samples that are taken out again leave no trace. :meth:`digest` tells whether two histories left the same
    samples. What has seen the first samples, the features' mean and scale, is not part of it.

    Source: the sufficient statistics of ridge regression over random features, as kept by RanPAC, arXiv 2307.02251,
    ACIL, arXiv 2205.14922, and AFL, arXiv 2405.16240, there in floating point.

    Args:
        features: the frozen map.
        out_features: C.
        targets: ``"classes"``: class indices; ``"values"``: numbers, kept in fixed point ``rint((y - centre) / step)``.
        step: of values, > 0, one or ``[C]``; None: a power of two chosen from the first targets, which leaves their
            distances from the centre 17 bits, and later ones room to be eight times as far.
        centre: what is taken off values before they are counted in steps, one or ``[C]``, with a ``step``; None: 0,
            or, where the first targets choose the step and are at least 32, their mean.
        per_class: also keep a gram matrix for each class, what class weights at solve time are made from; learning
            takes twice the time.
        ledger: keep a hash of each sample, of its target and its features as the sums have them, 7 bits each, so that
            taking out what was never there, or twice, is refused; samples that differ by less are the same to it.
        device: where the sums are kept.

    Attributes:
        n_samples: N, repetitions included.
        fixed_point: step and centre of values; None: targets are classes, or there have been none.
        state: a name of these sums, another one whenever they change.
        ledger: the hashes, or None.
        changes: the samples that came or went since :meth:`note_solved`; None: too many, or unknown.

    Raises:
        MemoryError: the gram matrix ``[M, M]``, or those of all classes, take more memory than there is.
    """

    @outside_inference_mode
    def __init__(
        self,
        features: IntegerFeatures,
        out_features: int,
        *,
        targets: str = "classes",
        step: float | Sequence[float] | Tensor | None = None,
        centre: float | Sequence[float] | Tensor | None = None,
        per_class: bool = False,
        ledger: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        owner = "IntegerStatistics"
        if not isinstance(features, IntegerFeatures):
            raise TypeError(f"{owner}: features must be IntegerFeatures, got {type(features).__name__}")
        if targets not in ("classes", "values"):
            raise ValueError(f"{owner}: targets must be 'classes' or 'values', got {targets!r}")
        for name, told in (("step", step), ("centre", centre)):
            if targets == "classes" and told is not None:
                raise ValueError(f"{owner}: {name} must be None where targets are classes, got {told}")
        if targets == "values" and per_class:
            raise ValueError(f"{owner}: per_class must be False where targets are values")
        n_outputs = require_count(owner, "out_features", out_features)
        self.features, self.targets = features, targets
        self.fixed_point = FixedPoint.told(owner, step, centre, n_outputs)
        self.n_samples, self.state = 0, uuid4().hex
        self.ledger = Ledger.empty() if ledger else None
        self.changes: Changes | None = None
        device, size = torch.device(device), features.n_features
        require_memory_of_sums(size, n_outputs, per_class, device)

        def zeros(*shape: int) -> Tensor:
            return unwritten_zeros(shape, torch.int64, device)

        self.gram, self.cross, self.counts = zeros(size, size), zeros(size, n_outputs), zeros(n_outputs)
        self.class_grams = zeros(n_outputs, size, size) if per_class else None
        self._squares = [0] * n_outputs if targets == "values" else []

    @property
    def out_features(self) -> int:
        """C."""
        return self.cross.shape[1]

    @property
    def n_features(self) -> int:
        """M."""
        return self.features.n_features

    @property
    def features_id(self) -> str:
        """Of the map whose features are summed."""
        return self.features.features_id

    @property
    def step(self) -> Tensor | None:
        """What values are whole numbers of, float64 ``[C]``; None: of nothing yet, or targets are classes."""
        return None if self.fixed_point is None else self.fixed_point.step

    @property
    def centre(self) -> Tensor | None:
        """What is taken off values first, float64 ``[C]``; None as for :attr:`step`."""
        return None if self.fixed_point is None else self.fixed_point.centre

    @property
    def squares(self) -> list[int]:
        """``sum_n t[n,c]²`` of each output, exact; of classes their counts."""
        return list(self._squares) if self.targets == "values" else [int(n) for n in self.counts.tolist()]

    @property
    def device(self) -> torch.device:
        """Where the sums are kept."""
        return self.gram.device

    def __repr__(self) -> str:
        sizes = f"N={self.n_samples:,}, M={self.n_features}, C={self.out_features}"
        return f"IntegerStatistics({sizes}, {self.targets}, features {self.features_id[:12]}…)"

    def update(
        self,
        x: Tensor | np.ndarray[Any, Any],
        targets: Tensor,
        sample_weight: Tensor | None = None,
        ids: Ids | None = None,
    ) -> None:
        """Add samples; thousands at a time, since every call reads and writes the whole gram matrix.

        What fails, or is interrupted, adds nothing.

        Args:
            x: raw ``[N, D]``, any real numbers, finite; read as float32.
            targets: class indices ``[N]`` in ``[0, C)``, or values ``[N, C]``.
            sample_weight: ``[N]``, integers >= 0, how often each counts; None: once.
            ids: ``[N]``, integers or texts, kept in the ledger; None: none.

        Raises:
            ValueError: by row (and column), what is not as said, or values beyond the range that step sets.
        """
        self._change("update", Given(x, targets, sample_weight, ids), 1)

    def update_features(
        self, phi: Tensor, targets: Tensor, sample_weight: Tensor | None = None, ids: Ids | None = None
    ) -> None:
        """Add samples that are mapped already: phi uint8 ``[N, M]``; as :meth:`update` else."""
        owner = "update_features"
        self._change(owner, Given(phi, targets, sample_weight, ids, mapped=True), 1)

    def downdate(
        self,
        x: Tensor | np.ndarray[Any, Any],
        targets: Tensor,
        sample_weight: Tensor | None = None,
        ids: Ids | None = None,
    ) -> None:
        """Take samples out again, given as they were to :meth:`update`; with ids, just those of these ids.

        Raises:
            ValueError: some are not there, or not so often: by row where there is a ledger, else so far as counts and
                sums show; nothing is taken out.
        """
        self._change("downdate", Given(x, targets, sample_weight, ids), -1)

    def downdate_features(
        self, phi: Tensor, targets: Tensor, sample_weight: Tensor | None = None, ids: Ids | None = None
    ) -> None:
        """Take out samples that are mapped already: phi uint8 ``[N, M]``; as :meth:`downdate` else."""
        owner = "downdate_features"
        self._change(owner, Given(phi, targets, sample_weight, ids, mapped=True), -1)

    @outside_inference_mode
    @torch.no_grad()
    def _change(self, owner: str, given: Given, sign: int) -> None:
        samples, point = given.checked(
            owner, self.features, self.targets, self.out_features, self.fixed_point
        )
        n_samples = self.n_samples + sign * samples.total
        if n_samples < 0:
            raise ValueError(
                f"{owner}: the samples must be among the {self.n_samples:,} that the statistics hold, got "
                f"{samples.total:,}"
            )
        require_few(owner, n_samples)
        known: dict[str, Any] = {"n_samples": n_samples, "ledger": self._ledger_after(owner, samples, sign)}
        known |= {"fixed_point": point, "changes": self._changes_after(samples, sign), "state": uuid4().hex}
        sums = self._sums()
        with added(sums, self._squares, samples, sign):
            if sign < 0:
                known_by_x = self.ledger is not None and samples.source.dtype != torch.uint8
                require_held(owner, sums, n_samples, known=known_by_x)
            after = self.__dict__ | known
            with uninterrupted():
                self.__dict__ = after

    def _ledger_after(self, owner: str, samples: IntegerSamples, sign: int) -> Ledger | None:
        if self.ledger is None:
            return None
        names = None if self.targets == "values" else self._labels or range(self.out_features)
        hashes, ids, rows = samples.entries(names)
        if sign > 0:
            return self.ledger.with_samples(hashes, ids)
        return self.ledger.without(owner, hashes, ids, rows)

    def _changes_after(self, samples: IntegerSamples, sign: int) -> Changes | None:
        if self.changes is None or len(self.changes) + len(samples.source) > MOST_CHANGES:
            return None
        weights = samples.repeats
        if weights is None:
            weights = torch.ones(len(samples.source), dtype=torch.int64, device="cpu")
        return self.changes.with_samples(samples.mapped(slice(None)), samples.targets, sign * weights)

    @property
    def _are_values(self) -> bool:
        return self.targets == "values"

    @property
    def _are_known_by_labels(self) -> bool:
        return self.ledger is not None and len(self.ledger) > 0

    @outside_inference_mode
    def note_solved(self) -> None:
        """Begin to keep the samples that come or go from now on, in :attr:`changes`."""
        self.changes = Changes.none(self.n_features, self.out_features if self.targets == "values" else None)

    def _sums(self) -> IntegerSums:
        return IntegerSums(self.gram, self.cross, self.counts, self.class_grams)

    def digest(self) -> str:
        """Return the SHA-256 of features_id, N and sums, 64 hexadecimal digits.

        Equal wherever the same samples are left, whatever the history, classes in any order: those without samples are
        no part of it. It proves that sums are equal, not that data were deleted elsewhere.
        """
        labels = self._labels if self.targets == "classes" else None
        return digest_of(
            self._sums(), self.n_samples, self.features_id, labels, self.fixed_point, self._squares
        )

    @outside_inference_mode
    def copy(self) -> Self:
        """Return the same sums, to go on separately."""
        kept = [each for each in self._sums() if each is not None]
        n_bytes = sum(each.numel() * 8 for each in kept)
        require_memory(
            "IntegerStatistics", "a second copy of the sums", n_bytes, self.device, "use fewer units"
        )
        copied = object.__new__(type(self))
        sums = {name: None if each is None else each.clone() for name, each in self._sums()._asdict().items()}
        copied.__dict__ = self.__dict__ | sums | {"_squares": list(self._squares)}
        return copied

    def feature_sums(self) -> FeatureSums:
        """Return what solving takes."""
        squares = list(self._squares) if self.targets == "values" else None
        return FeatureSums(
            self.gram, self.cross, self.n_samples, self.features.n_units, squares, self.class_grams
        )

    @torch.no_grad()
    def solve(
        self,
        l2: float | str = "gcv",
        *,
        class_weight: Tensor | str | None = None,
        held_out: IntegerStatistics | None = None,
        decision: str = DISCRIMINANTS,
    ) -> ExactSolution:
        """Return the weights of least squares with a penalty, in float64: of values in their units, not in steps.

        Of classes they are turned into discriminants, whose largest tells the class.

        Args:
            l2: the penalty, >= 0; ``"gcv"``: by generalised cross-validation, of classes a share of that, which grows
                with features over samples; ``"held-out"``: by samples held out.
            class_weight: what a sample of each class weighs, ``[C]``, or ``"balanced"``; needs ``per_class=True``.
            held_out: with ``"held-out"``, statistics of the samples, among these, that are held out.
            decision: ``"least squares"``: of classes, too, the weights whose scores are nearest to 0 and 1.

        Raises:
            SingularSystem: a ValueError: no samples, or the penalty is too small for a unique solution.
        """
        held = None if held_out is None else held_out.feature_sums()
        solution = solve_sums(
            self.feature_sums(), l2, class_weight=class_weight, held_out=held, decision=decision
        )
        if self.fixed_point is None:
            return solution
        weight = solution.weight * self.fixed_point.step.to(self.device)
        weight[-1] += self.fixed_point.centre.to(self.device) / CONSTANT
        return replace(solution, weight=weight, base=None)

    def emptied(self) -> Self:
        """Return statistics of the same kind that hold no samples."""
        made = type(self)(
            self.features,
            self.out_features,
            targets=self.targets,
            step=self.step,
            centre=self.centre,
            per_class=self.class_grams is not None,
            ledger=self.ledger is not None,
            device=self.device,
        )
        made.take_outputs(self)
        return made

    def __copy__(self) -> Self:
        return self.copy()

    @outside_inference_mode
    def merge(self, other: IntegerStatistics) -> Self:
        """Add the samples of ``other``; return self. Classes are aligned by label where they have labels.

        Samples that both ledgers hold count twice from then on: a warning names them, and :meth:`shared_with` lists
        them beforehand.

        Raises:
            ValueError: another map, other kinds of targets, steps, centres or labels, or one of them has no ledger.
        """
        point = require_alike("merge", self, other)
        if self.n_samples and self.ledger is None and other.ledger is not None:
            raise ValueError(
                "merge: other must have been made with ledger=False like these statistics, whose samples its ledger "
                "would not know"
            )
        labels, *places = joined(self._labels, other._labels, (self.out_features, other.out_features))
        own, more = (
            rearranged(each, at) for each, at in zip((self._sums(), other._sums()), places, strict=True)
        )
        ledger = self.ledger
        if self.ledger is not None and other.ledger is not None:
            shared = self.ledger.shared_with(other.ledger)
            ledger = self.ledger.united(other.ledger)
            if len(shared):
                warnings.warn(
                    f"merge: {len(shared):,} samples are, to 7 bits, in both statistics and count twice now: "
                    f"{shared.shown()}",
                    stacklevel=3,  # the caller of what is decorated
                )
        known: dict[str, Any] = own._asdict() | {
            "n_samples": self.n_samples + other.n_samples,
            "ledger": ledger,
            "fixed_point": point,
            "changes": None if other.n_samples else self.changes,
            "state": uuid4().hex,
            "_labels": None if labels is None else tuple(labels),
            "_squares": [a + b for a, b in zip(self._squares, other._squares, strict=True)],
        }
        after = self.__dict__ | known
        pairs = zip(own, more, strict=True) if other.n_samples else ()
        parts = [(a, b.to(a.device)) for a, b in pairs if a is not None and b is not None]
        with uninterrupted():
            for total, part in parts:
                total.add_(part)
            self.__dict__ = after
        return self

    def __add__(self, other: IntegerStatistics) -> Self:
        return self.copy().merge(other)

    def shared_with(self, other: IntegerStatistics) -> Ledger:
        """Return the samples that the ledgers of both hold, with the ids that this one has for them."""
        if self.ledger is None or other.ledger is None:
            raise ValueError("shared_with: both statistics must have a ledger")
        return self.ledger.shared_with(other.ledger)
