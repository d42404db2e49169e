"""The samples that a solver trains on are checked here alone, whoever they come from."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from glai_native.data.canonical import canonical_form, count_repeats
from glai_native.data.checks import (
    as_values,
    magnitude,
    require_finite,
    require_sample_weight,
    require_samples,
    require_targets,
)
from glai_native.gates.packed import PackedGates, require_path_gates
from glai_native.gates.packing import pack_gates
from glai_native.structure.selector import PathSelector


class Samples:
    """N samples of a frozen structure and their targets; a part of them by index.

    What is computed of raw x is computed once, and path gates, of which there may be many, when they are first asked
    for.

    Attributes:
        z: projected samples ``[N, D]``.
        y: int64 class indices ``[N]``, or values ``[N, C]``.
        n_outputs: C.
        weight: ``[N]``, >= 0; None: 1 for each.
        is_canonical: they are of the form that :func:`canonical_form` gives, or a part of such.
    """

    def __init__(
        self,
        z: Tensor,
        y: Tensor,
        n_outputs: int,
        weight: Tensor | None = None,
        *,
        gates: PackedGates | None = None,
        layers: list[PackedGates] | None = None,
        selector: PathSelector | None = None,
    ) -> None:
        self.z, self.y, self.n_outputs, self.weight = z, y, n_outputs, weight
        self._gates, self._layers, self._selector = gates, layers, selector
        self.is_canonical = False
        self._repeats: Tensor | None = None

    @classmethod
    def of_raw(
        cls,
        owner: str,
        selector: PathSelector,
        x: Tensor,
        y: Tensor,
        n_outputs: int,
        gates: PackedGates | None = None,
        weight: Tensor | None = None,
    ) -> Samples:
        """Read raw x ``[N, in_features]`` and what belongs to it, and bring it to its canonical form.

        Unit bits are computed where gates are None.

        Raises:
            ValueError: there are no samples, or none of weight > 0, or data that do not fit each other or the
                structure, or are not finite; ``owner`` is named in the error.
        """
        require_samples("PathSelector", x, selector.in_features)
        n = len(x)
        if not n:
            raise ValueError(f"{owner}: x must hold at least one sample, got none")
        weight = require_sample_weight(owner, weight, n)
        if gates is not None:
            require_path_gates(owner, gates, n, selector.n_paths, selector.structure_id)
        if not isinstance(y, Tensor) or y.ndim == 0 or len(y) != n or (weight is None) or bool(weight.all()):
            y = require_targets(owner, y, n, n_outputs, "y")
        else:  # what weighs nothing may be of any class, and must be finite
            require_finite(owner, "x", x)
            require_finite(owner, "y", y)
        form = canonical_form([x, y] if gates is None else [x, y, gates.words], weight)
        x, weight, rows = form.of(x), form.weight, form.rows
        if not len(x):
            raise ValueError(f"{owner}: sample_weight must be > 0 for at least one sample, got none")
        z = selector.project(x)
        require_finite(owner, "x", z)
        y = require_targets(owner, form.of(y), len(x), n_outputs, "y").to(z.device)
        weight = None if weight is None else weight.to(z.device)
        layers = None
        if gates is None:
            layers = selector.unit_gates_of(z)
        elif rows is not None:
            gates = gates[rows]
        samples = cls(z, y, n_outputs, weight, gates=gates, layers=layers, selector=selector)
        samples.is_canonical, samples._repeats = True, count_repeats(weight)
        return samples

    @classmethod
    def of_projected(
        cls,
        owner: str,
        z: Tensor,
        gates: PackedGates,
        targets: Tensor,
        weight: Tensor | None,
        *,
        n_paths: int,
        n_outputs: int,
        structure_id: str | None,
    ) -> Samples:
        """Read z ``[N, D]``, whose shape and dtype the owner has checked, with its path gates and targets.

        Raises:
            ValueError: data that do not fit each other, are of another structure or are not finite; ``owner`` is named
                in the error.
        """
        require_finite(owner, "x", z)
        require_path_gates(owner, gates, len(z), n_paths, structure_id)
        y = require_targets(owner, targets, len(z), n_outputs)
        return cls(z, y, n_outputs, require_sample_weight(owner, weight, len(z)), gates=gates)

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, rows: Tensor | slice) -> Samples:
        """Return the samples that a slice, an integer tensor or a bool mask ``[N]`` selects."""
        part = Samples(
            self.z[rows],
            self.y[rows],
            self.n_outputs,
            None if self.weight is None else self.weight[rows],
            gates=None if self._gates is None else self._gates[rows],
            layers=None if self._layers is None else [layer[rows] for layer in self._layers],
            selector=self._selector,
        )
        part.is_canonical = self.is_canonical
        part._repeats = None if self.repeats is None else self.repeats[rows]
        return part

    @property
    def has_values(self) -> bool:
        """Whether the targets are values, not class indices."""
        return self.y.is_floating_point()

    @property
    def classes(self) -> Tensor | None:
        """The class indices ``[N]``; None where the targets are values."""
        return None if self.has_values else self.y

    @property
    def layers(self) -> list[PackedGates]:
        """Unit bits per hidden layer, the always-on unit excluded."""
        if self._layers is None:
            assert self._selector is not None
            self._layers = self._selector.unit_gates_of(self.z)
        return self._layers

    @property
    def gates(self) -> PackedGates:
        """Path gates ``[N, P]``."""
        if self._gates is None:
            assert self._selector is not None
            self._gates = self._selector.path_gates(self.layers)
        return self._gates

    def always_on(self) -> Samples:
        """Return the same samples with one path, which is always on: those of the linear model without gates."""
        on = pack_gates(torch.ones((len(self), 1), dtype=torch.bool, device=self.z.device))
        samples = Samples(self.z, self.y, self.n_outputs, self.weight, gates=on)
        samples.is_canonical, samples._repeats = self.is_canonical, self._repeats
        return samples

    def of_positive_weight(self) -> Samples:
        """Return the samples whose weight is not 0.

        Cross-validation counts residuals: those that weigh nothing would make every fit look tested.
        """
        if self.weight is None or bool(self.weight.all()):
            return self
        return self[self.weight > 0]

    def canonical(self) -> Samples:
        """Return the samples in the form that :func:`canonical_form` gives; of samples in it, themselves."""
        if self.is_canonical:
            return self
        kept = [] if self._gates is None else [self._gates.words]
        kept += [layer.words for layer in self._layers or []]
        form = canonical_form([self.z, self.y, *kept], self.weight)
        samples = self if form.rows is None else self[form.rows]
        samples = samples.weighted(form.weight)
        samples.is_canonical = True
        return samples

    def weighted(self, weight: Tensor | None) -> Samples:
        """Return the same samples of other weights ``[N]``."""
        return Samples(
            self.z,
            self.y,
            self.n_outputs,
            weight,
            gates=self._gates,
            layers=self._layers,
            selector=self._selector,
        )

    @property
    def repeats(self) -> Tensor | None:
        """For how many samples each counts, int64 ``[N]`` (:func:`count_repeats`); None: for one each.

        Of a part it is what it was of the whole.
        """
        if self._repeats is None:
            self._repeats = count_repeats(self.weight)
        return self._repeats

    @property
    def are_repeated(self) -> bool:
        """Whether the weights are numbers of repetitions, of which one can be left out."""
        repeats, weight = self.repeats, self.weight
        return repeats is not None and weight is not None and torch.equal(repeats.double(), weight.double())

    @property
    def count(self) -> int:
        """How many samples they stand for."""
        return len(self) if self.repeats is None else int(self.repeats.sum())

    def require_range(self, owner: str, largest_sum: float, dtype: torch.dtype) -> None:
        """Raise where sums of squares could overflow: one such sample would be the end of all sums.

        Args:
            owner: who adds them, named in the error.
            largest_sum: of those that they are added to.
            dtype: of the sums.
        """
        values = [self.z, self.y] if self.has_values else [self.z]
        largest = max([1.0, *(magnitude(v) for v in values)])
        weight = 1.0 if self.weight is None else magnitude(self.weight)
        if not largest_sum + len(self) * weight * largest * largest < torch.finfo(dtype).max:
            name = str(dtype).removeprefix("torch.")
            raise ValueError(
                f"{owner}: x and targets must have weighted squares whose sums fit in {name}, got values up to "
                f"{largest:.3g} and weights up to {weight:.3g}"
            )

    def chunks(
        self, height: int, dtype: torch.dtype
    ) -> Iterator[tuple[Tensor, PackedGates, Tensor, Tensor | None]]:
        """Yield z, gates, targets as values ``[n, C]`` and weights of ``height`` samples at a time, in ``dtype``."""
        for begin in range(0, len(self), height):
            rows = slice(begin, begin + height)
            yield (
                self.z[rows].to(dtype),
                self.gates[rows],
                as_values(self.y[rows], self.n_outputs, dtype),
                None if self.weight is None else self.weight[rows].to(dtype),
            )
