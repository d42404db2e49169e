"""Samples that need not fit in memory are read a window at a time, from blocks all over the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glai_native.data.canonical import count_repeats
from glai_native.data.checks import require_finite, require_sample_weight, require_targets
from glai_native.data.stored_rows import StoredRows
from glai_native.machine.ahead import read_ahead
from glai_native.solvers.samples import Samples
from glai_native.structure.selector import PathSelector

# Rows that lie beside each other where they are stored, and are read at once.
BLOCK_ROWS = 256
# Features of a window, and its rows at least. Two windows are in memory: the one that is read, the one that is used.
WINDOW_BYTES, WINDOW_ROWS = 1 << 23, 8192

Form = Callable[[Samples], Samples]


@dataclass(frozen=True)
class StreamedSamples:
    """N samples of a frozen structure, of which targets are in memory and features where they are stored.

    What solvers do with :class:`Samples` they do with these, a window at a time. Equal samples are not joined.

    Attributes:
        owner: named in the errors.
        selector: the structure.
        x: raw features, of all rows that are stored.
        rows: which of them these samples are, int64 ``[N]``, in increasing order.
        y: their int64 class indices ``[N]``, or values ``[N, C]``.
        n_outputs: C.
        weight: ``[N]``, > 0; None: 1 for each.
        repeats: for how many samples each counts, int64 ``[N]`` (:func:`count_repeats`); None: for one.
        form: in which a window is given; None: as :class:`Samples` of raw data are.
    """

    owner: str
    selector: PathSelector
    x: StoredRows
    rows: NDArray[np.int64]
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
        y = require_targets(owner, y, n, n_outputs, "y")
        rows = np.arange(n)
        if weight is not None:
            rows = rows[(weight > 0).numpy()]
            if not len(rows):
                raise ValueError(f"{owner}: sample_weight must be > 0 for at least one sample, got none")
            y, weight = y[rows], weight[rows]
        return cls(owner, selector, x, rows, y, n_outputs, weight, count_repeats(weight))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Tensor | slice) -> Samples:
        """Return the samples that a slice or an int64 tensor in increasing order selects, in memory."""
        part = self.part(rows)
        return part._samples(slice(None), part.x.read(part.rows))

    def part(self, rows: Tensor | slice) -> StreamedSamples:
        """Return the same of some samples, whose features stay where they are."""
        kept = self.rows[rows if isinstance(rows, slice) else rows.numpy()]
        weight, repeats = (None if each is None else each[rows] for each in (self.weight, self.repeats))
        return replace(self, rows=kept, y=self.y[rows], weight=weight, repeats=repeats)

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
    def device(self) -> torch.device:
        """Where the samples are used."""
        return self.y.device

    def parts(self) -> Iterator[Samples]:
        """Yield all samples, a window at a time, in the order in which they are stored."""
        height = self._height(1)
        windows = (slice(begin, begin + height) for begin in range(0, len(self), height))
        for rows, x in read_ahead(lambda rows: self.x.read(self.rows[rows]), windows):
            yield self._samples(rows, x)

    def windows(self, generator: torch.Generator, multiple: int) -> Iterator[tuple[Samples, Tensor]]:
        """Yield all samples once, each window with an order of its samples.

        A window is of blocks drawn from all over the data, so that data that are stored by class are mixed, as far as
        there are blocks of each class in it.

        Args:
            generator: what order is drawn by.
            multiple: of samples that each window has, the last one excepted.
        """
        n, height = len(self), self._height(multiple)
        blocks = torch.randperm(-(-n // BLOCK_ROWS), generator=generator, device="cpu")
        ids = (blocks.unsqueeze(1) * BLOCK_ROWS + torch.arange(BLOCK_ROWS, device="cpu")).flatten()
        ids = ids[ids < n]
        orders = torch.randint(2**62, (-(-n // height),), generator=generator, device="cpu").tolist()
        windows = (ids[begin : begin + height].sort().values for begin in range(0, n, height))
        read = read_ahead(lambda rows: self.x.read(self.rows[rows.numpy()]), windows)
        for (rows, x), seed in zip(read, orders, strict=True):
            own = torch.Generator().manual_seed(seed)
            yield self._samples(rows, x), torch.randperm(len(rows), generator=own, device="cpu")

    def _height(self, multiple: int) -> int:
        """Return the samples of a window, a multiple."""
        least = max(WINDOW_ROWS, WINDOW_BYTES // (4 * self.x.n_features))
        return -(-least // multiple) * multiple

    def _samples(self, rows: Tensor | slice, x: NDArray[np.floating]) -> Samples:
        """Return samples, by their place here, of features that were read."""
        z = self.selector.project(torch.from_numpy(x))
        require_finite(self.owner, "x", z)
        weight, repeats = (None if each is None else each[rows] for each in (self.weight, self.repeats))
        samples = Samples.of_canonical(self.selector, z, self.y[rows], self.n_outputs, weight, repeats)
        return samples if self.form is None else self.form(samples)
