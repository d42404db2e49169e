"""This file holds ridge regression over samples whose kernel matrix is too large to keep.

Some samples, the centres m, give Nyström's approximation of the kernel, ``K ≈ Φ·Φᵀ`` with ``Φ = K_nm·L⁻ᵀ`` and
``L·Lᵀ = K_mm``. The model on it is solved directly. The exact model over all samples is solved by conjugate gradients
on blocks of the kernel that are computed anew each time, with the approximation as preconditioner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from glai_native.machine.progress import multiply_adds_bar
from glai_native.solvers.dual.cholesky import BLOCK, BlockCholesky, NotPositiveDefiniteError
from glai_native.solvers.dual.features import PathFeatures
from glai_native.solvers.dual.ridge import KernelFit

# Centres of the preconditioner. Drawn uniformly: by ridge leverage scores instead, at as many centres, MNIST's
# validation accuracy was the same (96.5 and 96.5 on 2,000; 97.3 and 97.3 on 5,000), for more time.
PRECONDITIONER_CENTRES = 4096
LEAST_CENTRES = 64
# Of the mean diagonal, added to the centres' kernel where rounding leaves it without a factor; as l2's least share.
MOST_JITTER = 1e-3

# Samples against which a block of the kernel is computed at a time.
ROWS = 1024

# Relative residual at which conjugate gradients stop. It bounds what the fitted values still lack, relative to the
# targets: for classes, three thousandths of a score with ten of them.
TOLERANCE = 1e-2
# Stopping early regularises as l2 does: on MNIST (50,000 samples, two layers of 512 units, l2 = 0.02 of the mean
# diagonal) 6, 12 and 20 steps gave 98.21, 98.79 and 98.73 on 10,000 held-out samples.
MOST_ITERATIONS = 20


class NystromRidge:
    """``ΦᵀSΦ + l2·I``, factored: ridge regression on Nyström's features of M centres.

    Args:
        features: the N samples.
        ids: which of them are centres, ``[M]``.
        sample_weight: s, ``[N]``, all positive.
        l2: what the squares of the path weights cost.
        advance: called with the multiply-adds done since the last call.

    Raises:
        NotPositiveDefiniteError: l2 is too small for the precision.
    """

    def __init__(
        self,
        features: PathFeatures,
        ids: Tensor,
        sample_weight: Tensor,
        l2: float,
        advance: Callable[[float], object] = float,
    ) -> None:
        self.features, self.weight, self.l2 = features, sample_weight, l2
        self.centres = features[ids]
        m = len(ids)
        kernel = self.centres.kernel()
        self._root = _root(kernel, advance)
        gram = kernel.new_zeros(m, m)
        for at, rows in self._kernel_rows():
            phi = self._root.solve_lower(rows.mT)
            gram.addmm_(phi * sample_weight[at], phi.mT)
            advance(1.5 * m * m * len(rows))
        self._factor = BlockCholesky(gram, gram.new_tensor(l2).expand(m), advance)

    def _kernel_rows(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield K_nm, ``[ROWS, M]`` at a time."""
        block = self.features.z.new_empty(min(ROWS, len(self.features)), len(self.centres))
        for at in _slices(len(self.features)):
            yield at, self.features[at].kernel(self.centres, out=block[: at.stop - at.start])

    def coefficients(self, targets: Tensor) -> Tensor:
        """Return ``alpha [M, C]`` over the centres, from targets ``[N, C]``."""
        total = self._against_centres(self.weight.unsqueeze(1) * targets)
        return self._root.solve_transposed(self._factor.solve(total))

    def residuals(self, targets: Tensor, alpha: Tensor, advance: Callable[[float], object]) -> Tensor:
        """Return leave-one-out residuals ``[N, C]``, the centres staying as they are: ``(y_n - f(x_n)) / (1 - h_n)``.

        h_n, how much of its own target a sample gets back, is ``s_n·φ_nᵀ·(ΦᵀSΦ + l2·I)⁻¹·φ_n``.
        """
        residuals = targets.clone()
        for at, rows in self._kernel_rows():
            leverage = self._factor.solve_lower(self._root.solve_lower(rows.mT)).square().sum(0)
            residuals[at] -= rows @ alpha
            residuals[at] /= (1 - self.weight[at] * leverage).unsqueeze(1)
            advance(leverage.numel() * len(alpha) ** 2)
        return residuals

    def precondition(self, right: Tensor) -> Tensor:
        """Return ``(Φ·Φᵀ + l2·diag(1/s))⁻¹ · right [N, C]``, by Woodbury's identity."""
        weighted = self.weight.unsqueeze(1) * right
        alpha = self._root.solve_transposed(self._factor.solve(self._against_centres(weighted)))
        for at, rows in self._kernel_rows():
            weighted[at] -= self.weight[at].unsqueeze(1) * (rows @ alpha)
        return weighted / self.l2

    def _against_centres(self, values: Tensor) -> Tensor:
        """Return ``Φᵀ · values``, ``[M, C]``."""
        total = values.new_zeros(len(self.centres), values.shape[1])
        for at, rows in self._kernel_rows():
            total.addmm_(rows.mT, values[at])
        return self._root.solve_lower(total)


