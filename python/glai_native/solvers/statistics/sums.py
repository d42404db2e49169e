"""Sufficient statistics of the path estimator are exact under merging, increments, removals and new classes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from copy import copy
from pathlib import Path
from uuid import uuid4

import torch
from torch import Tensor

from glai_native.data.checks import FLOATS, require_samples
from glai_native.data.counts import require_count
from glai_native.estimator.estimator import PathEstimator
from glai_native.estimator.file import UNITS
from glai_native.gates.packed import PackedGates
from glai_native.machine.files import TensorFile
from glai_native.machine.interrupts import uninterrupted
from glai_native.machine.writing import write_files
from glai_native.ops.path_matrices import pack_upper, unpack_upper
from glai_native.solvers.samples import Samples
from glai_native.solvers.statistics.adding import (
    add_samples,
    are_a_chunk,
    prepare_chunk,
    require_held,
    require_memory_of_sums,
)
from glai_native.solvers.statistics.alike import require_alike
from glai_native.solvers.statistics.columns import SumsByOutput
from glai_native.solvers.statistics.file import (
    open_statistics,
    read_statistics,
    require_sums,
    statistics_to_bytes,
)
from glai_native.solvers.statistics.penalty import SampleTuple, choose_penalty, passes_over, solve_sums
from glai_native.solvers.statistics.unknowns import PathSums
from glai_native.structure.selector import PathSelector


class PathStatistics(SumsByOutput):
    """What the ridge solution of a path estimator needs of its samples, and nothing else of them.

    The gram matrix of the path features (``path_gram``), their products with the targets
    ``R[p,d,c] = sum_n s[n]·g[n,p]·[z[n],1][d]·t[n,c]``, the targets' squares and counts. All are sums over samples:
    statistics of two parts of the data add up to those of the whole, and samples can be taken out again. Selector
    and projection are not part of it: they have still seen what was taken out.

    Source: the sufficient statistics of ridge regression, updated as in recursive least squares (Plackett, 1950); kept
    over classes and parties: ACIL, arXiv 2205.14922, and AFL, arXiv 2405.16240.

    Args:
        n_paths: P.
        in_features: D, the width of z.
        out_features: C.
        dtype: torch.float64, or torch.float32: half the memory and time, and weights good to three or four digits.
        structure_id: the structure whose gates are summed; None: taken from the first gates that state one.
        device: where the sums are kept; samples must lie there too.
        n_units: h_L of statistics of units (:meth:`of_units`), which are those of one path over unit features; 0: of
            any others.

    Attributes:
        n_samples: N, how many samples they hold.
        on_counts: int64 ``[P, C]``, in how many samples of class c path p was on; zero for targets that are values.

    Raises:
        MemoryError: the gram matrix ``[P·(D+1), P·(D+1)]`` takes more memory than there is.
    """

    def __init__(
        self,
        n_paths: int,
        in_features: int,
        out_features: int,
        dtype: torch.dtype = torch.float64,
        structure_id: str | None = None,
        device: torch.device | str = "cpu",
        *,
        n_units: int = 0,
    ) -> None:
        sizes = {"n_paths": n_paths, "in_features": in_features, "out_features": out_features}
        n_paths, in_features, out_features = (
            require_count("PathStatistics", name, size) for name, size in sizes.items()
        )
        if dtype not in FLOATS:
            raise ValueError(f"PathStatistics: dtype must be torch.float32 or torch.float64, got {dtype}")
        device = torch.device(device)
        if n_units and (n_paths != 1 or not 0 < n_units < in_features):
            raise ValueError(
                f"PathStatistics: n_units={n_units} must be of P=1 path over more features, got P={n_paths}, "
                f"D={in_features}"
            )
        self.n_paths, self.in_features, self.n_units = n_paths, in_features, n_units
        self.structure_id = structure_id
        self.n_samples = 0
        self.state = uuid4().hex
        size = n_paths * (in_features + 1)
        require_memory_of_sums(n_paths, in_features, out_features, dtype, device)
        self._gram = torch.zeros((size, size), dtype=dtype, device=device)
        self._rhs = torch.zeros((n_paths, in_features + 1, out_features), dtype=dtype, device=device)
        self._squares = torch.zeros(out_features, dtype=dtype, device=device)
        self.on_counts = torch.zeros((n_paths, out_features), dtype=torch.int64, device=device)

    @classmethod
    def of_units(
        cls, selector: PathSelector, out_features: int, dtype: torch.dtype = torch.float64
    ) -> PathStatistics:
        """Make statistics of a selector's units, of no samples yet and on its device.

        :meth:`update` takes ``unit_features(selector, z)`` ``[N, h_L + D]`` for x, and no gates. M = h_L + D + 1
        unknowns are those of all outputs, however many paths there are.
        """
        estimator = PathEstimator.of_units(selector, out_features)
        return cls.like(estimator, dtype)

    @classmethod
    def like(cls, estimator: PathEstimator, dtype: torch.dtype = torch.float64) -> PathStatistics:
        """Make statistics that an estimator of this kind and these sizes is solved from, of no samples yet."""
        return cls(
            estimator.n_paths,
            estimator.in_features,
            estimator.out_features,
            dtype,
            estimator.structure_id,
            estimator.on_counts.device,
            n_units=estimator.n_units,
        )

    @property
    def out_features(self) -> int:
        """C."""
        return self._rhs.shape[2]

    @property
    def _sizes(self) -> tuple[int, int, int]:
        """P, D and C."""
        return self.n_paths, self.in_features, self.out_features

    @property
    def dtype(self) -> torch.dtype:
        """torch.float32 or torch.float64."""
        return self._gram.dtype

    @property
    def device(self) -> torch.device:
        """Where the sums are kept."""
        return self._gram.device

    @property
    def mean_diagonal(self) -> float:
        """Of the gram matrix: what a penalty l2 is measured by; a hundredth to a tenth of it often does well."""
        return float(self._gram.diagonal().mean())

    def __repr__(self) -> str:
        sizes = f"N={self.n_samples}, P={self.n_paths}, D={self.in_features}, C={self.out_features}"
        sizes += f", n_units={self.n_units}" if self.n_units else ""
        return f"PathStatistics({sizes}, {self.dtype}, device='{self.device}')"

    def update(
        self, x: Tensor, gates: PackedGates | None, targets: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        """Add samples; thousands at a time, since every call reads and writes the whole gram matrix.

        What fails, or is interrupted, adds nothing. More at a time than there are unknowns, and than 2,048, or more
        than 4,096, are added to a copy of the sums, which takes their place.

        Args:
            x: z ``[N, D]`` (projected, not raw x), or unit features; float32 or float64, finite.
            gates: their path gates, N samples of P; None: of one path, which is always on.
            targets: class indices ``[N]`` in ``[0, C)``, or values ``[N, C]``.
            sample_weight: ``[N]``, >= 0; None: 1 for each. Samples of weight 0 are left out, and not counted; where
                all are integers, they count as so many samples.
        """
        self._add("update", self._read("update", x, gates, targets, sample_weight), sign=1)

    def add(self, samples: Samples, sign: int = 1) -> None:
        """Add samples that are checked already, as :meth:`update` does; sign -1: as :meth:`downdate`."""
        owner = "update" if sign > 0 else "downdate"
        self._add(owner, self._within_range(owner, samples), sign)

    def downdate(
        self, x: Tensor, gates: PackedGates | None, targets: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        """Take samples out again, given as they were to :meth:`update`.

        The solution is then that of the samples that are left. The selector and the projection have still seen the
        others.

        Raises:
            ValueError: some were not there, so far as the counts and sums left would show; nothing is taken out.
        """
        self._add("downdate", self._read("downdate", x, gates, targets, sample_weight), sign=-1)

    @torch.no_grad()
    def _add(self, owner: str, samples: Samples, sign: int) -> None:
        on_counts = self.on_counts
        if samples.classes is not None:
            counts = samples.gates.counts_by_class(samples.classes, self.out_features, samples.repeats)
            on_counts = on_counts + sign * counts
        n_samples = self.n_samples + sign * samples.count
        if n_samples < 0 or bool((on_counts < 0).any()):
            raise ValueError(
                f"{owner}: the samples must be among the {self.n_samples:,} that the statistics hold, "
                f"got {samples.count:,} that are not"
            )
        if sign > 0 and not self._shared and are_a_chunk(samples, len(self._gram)):
            sums, add_to_gram = prepare_chunk(self._sums(), samples)
            known: dict[str, object] = {"_rhs": sums.rhs, "_squares": sums.squares, "on_counts": on_counts}
            known |= {"structure_id": self.structure_id or samples.gates.structure_id, "n_samples": n_samples}
            after = self.__dict__ | known | {"state": uuid4().hex}
            with uninterrupted():
                add_to_gram()
                self.__dict__ = after
            return
        grown = self if self._private else self.copy()
        add_samples(grown._sums(), samples, sign)
        if sign < 0:
            require_held(self._sums(), grown._sums(), n_samples)
        grown.n_samples, grown.on_counts = n_samples, on_counts
        grown.structure_id = self.structure_id or samples.gates.structure_id
        self.become(grown)

    def _read(
        self,
        owner: str,
        x: Tensor,
        gates: PackedGates | None,
        targets: Tensor,
        sample_weight: Tensor | None = None,
    ) -> Samples:
        """Raise unless they are samples of these statistics; leave out those of weight 0."""
        require_samples(owner, x, self.in_features)
        if x.dtype not in FLOATS:
            found = str(x.dtype).removeprefix("torch.")
            raise ValueError(f"{owner}: x must be float32 or float64 [N, D={self.in_features}], got {found}")
        if x.device != self.device:
            raise ValueError(f"{owner}: x must be on {self.device} like the statistics, got {x.device}")
        samples = Samples.of_projected(
            owner,
            x,
            gates,
            targets,
            sample_weight,
            n_paths=self.n_paths,
            n_outputs=self.out_features,
            structure_id=self.structure_id,
        ).of_positive_weight()
        return self._within_range(owner, samples)

    def _within_range(self, owner: str, samples: Samples) -> Samples:
        largest_sum = max(float(sums.max()) for sums in (self._gram.diagonal(), self._squares))
        samples.require_range(owner, largest_sum, self.dtype)
        return samples

    def merge(self, other: PathStatistics) -> PathStatistics:
        """Add the samples of ``other``; return self.

        Raises:
            ValueError: another structure, size or dtype.
        """
        require_alike("merge", self, other)
        grown = copy(self)
        grown._gram, grown._rhs, grown._squares, grown.on_counts = (
            mine + theirs.to(self.device) for mine, theirs in zip(self._sums(), other._sums(), strict=True)
        )
        grown.n_samples, grown._shared = self.n_samples + other.n_samples, False
        self.become(grown)
        return self

    def restore(self, other: PathStatistics) -> None:
        """Take the sums of ``other`` over for its own, on its own device.

        Raises:
            ValueError: another structure, size or dtype.
        """
        restored = copy(self)
        restored.structure_id = self.structure_id or other.structure_id
        require_alike("restore", restored, other)
        restored._gram, restored._rhs, restored._squares, restored.on_counts = (
            sums.to(self.device) for sums in other._sums()
        )
        restored.n_samples, other._shared = other.n_samples, True
        self.become(restored)

    def _sums(self) -> PathSums:
        return PathSums(self._gram, self._rhs, self._squares, self.on_counts)

    def sums(self) -> dict[str, Tensor]:
        """Return all sums but N: ``gram`` (upper triangle ``[M·(M+1)/2]``), ``rhs``, ``squares``, ``on_counts``."""
        return self._sums()._asdict() | {"gram": pack_upper(self._gram)}

    @classmethod
    def from_sums(
        cls, sums: Mapping[str, Tensor], n_samples: int, structure_id: str | None = None, n_units: int = 0
    ) -> PathStatistics:
        """Make statistics from what :meth:`sums` gave, of one part of the data or added up over several.

        Raises:
            ValueError: sums that do not fit each other, are not finite, or negative counts.
        """
        rhs = sums["rhs"]
        require_sums("from_sums", sums, n_samples)
        sizes = rhs.shape[0], rhs.shape[1] - 1, rhs.shape[2]
        statistics = cls(*sizes, rhs.dtype, structure_id, rhs.device, n_units=n_units)
        unpack_upper(sums["gram"], statistics._gram)
        statistics._rhs.copy_(rhs)
        statistics._squares.copy_(sums["squares"])
        statistics.on_counts.copy_(sums["on_counts"])
        statistics.n_samples = n_samples
        return statistics

    def __add__(self, other: PathStatistics) -> PathStatistics:
        return copy(self).merge(other)  # which changes no sums that it has

    @torch.no_grad()
    def solve(
        self,
        l2: float | str,
        directions: Tensor | None = None,
        data: Iterable[SampleTuple] | None = None,
        *,
        dtype: torch.dtype | None = None,
        progress: bool = True,
    ) -> PathEstimator:
        """Return the estimator that minimises ``sum_n s[n]·|t[n] - y(z[n])|² + l2·(|w|² + |b|²)``.

        M unknowns cost M³/6 multiply-adds and a second copy of the gram matrix: M = P·(D+1) for full paths (whatever
        C is), and (P-1)·(D+1) + (D+1)·C along directions, in a matrix of their own. w and b are the weights of full
        paths either way, u_p·v_pᵀ and beta_p·v_p.

        Args:
            l2: the penalty, >= 0; > 0 where features depend on each other, as they do wherever a path is never on.
                ``"gcv"``: chosen by generalised cross-validation; ``"loo"``: by the exact leave-one-out error
                (:meth:`choose_l2`).
            directions: V ``[P, C]`` (:func:`output_directions`): the estimator gets these output directions, and its
                last path must have been on in every sample. None: full paths. The statistics do not depend on it.
            data: with ``"loo"``: the samples, as an iterable of ``(x, gates, targets)`` or ``(x, gates, targets,
                sample_weight)`` that can be gone through more than once.
            dtype: of the estimator; None: that of the statistics.
            progress: show a bar while a penalty is chosen.

        Raises:
            ValueError: no samples, a bad l2, or a system that is singular at this l2.
        """
        if isinstance(l2, str):
            l2 = self.choose_l2(l2, directions, data, progress=progress)
        estimator = solve_sums(
            self._sums(), self.n_samples, l2, directions, dtype or self.dtype, self.n_units
        )
        estimator.structure_id, estimator.solved_from = self.structure_id, self.state
        estimator.take_outputs(self)
        if self.means_nothing:
            estimator.note_targets("solve", of_values=not bool(self.on_counts.any()))
        return estimator

    @torch.no_grad()
    def choose_l2(
        self,
        method: str = "gcv",
        directions: Tensor | None = None,
        data: Iterable[SampleTuple] | None = None,
        *,
        progress: bool = True,
    ) -> float:
        """Choose the penalty of least cross-validation error, from 1e-6 to 100 times the mean diagonal of the gram.

        Up to 2,048 unknowns an eigendecomposition (four times the gram's memory; 0.6 s at most on two cores) scores a
        grid of four penalties in a decade, ``"loo"`` in one pass over the data. Beyond, decades are walked downhill:
        each penalty costs M³/6 multiply-adds, and M³/3 for ``"gcv"`` or a pass of N·M²/2 for ``"loo"``. Along
        directions there are N·C residuals, and ``"loo"``, which leaves out all C of a sample, costs C passes.

        Args:
            method: ``"gcv"``, generalised cross-validation, from the statistics alone; ``"loo"``, the exact
                leave-one-out error.
            directions: as for :meth:`solve`.
            data: as for :meth:`solve`.
            progress: show how many penalties were tried, or samples left out.
        """
        passes = None
        if method == "loo" and data is not None and self.n_samples:
            passes = passes_over(data, lambda part: self._read("solve", *part), self.n_samples)
        return choose_penalty(self._sums(), self.n_samples, method, directions, passes, progress)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one file, whole or not at all; of the gram matrix its upper triangle."""
        write_files({Path(path): self.to_bytes()})

    def to_bytes(self, **entries: str) -> bytes:
        """Return a statistics file's content; ``entries`` join its metadata."""
        entries |= self.outputs_metadata() | ({UNITS: str(self.n_units)} if self.n_units else {})
        return statistics_to_bytes(self.sums(), self._sizes, self.n_samples, self.structure_id, entries)

    @classmethod
    def load(cls, path: str | os.PathLike[str], structure_id: str | None = None) -> PathStatistics:
        """Read a statistics file, onto the CPU.

        Args:
            path: the file.
            structure_id: the structure that it must be of; None: any.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is damaged, of another format, or of another structure.
        """
        return cls.from_file(open_statistics(Path(path)), structure_id)

    @classmethod
    def from_file(cls, file: TensorFile, structure_id: str | None = None) -> PathStatistics:
        """Read a statistics file that is open."""
        sums, n_samples, found = read_statistics(file, structure_id)
        n_units = file.integer(UNITS, 1) if UNITS in file.metadata else 0
        try:
            statistics = cls.from_sums(sums, n_samples, found, n_units)
        except ValueError as error:
            raise ValueError(f"{file.path}: {str(error).removeprefix('from_sums: ')}") from None
        statistics.read_outputs(file)
        return statistics
