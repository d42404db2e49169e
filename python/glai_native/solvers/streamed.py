"""Samples that need not fit in memory: of those of a frozen structure a window is there at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import starmap

import torch
from torch import Tensor

from glai_native.data.canonical import count_repeats
from glai_native.data.checks import require_finite, require_sample_weight, require_targets
from glai_native.data.stored_rows import StoredRows, Window
from glai_native.machine.memory import give_back_freed
from glai_native.solvers.samples import Samples
from glai_native.structure.selector import PathSelector

Form = Callable[[Samples], Samples]


@dataclass(frozen=True)
class StreamedSamples:
    """N samples of a frozen structure, of which targets are in memory and features where they are stored.

    What solvers do with :class:`Samples` they do with these, a window at a time. Equal samples are not joined.

    Attributes:
        owner: named in the errors.
        selector: the structure.
        x: raw features of N rows.
        y: int64 class indices ``[N]``, or values ``[N, C]``.
        n_outputs: C.
        weight: ``[N]``, > 0; None: 1 for each.
        repeats: for how many samples each counts, int64 ``[N]`` (:func:`count_repeats`); None: for one.
        form: in which a window is given; None: as :class:`Samples` of raw data are.
    """

    owner: str
    selector: PathSelector
    x: StoredRows
    y: Tensor
    n_outputs: int
    weight: Tensor | None = None
    repeats: Tensor | None = None
    form: Form | None = None

    @classmethod
    def of_raw(
        cls,
        owner: str,
        selector: PathSelector,
        x: StoredRows,
        y: Tensor,
        n_outputs: int,
        weight: Tensor | None = None,
    ) -> StreamedSamples:
        """Check all but the features, of which a window is checked when it is read.

        Raises:
            ValueError: data that do not fit each other or the structure; ``owner`` is named in the error.
        """
        n, d = len(x), selector.projection.in_features
        if x.n_features != d:
            raise ValueError(f"{owner}: x must be [N, D={d}], got {[n, x.n_features]}")
        weight = require_sample_weight(owner, weight, n)
        if weight is not None and not bool(weight.all()) and isinstance(y, Tensor) and y.shape[:1] == (n,):
            kept = weight > 0  # what weighs nothing may be of any class
            if not bool(kept.any()):
                raise ValueError(f"{owner}: sample_weight must be > 0 for at least one sample, got none")
            x, y, weight = x.part(kept.nonzero().squeeze(1).numpy()), y[kept], weight[kept]
        y = require_targets(owner, y, len(x), n_outputs, "y")
        return cls(owner, selector, x, y, n_outputs, weight, count_repeats(weight))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Tensor | slice) -> Samples:
        """Return the samples that a slice or an int64 tensor in increasing order selects, in memory."""
        part = self.part(rows)
        return part._samples(slice(None), part.x.read(slice(None)))

    def part(self, rows: Tensor | slice) -> StreamedSamples:
        """Return the same of some samples, whose features stay where they are."""
        x = self.x.part(rows if isinstance(rows, slice) else rows.numpy())
        weight, repeats = (None if each is None else each[rows] for each in (self.weight, self.repeats))
        return replace(self, x=x, y=self.y[rows], weight=weight, repeats=repeats)

    def weighted(self, weight: Tensor | None) -> StreamedSamples:
        """Return the same samples of other weights ``[N]``."""
        return replace(self, weight=weight)

    def formed(self, form: Form) -> StreamedSamples:
        """Return samples whose windows come in a form, of that in which they come now."""
        inner = self.form
        return replace(self, form=form if inner is None else lambda samples: form(inner(samples)))

    def units(self) -> StreamedSamples:
        """Return the same samples for an estimator of units."""
        return self.formed(Samples.units)

    def always_on(self) -> StreamedSamples:
        """Return the same samples with one path, which is always on."""
        return self.formed(Samples.always_on)

    @property
    def has_values(self) -> bool:
        """Whether the targets are values, not class indices."""
        return self.y.is_floating_point()

    @property
    def classes(self) -> Tensor | None:
        """The class indices ``[N]``; None where the targets are values."""
        return None if self.has_values else self.y

    @property
    def count(self) -> int:
        """How many samples they stand for."""
        return len(self) if self.repeats is None else int(self.repeats.sum())

    @property
    def device(self) -> torch.device:
        """Where the samples are used."""
        return self.y.device

    def parts(self) -> Iterator[Samples]:
        """Yield all samples, a window at a time, in the order in which they are stored."""
        yield from starmap(self._samples, self.x.parts())

    def windows(
        self, generator: torch.Generator, multiple: int, passes: int = 1
    ) -> Iterator[tuple[Samples, Tensor]]:
        """Yield all samples, each window with an order of its samples (:meth:`StoredRows.windows`)."""

        def samples(window: Window) -> tuple[Samples, Tensor]:
            return self._samples(window.rows, window.x), window.order

        yield from map(samples, self.x.windows(generator, multiple, passes))

    def _samples(self, rows: Tensor | slice, x: Tensor) -> Samples:
        """Return samples, by their place here, of features that were read."""
        give_back_freed()  # of the window before
        z = self.selector.project(x)
        require_finite(self.owner, "x", z)
        weight, repeats = (None if each is None else each[rows] for each in (self.weight, self.repeats))
        samples = Samples.of_canonical(self.selector, z, self.y[rows], self.n_outputs, weight, repeats)
        return samples if self.form is None else self.form(samples)