def kernel_product(features: PathFeatures, values: Tensor) -> Tensor:
    """Return ``K · values``, ``[N, C]``, without K: each block above the diagonal is computed once and used twice."""
    product = torch.zeros_like(values)
    block = values.new_empty(min(ROWS, len(features)) * len(features))
    for at in _slices(len(features)):
        shape = (at.stop - at.start, len(features) - at.start)
        rows = features[at].kernel(features[at.start :], out=block[: shape[0] * shape[1]].view(shape))
        product[at].addmm_(rows, values[at.start :])
        product[at.stop :].addmm_(rows[:, shape[0] :].mT, values[at])
    return product


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor],
    right: Tensor,
    advance: Callable[[], object],
) -> tuple[Tensor, float]:
    """Solve ``apply(x) = right [N, C]``, every column by itself, products with the matrix in common.

    Args:
        apply: the product with a symmetric positive definite matrix.
        precondition: the product with an approximation of its inverse, as symmetric and as definite.
        right: right-hand sides.
        advance: called after each step.

    Returns:
        x, and the largest relative residual of a column.
    """
    x = torch.zeros_like(right)
    residual = right.clone()
    size = right.norm(dim=0).clamp_min(torch.finfo(right.dtype).tiny)
    direction = conditioned = precondition(residual)
    decrease = (residual * conditioned).sum(0)
    for _ in range(MOST_ITERATIONS):
        image = apply(direction)
        step = _ratio(decrease, (direction * image).sum(0))
        x += step * direction
        residual -= step * image
        advance()
        if bool((residual.norm(dim=0) <= TOLERANCE * size).all()):
            break
        conditioned = precondition(residual)
        before, decrease = decrease, (residual * conditioned).sum(0)
        direction = conditioned + _ratio(decrease, before) * direction
    return x, float((residual.norm(dim=0) / size).max())


def fit_by_nystrom(
    features: PathFeatures,
    targets: Tensor,
    sample_weight: Tensor,
    l2: float,
    n_centres: int,
    seed: int,
    progress: bool,
) -> KernelFit:
    """Fit the model whose centres are ``n_centres`` of the samples.

    The arguments are as in :func:`solve_kernel_ridge`.

    Raises:
        NotPositiveDefiniteError: l2 is too small for the precision.
    """
    ids = _centres(features, n_centres, seed)
    # The residuals take as much again as the product of the features with themselves.
    total = 2 * _nystrom_cost(len(features), n_centres)
    with multiply_adds_bar("Nyström", total, progress) as advance:
        nystrom = NystromRidge(features, ids, sample_weight, l2, advance)
        alpha = nystrom.coefficients(targets)
        residuals = nystrom.residuals(targets, alpha, advance)
        return KernelFit(nystrom.centres, alpha, residuals, rows=ids)


def fit_by_conjugate_gradients(
    features: PathFeatures,
    targets: Tensor,
    sample_weight: Tensor,
    l2: float,
    n_centres: int,
    seed: int,
    progress: bool,
) -> KernelFit:
    """Fit with every sample a centre, ``n_centres`` of them in the preconditioner.

    The arguments are as in :func:`solve_kernel_ridge`.

    Raises:
        NotPositiveDefiniteError: l2 is too small for the precision.
    """
    if not l2 > 0:
        raise NotPositiveDefiniteError
    ids = _centres(features, n_centres, seed)
    with multiply_adds_bar("preconditioner", _nystrom_cost(len(features), n_centres), progress) as advance:
        nystrom = NystromRidge(features, ids, sample_weight, l2, advance)
    ridge = (l2 / sample_weight).unsqueeze(1)
    step = len(features) ** 2 / 2 * features.z.shape[1]
    with multiply_adds_bar("conjugate gradients", step * MOST_ITERATIONS, progress) as advance:
        alpha, residual = conjugate_gradients(
            lambda values: kernel_product(features, values) + ridge * values,
            nystrom.precondition,
            targets,
            lambda: advance(step),
        )
    return KernelFit(features, alpha, None, residual)


def nystrom_bytes(n: int, n_centres: int, n_outputs: int, itemsize: int) -> int:
    """Return the bytes that a fit on so many centres holds at most.

    Such a fit holds two matrices, rows of the kernel, and arrays like the targets.
    """
    rows = ROWS * max(4 * n_centres, n) + 3 * BLOCK * n_centres
    return itemsize * (2 * n_centres**2 + rows + 8 * n * n_outputs)


def _root(kernel: Tensor, advance: Callable[[float], object]) -> BlockCholesky:
    """Return L of K_mm, with as little added to its diagonal as rounding asks for.

    Where path features are fewer than centres, or samples equal, K_mm is singular and rounding makes it indefinite,
    more so over several blocks. What is added is noise beside any l2 that K itself allows.

    Raises:
        NotPositiveDefiniteError: ``MOST_JITTER`` is not enough.
    """
    mean, jitter = kernel.diagonal().mean(), torch.finfo(kernel.dtype).eps * len(kernel)
    while True:
        try:
            return BlockCholesky(kernel, (jitter * mean).expand(len(kernel)), advance)
        except NotPositiveDefiniteError:
            jitter *= 10
            if jitter > MOST_JITTER:
                raise


def _nystrom_cost(n: int, n_centres: int) -> float:
    return 1.5 * n * n_centres**2 + n_centres**3 / 3


def _slices(n: int) -> list[slice]:
    return [slice(start, min(start + ROWS, n)) for start in range(0, n, ROWS)]


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return the ratio, and 0 where nothing is left to divide: a column that is solved stands still."""
    return torch.where(denominator > 0, numerator / denominator, 0.0)


def _centres(features: PathFeatures, n_centres: int, seed: int) -> Tensor:
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed), device="cpu")
    return order[:n_centres].sort().values.to(features.z.device)
