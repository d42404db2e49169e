"""This module holds activation patterns as packed bits."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import glai_native._native as _native
from glai_native.gates import words as _ops
from glai_native.gates.oracle import WORD_BITS as WORD_BITS
from glai_native.gates.oracle import words_per_row as words_per_row
from glai_native.machine.watching import is_watched, way

TELLING_SAMPLES = 64  # of a part, on average, whose deviation says something of the whole
# Steps per unit in which a compiled graph is told shares: each step is a graph of its own.
COARSE_STEPS = 32


class GateEstimate(NamedTuple):
    """What is known of gates on the host, so that a kernel can be chosen without a look at CUDA memory.

    ``density``: mean of the gates. ``deviation``: mean over gates of ``min(pi, 1 - pi)``, pi = how often one is on.
    """

    density: float
    deviation: float


class PackedGates:
    """Gates of N samples over P units or paths, one bit each.

    Source: activation patterns as in Raghu et al., arXiv 1606.05336; a bit each is this project's layout
    (csrc/core/gates.hpp).

    Args:
        words: int32 ``[N, ceil(P/32)]``, contiguous. Gate p of a sample is bit ``p % 32`` (least
            significant first) of word ``p // 32``; padding bits are zero (checked on the CPU only: a look at
            CUDA memory would synchronise).
        n_gates: P.
        structure_id: the structure whose gates these are, so that an estimator or a store of another one can
            refuse them; None: unknown.

    Attributes:
        estimate: density and deviation, where :meth:`density` or :meth:`deviation` was called or a store recorded
            them; None: not known. Samples taken from gates, and copies, inherit what is known of the whole.
        coarse_estimate: the same in few steps, which compiled graphs are told: a graph is compiled anew for each value.

    Raises:
        ValueError: wrong dtype, shape or layout of ``words``, or a padding bit that is set.
    """

    __slots__ = ("_estimate", "coarse_estimate", "n_gates", "structure_id", "words")

    def __init__(self, words: Tensor, n_gates: int, structure_id: str | None = None) -> None:
        try:
            n_gates = operator.index(n_gates)
        except TypeError:
            raise TypeError(f"PackedGates: n_gates must be an int, got {type(n_gates).__name__}") from None
        if is_watched(words):  # values that nobody may look at
            _require_shape(words, n_gates)
        else:
            _native.check_words(words, n_gates)
        self.words = words
        self.n_gates = n_gates
        self.structure_id = structure_id
        self._estimate: GateEstimate | None = None
        self.coarse_estimate: tuple[float, float] | None = None

    @classmethod
    def _trusted(
        cls,
        words: Tensor,
        n_gates: int,
        structure_id: str | None = None,
        estimate: GateEstimate | None = None,
    ) -> PackedGates:
        """Wrap words that one of our own kernels has just written, of which nothing is left to check."""
        gates = cls.__new__(cls)
        gates.words = words
        gates.n_gates = n_gates
        gates.structure_id = structure_id
        gates._estimate = estimate
        gates.coarse_estimate = None if estimate is None else _coarse(estimate)
        return gates

    def _with_words(self, words: Tensor) -> PackedGates:
        """Wrap words of some of these samples, or on another device."""
        gates = self._trusted(words, self.n_gates, self.structure_id)
        gates._estimate, gates.coarse_estimate = self._estimate, self.coarse_estimate
        return gates

    @classmethod
    def cat(cls, parts: Sequence[PackedGates]) -> PackedGates:
        """Join the samples of all ``parts``, in order; they must have the same number of gates."""
        if not parts:
            raise ValueError("PackedGates.cat: parts must not be empty")
        n_gates = parts[0].n_gates
        for part in parts:
            if part.n_gates != n_gates:
                raise ValueError(f"PackedGates.cat: all parts must have P={n_gates}, got P={part.n_gates}")
        words = torch.cat([part.words for part in parts])
        structure_id = common_structure("PackedGates.cat", parts)
        if is_watched(words):
            return cls._trusted(words, n_gates, structure_id)
        estimate = mean_estimate([(len(part), part.estimate) for part in parts])
        return cls._trusted(words, n_gates, structure_id, estimate)

    def __len__(self) -> int:
        return self.words.shape[0]

    def __repr__(self) -> str:
        return f"PackedGates(N={len(self)}, P={self.n_gates}, device='{self.device}')"

    @property
    def estimate(self) -> GateEstimate | None:
        """Density and deviation, where they are known."""
        return self._estimate

    @estimate.setter
    def estimate(self, estimate: GateEstimate | None) -> None:
        self._estimate = estimate
        self.coarse_estimate = None if estimate is None else _coarse(estimate)

    @property
    def device(self) -> torch.device:
        """Where the words lie."""
        return self.words.device

    @property
    def nbytes(self) -> int:
        """Bytes of the words."""
        return self.words.numel() * 4

    def to(self, device: torch.device | str) -> PackedGates:
        """Return the same gates on another device."""
        return self._with_words(self.words.to(device))

    def __getitem__(self, index: Any) -> PackedGates:
        """Select samples by integer (one sample stays a row), slice, integer tensor or bool mask ``[N]``."""
        if isinstance(index, (int, np.integer)):
            n, index = len(self), int(index)
            if not -n <= index < n:
                raise IndexError(f"PackedGates: index must be in [-{n}, {n}), got {index}")
            index = slice(index % n, index % n + 1)
        words = self.words[index]
        if words.ndim != 2 or words.shape[1] != self.words.shape[1]:
            raise ValueError(
                "PackedGates: an index selects samples only, pass an int, a slice or a 1-D tensor"
            )
        return self._with_words(words.contiguous())

    def unpack(self) -> Tensor:
        """Return the gates as bool ``[N, P]``."""
        return _ops.UNPACK[way(self.words)](self.words, self.n_gates)

    def counts(self) -> Tensor:
        """Count in how many samples each gate is on: int64 ``[P]``."""
        return _ops.COUNTS[way(self.words)](self.words, self.n_gates)

    def counts_by_class(self, targets: Tensor, n_classes: int, repeats: Tensor | None = None) -> Tensor:
        """Count in how many samples of each class each gate is on: int64 ``[P, C]`` for class indices ``[N]``.

        Args:
            targets: class indices.
            n_classes: C.
            repeats: int64 ``[N]``, >= 0, for how many samples each counts; None: for one.
        """
        if repeats is not None:  # one of their bits at a time
            bits = [1 << b for b in range(int(repeats.max()).bit_length() if len(repeats) else 0)]
            having = [(repeats & bit) > 0 for bit in bits]
            parts = [self[rows].counts_by_class(targets[rows], n_classes) for rows in having]
            none = torch.zeros((self.n_gates, n_classes), dtype=torch.int64, device=self.device)
            return sum((bit * part for bit, part in zip(bits, parts, strict=True)), start=none)
        counts = torch.zeros((self.n_gates, n_classes), dtype=torch.int64, device=self.device)
        for c in targets.unique().tolist():
            counts[:, c] = self[targets == c].counts()
        return counts

    def density(self) -> float:
        """Return the mean of the gates; NaN when there are none.

        The call counts, waits for a GPU, and keeps :attr:`estimate`.
        """
        return self._measure().density

    def deviation(self) -> float:
        """Return the mean over gates of ``min(pi, 1 - pi)``, pi = how often the gate is on; NaN when there are none.

        This is what is left to compute once the majority gate is taken as the reference (0 to 0.5). The call counts,
        waits for a GPU, and keeps :attr:`estimate`.
        """
        return self._measure().deviation

    def _measure(self) -> GateEstimate:
        if not len(self) or not self.n_gates:
            return GateEstimate(float("nan"), float("nan"))
        counts = self.counts()
        # Exact, and one look at the counts for both.
        on, deviating = torch.stack([counts, torch.minimum(counts, len(self) - counts)]).sum(1).tolist()
        total = len(self) * self.n_gates
        self.estimate = GateEstimate(on / total, deviating / total)
        return self.estimate

    def hamming(self, other: PackedGates) -> Tensor:
        """Count in how many gates each sample differs from the same sample of ``other``: int64 ``[N]``.

        Raises:
            ValueError: ``other`` has another number of samples or gates, or lies on another device.
        """
        if not isinstance(other, PackedGates):
            raise TypeError(f"hamming: other must be PackedGates, got {type(other).__name__}")
        if other.n_gates != self.n_gates:
            raise ValueError(f"hamming: other must have P={self.n_gates} gates, got P={other.n_gates}")
        return _ops.HAMMING[way(self.words, other.words)](self.words, other.words, self.n_gates)

    def agreement(self, other: PackedGates) -> float:
        """Return the share of gates that are equal in ``other``; NaN when there are none."""
        distance = int(self.hamming(other).sum())
        total = len(self) * self.n_gates
        return 1.0 - distance / total if total else float("nan")


def _coarse(estimate: GateEstimate) -> tuple[float, float]:
    density, deviation = estimate
    return round(COARSE_STEPS * density) / COARSE_STEPS, round(COARSE_STEPS * deviation) / COARSE_STEPS


def _require_shape(words: Tensor, n_gates: int) -> None:
    """Raise as far as sizes tell; the values of words that are traced or batched are not there to be checked."""
    w = words_per_row(n_gates)
    if words.dtype != torch.int32 or words.ndim != 2 or words.shape[1] != w or n_gates < 0:
        raise ValueError(
            f"PackedGates: words must be int32 [N, W={w}] for P={n_gates} gates, "
            f"got {str(words.dtype).removeprefix('torch.')} {list(words.shape)}"
        )


def mean_estimate(parts: Sequence[tuple[int, GateEstimate | None]]) -> GateEstimate | None:
    """Estimate all samples together from how many each part has and what is known of it; None where one is not known.

    The density is theirs; the deviation is at least the parts', more where they differ in which gates are on: of parts
    too small to show it, the most that the density allows.
    """
    known = [(n, estimate) for n, estimate in parts if n and estimate is not None]
    total = sum(n for n, _ in known)
    if not known or total < sum(n for n, _ in parts):
        return None
    density = sum(n * estimate.density for n, estimate in known) / total
    if len(known) > 1 and total < TELLING_SAMPLES * len(known):
        return GateEstimate(density, min(density, 1 - density))
    return GateEstimate(density, sum(n * estimate.deviation for n, estimate in known) / total)


def common_structure(owner: str, gates: Sequence[PackedGates]) -> str | None:
    """Return the structure_id that ``gates`` state, None where none does; raise if they state different ones."""
    ids = {part.structure_id for part in gates} - {None}
    if len(ids) > 1:
        short = " and ".join(f"{structure_id[:12]}…" for structure_id in sorted(i for i in ids if i))
        raise ValueError(f"{owner}: gates must be of one structure, got structure_id {short}")
    return ids.pop() if ids else None


def require_unit_gates(
    owner: str, layers: Sequence[PackedGates], widths: Sequence[int], structure_id: str | None
) -> None:
    """Raise unless layers are unit bits of the same samples, a :class:`PackedGates` per hidden layer of a structure."""
    if isinstance(layers, PackedGates) or any(not isinstance(layer, PackedGates) for layer in layers):
        raise TypeError(f"{owner}: layers must be a sequence of PackedGates, one per hidden layer")
    found = [layer.n_gates for layer in layers]
    if found != list(widths):
        raise ValueError(f"{owner}: layers must have widths {list(widths)}, got {found}")
    for layer in layers:
        require_structure(owner, layer, structure_id)
    if any(layer.words.shape[0] != layers[0].words.shape[0] for layer in layers[1:]):
        raise ValueError(
            f"{owner}: all layers must have the same number of samples, got {[len(layer) for layer in layers]}"
        )


def require_structure(owner: str, gates: PackedGates, structure_id: str | None) -> None:
    """Raise if gates are known to be of another structure."""
    if structure_id is not None and gates.structure_id not in (None, structure_id):
        raise ValueError(
            f"{owner}: gates must be of structure_id {structure_id[:12]}…, got {(gates.structure_id or '')[:12]}…"
        )


def require_path_gates(
    owner: str, gates: PackedGates, n_samples: int, n_paths: int, structure_id: str | None
) -> None:
    """Raise unless gates are the path gates ``[N, P]`` of a structure; a structure_id of None is any."""
    if not isinstance(gates, PackedGates):
        raise TypeError(f"{owner}: gates must be PackedGates, got {type(gates).__name__}")
    require_structure(owner, gates, structure_id)
    if (len(gates), gates.n_gates) != (n_samples, n_paths):
        raise ValueError(
            f"{owner}: gates must be of N={n_samples} samples and P={n_paths} paths, "
            f"got N={len(gates)} and P={gates.n_gates}"
        )
