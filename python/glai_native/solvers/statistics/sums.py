"""Sufficient statistics of the path estimator are exact under merging, increments, removals and new classes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from glai_native.data.checks import FLOATS, require_finite, require_samples
from glai_native.data.counts import require_count
from glai_native.estimator.estimator import PathEstimator
from glai_native.gates.packed import PackedGates
from glai_native.machine.files import write_files
from glai_native.machine.memory import require_memory
from glai_native.ops.gated_matmul import gated_matmul_weight_grad
from glai_native.ops.path_matrices import pack_upper, path_gram, unpack_upper
from glai_native.solvers.samples import Samples
from glai_native.solvers.statistics.file import read_statistics, statistics_to_bytes
from glai_native.solvers.statistics.penalty import Passes, SampleTuple, choose_penalty, solve_sums
from glai_native.solvers.statistics.unknowns import PathSums

# Samples that are widened to the statistics' dtype at a time; a multiple of what path_gram takes in one pass.
CHUNK_ROWS = 4 * 4096


class PathStatistics:
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
    ) -> None:
        sizes = {"n_paths": n_paths, "in_features": in_features, "out_features": out_features}
        n_paths, in_features, out_features = (
            require_count("PathStatistics", name, size) for name, size in sizes.items()
        )
        if dtype not in FLOATS:
            raise ValueError(f"PathStatistics: dtype must be torch.float32 or torch.float64, got {dtype}")
        device = torch.device(device)
        self.n_paths, self.in_features = n_paths, in_features
        self.structure_id = structure_id
        self.n_samples = 0
        size = n_paths * (in_features + 1)
        require_memory(
            "PathStatistics",
            f"the gram matrix of P={n_paths} paths over D={in_features} features, {size:,} squared,",
            size * size * dtype.itemsize,
            device,
            "use fewer paths, or project z to fewer components",
        )
        require_memory(
            "PathStatistics",
            f"the sums of {size:,} path features for C={out_features:,} outputs",
            size * out_features * dtype.itemsize,
            device,
            "number classes 0, 1, ... without gaps",
        )
        self._gram = torch.zeros((size, size), dtype=dtype, device=device)
        self._rhs = torch.zeros((n_paths, in_features + 1, out_features), dtype=dtype, device=device)
        self._squares = torch.zeros(out_features, dtype=dtype, device=device)
        self.on_counts = torch.zeros((n_paths, out_features), dtype=torch.int64, device=device)

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
        return f"PathStatistics({sizes}, {self.dtype}, device='{self.device}')"

    def update(
        self, x: Tensor, gates: PackedGates, targets: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        """Add samples; thousands at a time, since every call reads and writes the whole gram matrix.

        An interrupt within leaves sums that hold a part of them: :func:`accumulate` with a checkpoint outlives it.

        Args:
            x: z ``[N, D]`` (projected, not raw x), float32 or float64, finite.
            gates: their path gates, N samples of P.
            targets: class indices ``[N]`` in ``[0, C)``, or values ``[N, C]``.
            sample_weight: ``[N]``, >= 0; None: 1 for each. Samples of weight 0 are left out, and not counted.
        """
        self._add("update", x, gates, targets, sample_weight, sign=1)

    def downdate(
        self, x: Tensor, gates: PackedGates, targets: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        """Take samples out again, given as they were to :meth:`update`.

        The solution is then that of the samples that are left. The selector and the projection have still seen the
        others.

        Raises:
            ValueError: there are not as many samples, or not as many of a class with a path on.
        """
        self._add("downdate", x, gates, targets, sample_weight, sign=-1)

    @torch.no_grad()
    def _add(
        self,
        owner: str,
        x: Tensor,
        gates: PackedGates,
        targets: Tensor,
        sample_weight: Tensor | None,
        sign: int,
    ) -> None:
        samples = self._read(owner, x, gates, targets, sample_weight)
        on_counts = self.on_counts
        if samples.classes is not None:
            on_counts = on_counts + sign * samples.gates.counts_by_class(samples.classes, self.out_features)
        n_samples = self.n_samples + sign * len(samples)
        if n_samples < 0 or bool((on_counts < 0).any()):
            raise ValueError(
                f"{owner}: the samples must be among the {self.n_samples:,} that the statistics hold, "
                f"got {len(samples):,} that are not"
            )
        for z, part, values, weight in samples.chunks(CHUNK_ROWS, self.dtype):
            if sign < 0:
                weight = -(z.new_ones(len(z)) if weight is None else weight)
            features = torch.cat([z, z.new_ones((len(z), 1))], dim=1)
            weighted = values if weight is None else values * weight.unsqueeze(1)
            path_gram(features[:, :-1], part, weight, out=self._gram)
            gated_matmul_weight_grad(features, part, weighted, out=self._rhs, accumulate=True)
            self._squares += (weighted * values).sum(0)
        self.n_samples, self.on_counts = n_samples, on_counts
        self.structure_id = self.structure_id or samples.gates.structure_id

    def _read(
        self, owner: str, x: Tensor, gates: PackedGates, targets: Tensor, sample_weight: Tensor | None
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
        largest_sum = max(float(sums.max()) for sums in (self._gram.diagonal(), self._squares))
        samples.require_range(owner, largest_sum, self.dtype)
        return samples

    def merge(self, other: PathStatistics) -> PathStatistics:
        """Add the samples of ``other``; return self.

        Raises:
            ValueError: another structure, size or dtype.
        """
        self._require_alike("merge", other)
        for mine, theirs in zip(self._sums(), other._sums(), strict=True):
            mine += theirs.to(self.device)
        self.n_samples += other.n_samples
        return self

    def restore(self, other: PathStatistics) -> None:
        """Take the sums of ``other`` over for its own, on its own device.

        Raises:
            ValueError: another structure, size or dtype.
        """
        self.structure_id = self.structure_id or other.structure_id
        self._require_alike("restore", other)
        self._gram, self._rhs, self._squares, self.on_counts = (
            sums.to(self.device) for sums in other._sums()
        )
        self.n_samples = other.n_samples

    def _sums(self) -> PathSums:
        return PathSums(self._gram, self._rhs, self._squares, self.on_counts)

    def sums(self) -> dict[str, Tensor]:
        """Return all sums but N: ``gram`` (upper triangle ``[M·(M+1)/2]``), ``rhs``, ``squares``, ``on_counts``."""
        return {
            "gram": pack_upper(self._gram),
            "rhs": self._rhs,
            "squares": self._squares,
            "on_counts": self.on_counts,
        }

    @classmethod
    def from_sums(
        cls, sums: Mapping[str, Tensor], n_samples: int, structure_id: str | None = None
    ) -> PathStatistics:
        """Make statistics from what :meth:`sums` gave, of one part of the data or added up over several.

        Raises:
            ValueError: sums that do not fit each other, are not finite, or negative counts.
        """
        rhs, gram = sums["rhs"], sums["gram"]
        if rhs.ndim != 3 or rhs.dtype not in FLOATS:
            raise ValueError(
                f"from_sums: rhs must be floating [P, D+1, C], got {rhs.dtype} {list(rhs.shape)}"
            )
        statistics = cls(rhs.shape[0], rhs.shape[1] - 1, rhs.shape[2], rhs.dtype, structure_id, rhs.device)
        size = len(statistics._gram)
        expected = {
            "gram": (rhs.dtype, (size * (size + 1) // 2,)),
            "squares": (rhs.dtype, tuple(statistics._squares.shape)),
            "on_counts": (torch.int64, tuple(statistics.on_counts.shape)),
        }
        for name, (dtype, shape) in expected.items():
            if (sums[name].dtype, tuple(sums[name].shape)) != (dtype, shape):
                raise ValueError(
                    f"from_sums: {name} must be {dtype} {list(shape)}, "
                    f"got {sums[name].dtype} {list(sums[name].shape)}"
                )
        for name in ("gram", "rhs", "squares"):
            require_finite("from_sums", name, sums[name])
        if n_samples < 0 or bool((sums["on_counts"] < 0).any()):
            raise ValueError("from_sums: counts of samples must be >= 0")
        unpack_upper(gram, statistics._gram)
        statistics._rhs.copy_(rhs)
        statistics._squares.copy_(sums["squares"])
        statistics.on_counts.copy_(sums["on_counts"])
        statistics.n_samples = n_samples
        return statistics

    def _require_alike(self, owner: str, other: PathStatistics) -> None:
        if not isinstance(other, PathStatistics):
            raise TypeError(f"{owner}: other must be PathStatistics, got {type(other).__name__}")
        if other.structure_id != self.structure_id:
            mine, theirs = (f"{i[:12]}…" if i else "none" for i in (self.structure_id, other.structure_id))
            raise ValueError(f"{owner}: statistics must be of structure_id {mine}, got {theirs}")
        if other._rhs.shape != self._rhs.shape:
            mine, theirs = (f"[P={s.n_paths}, D={s.in_features}, C={s.out_features}]" for s in (self, other))
            raise ValueError(f"{owner}: statistics must be {mine}, got {theirs}; add_outputs(k) adds classes")
        if other.dtype != self.dtype:
            raise ValueError(f"{owner}: statistics must be {self.dtype}, got {other.dtype}")

    def __add__(self, other: PathStatistics) -> PathStatistics:
        return self.copy().merge(other)

    def copy(self, device: torch.device | str | None = None) -> PathStatistics:
        """Return the same sums, to go on separately, or on another device."""
        return PathStatistics(*self._sizes, self.dtype, self.structure_id, device or self.device).merge(self)

    def add_outputs(self, k: int) -> None:
        """Add k classes: the samples so far have target 0 there."""
        k = require_count("add_outputs", "k", k)
        self._rhs, self._squares, self.on_counts = (
            torch.cat([sums, sums.new_zeros((*sums.shape[:-1], k))], dim=-1)
            for sums in (self._rhs, self._squares, self.on_counts)
        )

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
        estimator = solve_sums(self._sums(), self.n_samples, l2, directions, dtype or self.dtype)
        estimator.structure_id = self.structure_id
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
        passes = self._passes(data) if method == "loo" and data is not None and self.n_samples else None
        return choose_penalty(self._sums(), self.n_samples, method, directions, passes, progress)

    def _passes(self, data: Iterable[SampleTuple]) -> Passes:
        """Return what gives the samples of ``data`` anew at each call, checked; they must be as many as these hold."""
        if isinstance(data, Iterator):
            raise ValueError(
                "solve: l2='loo' must have data, (x, gates, targets) that can be gone through more than once "
                f"(a list, a DataLoader), got {type(data).__name__}"
            )

        def samples() -> Iterator[Samples]:
            n_samples = 0
            for x, gates, targets, *weights in data:
                part = self._read("solve", x, gates, targets, weights[0] if weights else None)
                n_samples += len(part)
                yield part
            if n_samples != self.n_samples:
                raise ValueError(
                    f"solve: data must be the N={self.n_samples:,} samples of the statistics, got {n_samples:,}"
                )

        return samples

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one file, whole or not at all; of the gram matrix its upper triangle."""
        write_files({Path(path): self.to_bytes()})

    def to_bytes(self, **entries: str) -> bytes:
        """Return a statistics file's content; ``entries`` join its metadata."""
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
        sums, n_samples, found = read_statistics(Path(path), structure_id)
        try:
            return cls.from_sums(sums, n_samples, found)
        except ValueError as error:
            raise ValueError(f"{path}: {str(error).removeprefix('from_sums: ')}") from None
