"""The samples that a solver trains on are checked here alone, whoever they come from."""

from __future__ import annotations

import math
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
from glai_native.structure.unit_features import unit_features


class Samples:
    """N samples of a frozen structure and their targets; a part of them by index.

    What is computed of raw x is computed once, and path gates, of which there may be many, when they are first asked
    for. Unit features, which are more numbers than z, are computed of the samples that are asked for, and not kept.

    Attributes:
        z: projected samples ``[N, D]``, or unit features.
        y: int64 class indices ``[N]``, or values ``[N, C]``.
        n_outputs: C.
        weight: ``[N]``, >= 0; None: 1 for each.
        is_canonical: they are of the form that :func:`canonical_form` gives, or a part of such.
        of_units: their estimator reads unit features, computed from z; its one path is always on.
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
        of_units: bool = False,
    ) -> None:
        self.z, self.y, self.n_outputs, self.weight = z, y, n_outputs, weight
        self._gates, self._layers, self._selector = gates, layers, selector
        self.is_canonical, self.of_units = False, of_units
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
        *,
        of_units: bool = False,
    ) -> Samples:
        """Read raw x ``[N, in_features]`` and what belongs to it, and bring it to its canonical form.

        Unit bits are computed where gates are None, unless the samples are ``of_units``, which need none.

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
            if of_units:
                raise ValueError(f"{owner}: gates must be None, a model of units computes them from x")
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
            layers = None if of_units else selector.unit_gates_of(z)
        elif rows is not None:
            gates = gates[rows]
        samples = cls(z, y, n_outputs, weight, gates=gates, layers=layers, selector=selector)
        samples.is_canonical, samples._repeats = True, count_repeats(weight)
        samples.of_units = of_units
        return samples

    @classmethod
    def of_projected(
        cls,
        owner: str,
        z: Tensor,
        gates: PackedGates | None,
        targets: Tensor,
        weight: Tensor | None,
        *,
        n_paths: int,
        n_outputs: int,
        structure_id: str | None,
    ) -> Samples:
        """Read z ``[N, D]``, whose shape and dtype the owner has checked, with its path gates and targets.

        Gates of None are those of one path that is always on: z is then read as it is, as unit features are.

        Raises:
            ValueError: data that do not fit each other, are of another structure or are not finite; ``owner`` is named
                in the error.
        """
        require_finite(owner, "x", z)
        if gates is None:
            if n_paths != 1:
                raise ValueError(f"{owner}: gates must be path gates [N, P={n_paths}], got None")
            gates = _one_path(z)
        require_path_gates(owner, gates, len(z), n_paths, structure_id)
        y = require_targets(owner, targets, len(z), n_outputs)
        return cls(z, y, n_outputs, require_sample_weight(owner, weight, len(z)), gates=gates)

    @classmethod
    def of_canonical(
        cls,
        selector: PathSelector,
        z: Tensor,
        y: Tensor,
        n_outputs: int,
        weight: Tensor | None,
        repeats: Tensor | None,
    ) -> Samples:
        """Make samples of what is checked and in canonical form, each standing for ``repeats`` (:attr:`repeats`)."""
        samples = cls(z, y, n_outputs, weight, selector=selector)
        samples.is_canonical, samples._repeats = True, repeats
        return samples

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
            of_units=self.of_units,
        )
        part.is_canonical = self.is_canonical
        part._repeats = None if self.repeats is None else self.repeats[rows]
        return part

    def part(self, rows: Tensor | slice) -> Samples:
        """Return some samples, as ``[]`` does, which reads those that are not in memory."""
        return self[rows]

    def parts(self) -> Iterator[Samples]:
        """Yield all samples, as many at a time as are in memory: these at once."""
        yield self

    def windows(
        self, generator: torch.Generator, multiple: int, passes: int = 1
    ) -> Iterator[tuple[Samples, Tensor]]:
        """Yield all samples, as many at a time as are in memory, each time with an order int64 of them.

        Args:
            generator: what the order is drawn by.
            multiple: of samples that an order is of, the last one excepted.
            passes: how often each sample comes, once in each pass.
        """
        orders = [torch.randperm(len(self), generator=generator, device="cpu") for _ in range(passes)]
        yield self, torch.cat(orders) if passes > 1 else orders[0]

    @property
    def device(self) -> torch.device:
        """Where the samples are."""
        return self.z.device

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
        if self._gates is None and self.of_units:
            self._gates = _one_path(self.z)
        if self._gates is None:
            assert self._selector is not None
            self._gates = self._selector.path_gates(self.layers)
        return self._gates

    def always_on(self) -> Samples:
        """Return the same samples with one path, which is always on: those of the linear model without gates."""
        return self._read_as_they_are(self.z)

    def units(self) -> Samples:
        """Return the same samples for an estimator of units."""
        samples = self.weighted(self.weight)
        samples._gates, samples.of_units = None, True
        samples.is_canonical, samples._repeats = self.is_canonical, self._repeats
        return samples

    def features(self, rows: slice | Tensor) -> Tensor:
        """Return what the estimator reads of some samples: z, or unit features ``[n, h_L + D]``, made here."""
        z = self.z[rows]
        if not self.of_units:
            return z
        assert self._selector is not None
        return unit_features(self._selector, z)

    @property
    def n_features(self) -> int:
        """How many numbers of a sample the estimator reads."""
        if not self.of_units:
            return self.z.shape[1]
        assert self._selector is not None
        return self._selector.widths[-1] + self.z.shape[1]

    def with_features(self) -> Samples:
        """Return the same samples with all that the estimator reads in the place of z."""
        return self._read_as_they_are(self.features(slice(None))) if self.of_units else self

    def steps(self, z: Tensor, y: Tensor, weight: Tensor | None) -> Samples:
        """Return the same samples with z, targets and weights in the form that a training's steps read."""
        return Samples(
            z,
            y,
            self.n_outputs,
            weight,
            gates=self.gates,
            selector=self._selector,
            of_units=self.of_units,
        )

    def _read_as_they_are(self, features: Tensor) -> Samples:
        samples = Samples(features, self.y, self.n_outputs, self.weight, gates=_one_path(features))
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
            of_units=self.of_units,
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
        largest = max(1.0, magnitude(self.z), magnitude(self.y) if self.has_values else 0.0)
        if self.of_units:
            largest = max(largest, self._most_of_units(magnitude(self.z)))
        weight = 1.0 if self.weight is None else magnitude(self.weight)
        if not largest_sum + len(self) * weight * largest * largest < torch.finfo(dtype).max:
            name = str(dtype).removeprefix("torch.")
            raise ValueError(
                f"{owner}: x and targets must have weighted squares whose sums fit in {name}, got values up to "
                f"{largest:.3g} and weights up to {weight:.3g}"
            )

    def _most_of_units(self, magnitude_of_z: float) -> float:
        """Return a bound on what units give; infinite where it is beyond z's dtype."""
        assert self._selector is not None
        most = magnitude_of_z
        for weight, bias in self._selector.hidden:
            most = float((weight.double().abs().sum(1) * most + bias.double().abs()).max())
        return most if most < torch.finfo(self.z.dtype).max else math.inf

    def chunks(
        self, height: int, dtype: torch.dtype
    ) -> Iterator[tuple[Tensor, PackedGates, Tensor, Tensor | None]]:
        """Yield what the estimator reads, gates, targets as values ``[n, C]`` and weights, in ``dtype``.

        They are of ``height`` samples at a time.
        """
        for begin in range(0, len(self), height):
            rows = slice(begin, begin + height)
            yield (
                self.features(rows).to(dtype),
                self.gates[rows],
                as_values(self.y[rows], self.n_outputs, dtype),
                None if self.weight is None else self.weight[rows].to(dtype),
            )


def _one_path(features: Tensor) -> PackedGates:
    return pack_gates(torch.ones((len(features), 1), dtype=torch.bool, device=features.device))
