"""Integer sums over samples become a centred system in floats, exactly but for one rounding of each element.

The columns of φ are (h, q + 64, 127): units, linear features, and a constant. The constant's weight is not penalised,
so it is eliminated first: what is left is the system of the features less their means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from glai_native.solvers.statistics.ridge import SingularSystem

CONSTANT = 127  # the value of φ's last column
# What the weight of a linear feature is charged, where that of a unit is charged l2. On held-out samples of features of
# Tiny-ImageNet 0.3 points over equal charges, 0.1 on BANKING77, level on MNIST, letter and digits.
LINEAR_SHARE = 0.1
BLOCK_BYTES = 1 << 20  # of rows that are centred at a time


@dataclass(frozen=True)
class FeatureSums:
    """Sums over N samples of integer features φ ``[N, M]`` and targets t ``[N, C]``.

    Attributes:
        gram: φᵀφ, int64 ``[M, M]``; only its upper triangle is read.
        cross: φᵀt, int64 ``[M, C]``.
        n_samples: N.
        n_units: how many of the columns are units; the linear features follow, and the constant is last.
        squares: sum of t² of each output; None: targets are classes, of which each sample has one.
        class_grams: φᵀφ of each class, int64 ``[C, M, M]``, where they were kept.
    """

    gram: Tensor
    cross: Tensor
    n_samples: int
    n_units: int
    squares: Sequence[int] | None = None
    class_grams: Tensor | None = None

    @property
    def totals(self) -> Tensor:
        """The sum of each output's targets, int64 ``[C]``: for classes how many samples each has."""
        return self.cross[-1] // CONSTANT

    def require_whole(self) -> None:
        """Raise unless these can be the sums of samples.

        Raises:
            SingularSystem: a ValueError: there are no samples.
            ValueError: samples were taken out that the sums did not hold.
        """
        if self.n_samples <= 0:
            raise SingularSystem("solve: the statistics must hold samples, got none; update adds them")
        counted, rest = divmod(int(self.gram[-1, -1]), CONSTANT**2)
        negative = self.squares is None and bool((self.totals < 0).any())
        if rest or counted != self.n_samples or negative or bool((self.gram.diagonal() < 0).any()):
            raise ValueError(
                f"solve: the sums must be those of N={self.n_samples:,} samples, got others: samples were taken out "
                "that they did not hold"
            )


