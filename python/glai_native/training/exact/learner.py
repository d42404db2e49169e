"""What the exact classifier and regressor share stands here."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from copy import copy
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from glai_native.data.arrays import array_tensor
from glai_native.data.chunks import of_chunk
from glai_native.machine.inference import outside_inference_mode
from glai_native.solvers.exact.chunks import Chunk
from glai_native.solvers.exact.current import CurrentSolution
from glai_native.solvers.exact.ledger import Ledger
from glai_native.solvers.exact.samples import read_repeats
from glai_native.solvers.exact.solution import ExactSolution, require_l2
from glai_native.solvers.exact.sums import IntegerStatistics
from glai_native.training.exact.beginning import BeginningLearner, Part, Structure
from glai_native.training.exact.chunked import (
    ROWS,
    Samples,
    chunks_of,
    comes_in_chunks,
    opened,
    without_gates,
)
from glai_native.training.exact.holding_out import held_out_labels, held_out_rows
from glai_native.training.exact.telling import Encoder, in_words_of, warn_of_ids, warn_of_ids_of_chunks
from glai_native.training.learners.weighting import read_weight

SCORED_ROWS = 1024  # of x that are mapped at a time


class ExactLearner(BeginningLearner):
    """What classifier and regressor share.

    The model is linear on integer features (:class:`~glai_native.IntegerFeatures`), by ridge regression of integer sums
    over samples: any order of learning, forgetting and merging that leaves the same samples leaves the same sums, to
    the bit, as :meth:`digest` shows. Whoever predicts gets the solution of the sums as they are. After few samples
    (:func:`~glai_native.solvers.exact.resolving.rows_worth`) it is brought up to date at the penalty that there was,
    equal to a solution anew but for rounding; the penalty is chosen anew when N has changed by a tenth.

    The first samples given to ``fit`` or ``partial_fit`` settle the features' mean and scale, and the units where they
    are trained. ``forget`` does not take that back.

    Args:
        n_units: of the random layer, or of the trained one.
        structure: ``"random"``: units drawn by a seed; ``"covariance"``: half follow the covariance of the first
            samples, which pays on pictures; ``"trained"``: those of a network of one hidden layer that is trained for
            three epochs on them; or :class:`~glai_native.IntegerFeatures`, such as another model's ``features_``, which
            makes the two ones that can be merged (of values, told the same ``step`` and ``centre``). ``"auto"``: random
            units, unless ``fit`` is given 1,000 samples or more, and units that are trained on four fifths of up to
            20,000 of them are better than random ones on the other fifth, by more than the standard error. What
            ``partial_fit`` and ``begin`` see first need not be like what comes later, nor an iterator's first chunk:
            units are random there.
        l2: penalty of the weights, a number >= 0; ``"gcv"``: by generalised cross-validation, from the sums alone; or
            ``"held-out"``: of seventeen, the one that errs least on about a fifth of the samples, which their own
            content picks and whose sums are also kept apart, at twice the memory.
        ledger: keep a hash of each sample, of its target and its features as the sums have them, 7 bits each, so that
            forgetting what was never learnt, or twice, is refused; samples that differ by less are the same to it.
        scale: ``"global"``: features are scaled by one number; ``"features"``: by one each; ``"auto"``: by one, unless
            it would lose some to rounding, as those of a table in units of their own.
        random_state: seed of all that is drawn, an int, a RandomState, or None for NumPy's global one.
        verbose: progress bars.

    Attributes:
        features_: the frozen map.
        structure_reason_: why its units are those, in words.
        statistics_: the sums.
        n_samples_: N, repetitions included.
        l2_: the penalty of the solution.
        condition_: of the solution's system, estimated.
    """

    ledger: bool

    @outside_inference_mode
    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: ArrayLike | None = None,
        ids: ArrayLike | None = None,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        save_seconds: float = 60.0,
    ) -> Self:
        """Learn X ``[N, features]`` and y, and nothing that was learnt before.

        Args:
            X: features; or a path to an .npz of ``x`` and ``y``, with ``id`` where samples have ids; or, for data that
                do not fit in memory, a memory map or a path to an .npy; or an iterator of chunks ``(x, y)``, ``(x, y,
                sample_weight)`` or ``(x, y, sample_weight, ids)``. Of chunks the first 16,384 rows, or the iterator's
                first chunk, settle the features; all of them, which are then read twice, where ``structure="auto"``
                and they are no iterator's. Or a :class:`~glai_native.GateDataset` of x and y, whose gates are not read.
            y: labels ``[N]`` of one type, or values ``[N]`` or ``[N, C]``; or a path to an .npy of them; None where X
                has them.
            sample_weight: ``[N]``, integers >= 0: how often a sample counts.
            ids: ``[N]``, integers or texts by which samples can be forgotten; kept in the ledger. It is warned of those
                that are in use already.
            checkpoint: of data in chunks, a file that the sums so far are saved to; after a kill the same call goes on
                from there, to the same digest.
            save_seconds: between two saves.
        """
        with self._whole_or_unchanged():
            for name in ("statistics_", "preparation"):
                self.__dict__.pop(name, None)
            self._learn(Samples(X, y, sample_weight, ids), None, checkpoint, save_seconds, all_there=True)
        return self

    @outside_inference_mode
    def begin(self, X: ArrayLike, y: ArrayLike, *, all_there: bool = False) -> Self:
        """Settle features, classes and step by X ``[N, features]`` and y as :meth:`fit` does, and learn none of them.

        Processes that have begun alike each ``partial_fit`` their share, and
        :func:`glai_native.distributed.all_reduce` sums their ``statistics_`` to those of one process.

        Args:
            X: samples.
            y: their targets.
            all_there: they are all that will be learnt: ``structure="auto"`` compares units by them, as ``fit`` does,
                and otherwise takes random ones. Trained units can differ in their last bit between machines of
                different kinds: there one process begins, and hands its ``features_`` to the others.
        """
        with self._whole_or_unchanged():
            for name in ("statistics_", "preparation"):
                self.__dict__.pop(name, None)
            x, found = self._validated_pair(X, y, reset=True)
            self._begin_chunks(x, found, None, self._structure([(x, found, None)] if all_there else None))
        return self

    @outside_inference_mode
    def partial_fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: ArrayLike | None = None,
        ids: ArrayLike | None = None,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        save_seconds: float = 60.0,
    ) -> Self:
        """Learn more samples, arguments as :meth:`fit`."""
        with self._whole_or_unchanged():
            self._learn(Samples(X, y, sample_weight, ids), None, checkpoint, save_seconds)
        return self

    @outside_inference_mode
    def forget(
        self,
        X: ArrayLike,
        y: ArrayLike,
        ids: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Take samples out again, given as they were learnt; with ids, just those of these ids.

        What is left is, to the bit, what never learning them would have left. What mean, scale and a trained structure
        have seen of them stays.

        Raises:
            ValueError: some are not there, or not so often, by row where there is a ledger; nothing changes.
        """
        check_is_fitted(self)
        x, found = self._validated_pair(X, y, reset=False)
        with in_words_of(type(self).__name__):
            self._change(-1, x, self._targets(found), self._weight(sample_weight, len(x)), ids)
        return self

    def _learn(
        self,
        samples: Samples,
        classes: Any,
        checkpoint: str | os.PathLike[str] | None,
        save_seconds: float,
        all_there: bool = False,
    ) -> None:
        first, owner = not self.__sklearn_is_fitted__(), type(self).__name__
        require_l2(owner, self.l2)
        samples = without_gates(owner, samples)
        if not comes_in_chunks(samples.x, samples.y):
            x, y = self._validated_pair(samples.x, samples.y, reset=first)
            weight = self._weight(samples.sample_weight, len(x))
            structure = self._structure([(x, y, weight)] if all_there else None) if first else None
            before = Ledger.empty() if first else self.statistics_.ledger
            with in_words_of(owner):
                self._learn_whole(x, y, weight, samples.ids, classes, structure)
            warn_of_ids(owner, before, samples.ids if self.statistics_.ledger is not None else None, weight)
            return
        if classes is not None:
            raise ValueError(f"{owner}: classes must be None for data in chunks, got {classes!r:.80}")
        if self.l2 == "held-out":
            raise ValueError(f"{owner}: l2 must be a number or 'gcv' for data in chunks, got 'held-out'")
        data, chunk, number = opened(owner, *samples)
        if first:
            again = all_there and not hasattr(samples.x, "__next__")
            structure = self._structure(self._parts(owner, samples) if again else None)
            with of_chunk(owner, number, None if hasattr(samples.x, "__next__") else 0):
                self._begin_with(chunk, structure)
        del chunk  # which the data hold too
        self._accumulate(data, samples, checkpoint, save_seconds)

    def _begin_with(self, chunk: Chunk, structure: Structure) -> None:
        x, y = self._validated_pair(chunk.x, chunk.targets, reset=True)
        weight = self._weight(chunk.sample_weight, len(x))
        if weight is not None and not weight.any():
            raise ValueError(
                f"{type(self).__name__}: sample_weight must be > 0 for at least one of the first {len(x):,} samples, "
                "which settle how targets are counted, got zero for all"
            )
        self._begin_chunks(x, y, weight, structure)

    def _parts(self, owner: str, samples: Samples) -> Iterator[Part]:
        """Yield all samples of data that can be read again, as :meth:`_structure` takes them."""
        for number, chunk in enumerate(chunks_of(owner, samples)):
            with of_chunk(owner, number, number * ROWS):
                x, y = self._validated_pair(chunk.x, chunk.targets, reset=not number)
                weight = self._weight(chunk.sample_weight, len(x))
            yield x, y, weight

    def _validated_pair(self, X: Any, y: Any, *, reset: bool) -> tuple[NDArray[np.float32], Any]:
        """Return X float32 ``[N, D]``, and y as scikit-learn has it; once fitted, with ``reset=False``."""
        raise NotImplementedError

    def _targets(self, y: Any) -> Tensor:
        """Return y as the sums take it; raise where it holds classes that they do not know."""
        raise NotImplementedError

    def _learn_whole(
        self,
        x: NDArray[np.float32],
        y: Any,
        weight: NDArray[np.float64] | None,
        ids: Any,
        classes: Any,
        structure: Structure | None,
    ) -> None:
        """Add samples in memory, the first, which come with a structure, or more of them."""
        raise NotImplementedError

    def _begin_chunks(
        self, x: NDArray[np.float32], y: Any, weight: NDArray[np.float64] | None, structure: Structure
    ) -> None:
        """Make statistics without samples, of features that the first chunk settles."""
        raise NotImplementedError

    def _validated(self, X: ArrayLike, *y: ArrayLike, reset: bool = True, **options: Any) -> Any:
        """Return X, and y with it, as :meth:`_read` does; X float32 ``[N, D]``."""
        x, *targets = self._read(X, *y, reset=reset, **options)
        owner = type(self).__name__
        if x.dtype == np.float64 and reset:
            warnings.warn(
                f"{owner}: X is read as float32, which loses much of a column beside its mean; subtract that first",
                stacklevel=6,
            )
        x = x.astype(np.float32, copy=False)
        return (x, *targets) if y else x

    def __sklearn_is_fitted__(self) -> bool:
        return "statistics_" in self.__dict__

    def _weight(self, sample_weight: ArrayLike | None, n: int) -> NDArray[np.float64] | None:
        """Return weights float64 ``[N]``; raise, by row, unless they are integers."""
        weight = None if sample_weight is None else read_weight(type(self).__name__, sample_weight, n)
        read_repeats(type(self).__name__, weight, n)
        return weight

    def _begin(self, statistics: IntegerStatistics, held_out: IntegerStatistics | None = None) -> None:
        self.features_, self.statistics_, self._held_out = statistics.features, statistics, held_out
        self._current = CurrentSolution(statistics)

    def _change(
        self,
        sign: int,
        x: NDArray[np.float32],
        targets: Tensor,
        weight: NDArray[np.float64] | None,
        ids: Any,
    ) -> None:
        """Add samples to the sums, or take them out: all of it, or nothing."""
        samples, sums = array_tensor(x), self.statistics_
        repeats = None if weight is None else torch.from_numpy(weight)
        if self.l2 == "held-out" and self._held_out is None and sums.n_samples:
            raise ValueError(
                f"{type(self).__name__}: l2='held-out' must be told before the first samples; fit learns anew"
            )
        ledger = sums.ledger
        (sums.update if sign > 0 else sums.downdate)(samples, targets, repeats, ids)
        if self.l2 != "held-out" and self._held_out is None:
            return
        try:
            self._held_out = self._held_out_after(sign, samples, targets, repeats)
        except BaseException:
            (sums.downdate if sign > 0 else sums.update)(samples, targets, repeats, ids)
            sums.ledger = ledger  # with ids of what was to go, which the caller need not have given
            raise

    def _accumulate(
        self,
        data: Any,
        samples: Samples,
        checkpoint: str | os.PathLike[str] | None,
        save_seconds: float,
    ) -> None:
        """Add samples that come in chunks to the sums: all of them, or none."""
        owner, before, encode = type(self).__name__, self.statistics_.ledger, Encoder(self._encoded)
        with in_words_of(owner):
            self.statistics_.accumulate(
                data,
                *samples[1:],
                encode=encode,
                chunk=ROWS,
                checkpoint=checkpoint,
                save_seconds=save_seconds,
                progress=self.verbose,
            )
        warn_of_ids_of_chunks(owner, before, self.statistics_.ledger, encode.added)
        self._held_out = None  # of a penalty told before: these samples are not in it, and may be forgotten

    def _encoded(self, statistics: IntegerStatistics, y: Any, sample_weight: Any) -> Tensor:
        """Return targets as statistics take them, from those of a chunk; classes that are new join the statistics."""
        raise NotImplementedError

    def _held_out_after(
        self, sign: int, samples: Tensor, targets: Tensor, repeats: Tensor | None
    ) -> IntegerStatistics:
        """Return the sums over held-out samples once these have come, or gone."""
        sums, held_out = self.statistics_, self._held_out
        if held_out is None:
            held_out = sums.emptied()
            held_out.ledger = None  # the whole one's ledger tells what is there
        added = held_out_labels(sums, held_out)
        if added:
            held_out.add_outputs(len(added), added)
        rows = held_out_rows(self.features_, samples)
        change = held_out.update if sign > 0 else held_out.downdate
        change(samples[rows], targets[rows], None if repeats is None else repeats[rows])
        return held_out

    def merge(self, other: Self) -> Self:
        """Return a new model of the samples of both, which stay as they are; it is told what this one was.

        Raises:
            ValueError: they do not have the same features (``structure=other.features_`` makes it so), or sums that do
                not add up.
        """
        owner = type(self).__name__
        if type(other) is not type(self):
            raise TypeError(f"{owner}.merge: other must be of {owner}, got {type(other).__name__}")
        check_is_fitted(self)
        check_is_fitted(other)
        merged = copy(self)
        held_out = None
        if self._held_out is not None and other._held_out is not None:
            held_out = self._held_out + other._held_out
        merged._begin(self.statistics_ + other.statistics_, held_out)
        return merged

    def __add__(self, other: Self) -> Self:
        return self.merge(other)

    def digest(self) -> str:
        """Return the SHA-256 of features and sums, 64 hexadecimal digits: equal where the same samples are left.

        It proves that sums are equal, not that data were deleted elsewhere.
        """
        check_is_fitted(self)
        return self.statistics_.digest()

    @property
    def n_samples_(self) -> int:
        """N, repetitions included."""
        return self._sums().n_samples

    @property
    def l2_(self) -> float:
        """The penalty of the solution."""
        return self.solution().l2

    @property
    def condition_(self) -> float:
        """The condition of the solution's system, estimated."""
        return self.solution().condition

    def solution(self) -> ExactSolution:
        """Return the solution of the sums as they are; targets are classes, or values in the sums' steps."""
        if self._sums().n_samples == 0:
            raise ValueError(
                f"{type(self).__name__}: the model must hold samples, got none: all were forgotten; partial_fit, or "
                "glai learn, learns others"
            )
        with in_words_of(type(self).__name__):
            return self._current.of(self.l2, self._class_weight(), self._held_out)

    def _sums(self) -> IntegerStatistics:
        if "statistics_" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__}: it must be fitted first")
        return self.statistics_

    def _class_weight(self) -> Tensor | str | None:
        return None

    def _scores(self, X: ArrayLike, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the solution's scores ``[N, C]``."""
        check_is_fitted(self)
        x = array_tensor(self._validated(X, reset=False))
        solution = self.solution()
        scores = torch.empty((len(x), solution.weight.shape[1]), dtype=dtype, device="cpu")
        for part, rows in zip(x.split(SCORED_ROWS), scores.split(SCORED_ROWS), strict=True):
            rows.copy_(solution.scores(self.features_.transform(part), dtype))
        return scores
