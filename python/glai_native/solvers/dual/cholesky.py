"""A Cholesky factor takes the place of half of its matrix, block by block."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Rows and columns of a block. Each block is a dense product, which libraries do at nearly twice the rate of
# their own factorisation, and between blocks a bar can move and an interrupt is heard. Of 512 instead it takes a fifth
# longer at 1,000 to 2,500 samples, as long at 8,000.
BLOCK = 256
# Rows of a triangle that is inverted at once. Larger ones are inverted by halves, which is products: a block of 512
# took 7 ms at once.
TRIANGLE = 64


class NotPositiveDefiniteError(ArithmeticError):
    """The matrix has no Cholesky factor in its precision."""


class BlockCholesky:
    """``L·Lᵀ = matrix + diag(ridge)``, L in the lower block triangle of ``matrix``.

    The blocks below the diagonal are never read before they are written, those on it and above it never written: a
    symmetric matrix can be factored again and again, with one ridge after the other, in its own memory.

    Args:
        matrix: ``[N, N]``, float32 or float64, contiguous rows; its blocks below the diagonal are overwritten.
        ridge: ``[N]``, what is added to the diagonal.
        advance: called with the multiply-adds done since the last call.

    Raises:
        NotPositiveDefiniteError: a pivot is not positive in this precision.
    """

    def __init__(self, matrix: Tensor, ridge: Tensor, advance: Callable[[float], object] = float) -> None:
        self.matrix = matrix
        self._advance = advance
        self._blocks = [
            slice(start, min(start + BLOCK, len(matrix))) for start in range(0, len(matrix), BLOCK)
        ]
        # Inverses of L's diagonal blocks, [b, b] each: the only form in which those are ever used.
        self._inverses: list[Tensor] = []
        for at in self._blocks:
            before, below = slice(0, at.start), slice(at.stop, None)
            rows = matrix[at, before]
            pivot = torch.addmm(matrix[at, at], rows, rows.mT, alpha=-1)
            pivot.diagonal().add_(ridge[at])
            factor, info = torch.linalg.cholesky_ex(pivot)
            if int(info) != 0 or not bool(torch.isfinite(factor.diagonal()).all()):
                raise NotPositiveDefiniteError
            self._inverses.append(_inverse_of_lower(factor))
            panel = torch.addmm(matrix[at, below].mT, matrix[below, before], rows.mT, alpha=-1)
            torch.mm(panel, self._inverses[-1].mT, out=matrix[below, at])
            advance((len(matrix) - at.start) * at.stop * len(pivot))

    def solve(self, right: Tensor) -> Tensor:
        """Return ``(matrix + diag(ridge))⁻¹ · right`` for ``right [N, C]``."""
        return self.solve_transposed(self.solve_lower(right))

    def solve_lower(self, right: Tensor) -> Tensor:
        """Return ``L⁻¹ · right`` for ``right [N, C]``."""
        solution = right.clone()
        for at, inverse in zip(self._blocks, self._inverses, strict=True):
            solution[at] = inverse @ (solution[at] - self.matrix[at, : at.start] @ solution[: at.start])
        return solution

    def solve_transposed(self, right: Tensor) -> Tensor:
        """Return ``L⁻ᵀ · right`` for ``right [N, C]``."""
        solution = right.clone()
        for at, inverse in zip(reversed(self._blocks), reversed(self._inverses), strict=True):
            solution[at] = inverse.mT @ (solution[at] - self.matrix[at.stop :, at].mT @ solution[at.stop :])
        return solution

    def inverse_diagonal(self, last: int) -> Tensor:
        """Return the last of the diagonal of ``(matrix + diag(ridge))⁻¹``: sums of squares of the columns of ``L⁻¹``.

        Those are zero above the diagonal, so that the last entries depend on the last rows and columns of L alone.
        """
        n = len(self.matrix)
        diagonal = self.matrix.new_empty(n)
        for first, at in enumerate(self._blocks):
            if at.stop <= n - last:
                continue
            columns = self.matrix.new_empty(n - at.start, at.stop - at.start)
            columns[: at.stop - at.start] = self._inverses[first]
            for row, inverse in zip(self._blocks[first + 1 :], self._inverses[first + 1 :], strict=True):
                known = columns[: row.start - at.start]
                product = self.matrix[row, at.start : row.start] @ known
                columns[row.start - at.start : row.stop - at.start] = -(inverse @ product)
            diagonal[at] = columns.square().sum(0)
            self._advance((n - at.start) ** 2 / 2 * (at.stop - at.start))
        return diagonal[n - last :]


def _inverse_of_lower(factor: Tensor) -> Tensor:
    """Return the inverse of a lower triangle ``[n, n]``: of its two halves, and the product between them."""
    n, half = len(factor), len(factor) // 2
    if n <= TRIANGLE:
        eye = torch.eye(n, dtype=factor.dtype, device=factor.device)
        inverse: Tensor = torch.linalg.solve_triangular(factor, eye, upper=False)
        return inverse
    inverse = torch.zeros_like(factor)
    first, second = _inverse_of_lower(factor[:half, :half]), _inverse_of_lower(factor[half:, half:])
    inverse[:half, :half], inverse[half:, half:] = first, second
    torch.mm(second, factor[half:, :half] @ first, out=inverse[half:, :half]).neg_()
    return inverse