class CentredSystem:
    """``min over w of |(φ - mean)·w - (t - mean)|² + l2·|w|²``, from integer sums.

    Each column is first shifted by the integer next to its mean, in integers, so that what floats subtract is at most a
    quarter of N: an element is as exact as its type can hold, for any number of samples.

    Args:
        sums: of the samples.
        class_weight: what a sample of each class weighs, float64 ``[C]``; needs the sums' ``class_grams``.

    Attributes:
        size: K = M - 1, the unknowns of an output but the constant's.
        n_samples: how many have a weight.
        weight_sum: of the samples.
        rhs: centred φᵀt, float64 ``[K, C]``.
        squares: sum of the centred targets' squares.
        mean: of φ's columns, float64 ``[K]``.
        has_classes: the targets are 0 or 1, and of a sample one is 1.
        target_mean: of the outputs, float64 ``[C]``.
        scale: what the columns are multiplied by, float64 ``[K]``, so that every weight is charged l2.
    """

    def __init__(self, sums: FeatureSums, class_weight: Tensor | None = None) -> None:
        sums.require_whole()
        gram, cross, totals = sums.gram, sums.cross, sums.totals
        size = self.size = len(gram) - 1
        self.has_classes = sums.squares is None
        self.scale = torch.ones(size, dtype=torch.float64, device=gram.device)
        self.scale[sums.n_units :] /= LINEAR_SHARE**0.5
        weight = torch.ones(cross.shape[1], dtype=torch.float64, device=gram.device)
        self._parts = [_Part(1.0, gram, gram[:-1, -1] // CONSTANT, sums.n_samples)]
        if class_weight is not None:
            if sums.class_grams is None:
                raise ValueError(
                    "solve: class_weight needs sums per class, got none; per_class=True keeps them"
                )
            weight = class_weight.to(weight).where(totals > 0, 0)
            parts = zip(weight.tolist(), sums.class_grams, cross[:-1].T, totals.tolist(), strict=True)
            self._parts = [_Part(*part) for part in parts if part[0] > 0]
            if not self._parts:
                raise SingularSystem(
                    "solve: class_weight must be > 0 for a class that has samples, got 0 for all"
                )
        self.n_samples = sum(part.n_samples for part in self._parts)
        self.weight_sum = sum(part.weight * part.n_samples for part in self._parts)
        columns = torch.stack([part.weight * part.sums.double() for part in self._parts])
        self.mean = columns.sum(0) / self.weight_sum
        self._shift = self.mean.round().long()
        # Of the shifted columns' sums, at most half the weights': what the integers next to the means have left.
        self._rest = torch.stack(
            [part.weight * (part.sums - part.n_samples * self._shift).double() for part in self._parts]
        ).sum(0)
        weighed_totals = weight * totals
        self.target_mean = weighed_totals / self.weight_sum
        shifted = (cross[:-1] - self._shift.unsqueeze(1) * totals) * weight
        self.rhs = (shifted - torch.outer(self._rest, self.target_mean)) * self.scale.unsqueeze(1)
        self.squares = self._squares(sums, weighed_totals)

    def _squares(self, sums: FeatureSums, totals: Tensor) -> float:
        """Return the sum of the centred targets' squares."""
        if sums.squares is None:
            return float((totals - totals.square() / self.weight_sum).sum())
        n = sums.n_samples
        exact = [
            (n * square - total**2) / n
            for square, total in zip(sums.squares, sums.totals.tolist(), strict=True)
        ]
        return float(sum(exact))

    def blocks(self) -> Iterator[tuple[int, int, Tensor]]:
        """Yield ``begin, end`` and rows ``[begin:end, begin:K]`` of the centred gram matrix; those above its diagonal.

        What lies below the diagonal within the block is no part of it.
        """
        height = max(16, BLOCK_BYTES // 8 // max(self.size, 1))
        for begin in range(0, self.size, height):
            end = min(begin + height, self.size)
            rows, columns = slice(begin, end), slice(begin, self.size)
            block = self._shifted(self._parts[0], rows, columns)
            for part in self._parts[1:]:
                block += self._shifted(part, rows, columns)
            block.addr_(self._rest[rows], self._rest[columns], alpha=-1 / self.weight_sum)
            if LINEAR_SHARE != 1:
                block *= self.scale[rows].unsqueeze(1)
                block *= self.scale[columns]
            yield begin, end, block

    def gram(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the centred gram matrix ``[K, K]``, of which the upper triangle is filled."""
        gram = torch.zeros(self.size, self.size, dtype=dtype, device=self.rhs.device)
        for begin, end, block in self.blocks():
            gram[begin:end, begin:] = block
        return gram

    def diagonal(self) -> Tensor:
        """Return the centred gram matrix's diagonal, float64 ``[K]``."""
        diagonal = torch.zeros_like(self.mean)
        for part in self._parts:
            shifted = (
                part.gram.diagonal()[:-1] - 2 * self._shift * part.sums + part.n_samples * self._shift**2
            )
            diagonal += part.weight * shifted.double()
        return (diagonal - self._rest.square() / self.weight_sum) * self.scale.square()

    def product(self, x: Tensor) -> Tensor:
        """Return the centred gram matrix times x float64 ``[K, C]``; no more than a block of it is made."""
        return symmetric_product(self.blocks(), x)

    def _shifted(self, part: _Part, rows: slice, columns: slice) -> Tensor:
        """Return elements of a part's gram matrix of φ - shift, float64, times the part's weight."""
        rest = part.sums[columns] - part.n_samples * self._shift[columns]
        block = part.gram[rows, columns].clone()
        block.addcmul_(self._shift[rows].unsqueeze(1), rest.unsqueeze(0), value=-1)
        block.addcmul_(part.sums[rows].unsqueeze(1), self._shift[columns].unsqueeze(0), value=-1)
        floats = block.double()
        return floats if part.weight == 1 else floats.mul_(part.weight)


def symmetric_product(blocks: Iterable[tuple[int, int, Tensor]], x: Tensor) -> Tensor:
    """Return a symmetric matrix times x ``[K, C]``, from rows of its upper triangle as ``blocks`` gives them."""
    product = torch.zeros_like(x)
    for begin, end, block in blocks:
        product[begin:end] += block.triu() @ x[begin:]
        product[begin:] += block.triu(1).T @ x[begin:end]
    return product


def columns_weight(solution: Tensor, scale: Tensor, mean: Tensor, target_mean: Tensor) -> Tensor:
    """Return the weights ``[M, C]`` of φ's own columns, from those of centred and scaled ones ``[K, C]``."""
    weight = solution * scale.unsqueeze(1)
    constant = (target_mean - mean @ weight) / CONSTANT
    return torch.cat([weight, constant.unsqueeze(0)])


class _Part(NamedTuple):
    """Samples of one weight.

    Attributes:
        weight: of each.
        gram: their φᵀφ, int64 ``[M, M]``.
        sums: of their columns but the constant, int64 ``[K]``.
        n_samples: how many they are.
    """

    weight: float
    gram: Tensor
    sums: Tensor
    n_samples: int
