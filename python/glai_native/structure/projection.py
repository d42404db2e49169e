"""This module holds the input projection from raw x to z, what gates and numbers both read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor, nn

from glai_native.data.canonical import canonical_form, count_repeats
from glai_native.data.checks import (
    FLOATS,
    magnitude,
    require_dense,
    require_finite,
    require_sample_weight,
    require_samples,
    scale_sample_weight,
)
from glai_native.machine.watching import is_watched

# Rows that are centred at a time: large enough for the product, small enough to stay in cache (measured on MNIST:
# 4,096 for the covariance, 512 for the projection).
COVARIANCE_ROWS = 4096
PROJECT_ROWS = 512
# The covariance is symmetric: by this many bands of its upper triangle, 10 of 16 squares are computed.
COVARIANCE_BANDS = 4
# Beyond so many features the covariance [D, D] is not formed: a randomised SVD of the samples is cheaper.
COVARIANCE_FEATURES = 2000
# What a randomised SVD computes beyond the components asked for, and how often it multiplies by x and back.
OVERSAMPLING = 10
POWER_ITERATIONS = 4
# Rounding errors of a sum of variances, in units of the type's last place.
ROUNDINGS = 8
# Integers up to here are float32 numbers.
EXACT_INTEGERS = 1 << 24
# Components it tries first where a share of the variance is asked for.
FIRST_COMPONENTS = 64


class InputProjection(nn.Module):
    """``z = Rᵀ(x - mean)·scale``: what gates and numbers both read. Frozen.

    Made by :meth:`identity` or :meth:`fit`.

    Source: principal components; beyond 2,000 features by the randomised SVD of Halko, Martinsson and Tropp, arXiv
    0909.4061.

    Args:
        in_features: columns of raw x.
        mean: ``[in_features]``, or None for the identity.
        scale: one positive number for all features.
        rotation: R ``[in_features, D]`` with orthonormal columns, or None for no rotation.
    """

    mean: Tensor | None
    scale: Tensor | None
    rotation: Tensor | None

    def __init__(
        self,
        in_features: int,
        mean: Tensor | None = None,
        scale: Tensor | None = None,
        rotation: Tensor | None = None,
    ) -> None:
        super().__init__()
        if (mean is None) != (scale is None) or (mean is None and rotation is not None):
            raise ValueError("InputProjection: mean and scale must come together, rotation only with them")
        self.in_features = in_features
        self.out_features = in_features if rotation is None else rotation.shape[1]
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.register_buffer("rotation", rotation)

    @classmethod
    def identity(cls, in_features: int) -> InputProjection:
        """Make the projection z = x."""
        return cls(in_features)

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        x: Tensor,
        n_components: int | None = None,
        explained_variance: float | None = None,
        seed: int = 0,
        *,
        sample_weight: Tensor | None = None,
    ) -> InputProjection:
        """Centre, scale all features by one number so that their mean variance is 1, and rotate where asked to.

        Up to 2,000 features the axes are the eigenvectors of the covariance, taken in chunks of x: products are of
        x's dtype (float32 where x is of 16 bits or of integers up to 2^24, float64 beyond) and summed in float64, which
        leaves a float32 covariance a relative error of about 1e-6. Beyond, they are those of ``torch.svd_lowrank``, a
        randomised SVD with four power iterations: it never forms ``[D, D]`` and runs where x lies; variances come out a
        little low where they fall off slowly.

        Args:
            x: ``[N, in_features]``, float or integer, N >= 1, finite.
            n_components: also rotate onto that many principal components, at most min(N, in_features). Axes along
                which x does not vary are arbitrary.
            explained_variance: the same by the share of the variance that they keep, in (0, 1]: as few as reach it.
                With neither, all features are kept as they are.
            seed: of the randomised SVD.
            sample_weight: ``[N]``, >= 0, of means and variances; samples of weight 0 are left out, and integers are
                repetitions. None: 1 each.

        Returns:
            The projection. Where x does not vary at all, scale is 1.

        Raises:
            ValueError: x is empty or not finite, or a share or number that is out of range; both are given.
        """
        if not isinstance(x, Tensor) or x.ndim != 2 or not x.shape[0] or not x.shape[1]:
            found = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"InputProjection.fit: x must be [N >= 1, D >= 1], got {found}")
        if x.is_complex() or x.dtype == torch.bool:
            raise ValueError(f"InputProjection.fit: x must be floating or integer numbers, got {x.dtype}")
        require_dense("InputProjection.fit", "x", x)
        require_finite("InputProjection.fit", "x", x)
        weight = require_sample_weight("InputProjection.fit", sample_weight, len(x))
        repeats = count_repeats(weight)
        n_samples = len(x) if repeats is None else int(repeats.sum())
        if not n_samples:
            raise ValueError(
                "InputProjection.fit: sample_weight must be > 0 for at least one sample, got none"
            )
        _require_choice(n_samples, x.shape[1], n_components, explained_variance)
        x, weight = _weighed(x, weight)
        dtype = _float_of(x)
        rotation = None
        if n_components is None and explained_variance is None:
            moments = _Moments.of(x, weight, with_covariance=False)
            variance = moments.variance / x.shape[1]
        else:
            wide = x.shape[1] > COVARIANCE_FEATURES
            if wide:  # what is drawn must not hang on how samples are listed
                form = canonical_form([x], weight)
                x, weight = _weighed(form.of(x), form.weight)
            moments = _Moments.of(x, weight, with_covariance=not wide)
            # What rounding takes from a sum of variances must not ask for another component.
            share = (explained_variance or 0.0) - ROUNDINGS * torch.finfo(dtype).eps
            wanted = _Wanted(n_components, share * moments.variance)
            axes, variances = (
                _randomised_axes(x, weight, moments, wanted, seed) if wide else _exact_axes(moments, wanted)
            )
            # The sign of each axis is fixed so that a fit repeats.
            largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
            rotation = (axes * torch.where(largest < 0, -1.0, 1.0)).to(dtype).contiguous()
            variance = float(variances.mean())
        scale = 1.0 / math.sqrt(variance) if moments.variance > 0 else 1.0
        return cls(
            x.shape[1],
            moments.mean.to(dtype),
            torch.tensor(scale, dtype=torch.float32, device=x.device),
            rotation,
        )

    @property
    def kind(self) -> str:
        """``"identity"``, ``"centring"`` or ``"rotation"``."""
        if self.mean is None:
            return "identity"
        return "centring" if self.rotation is None else "rotation"

    @property
    def centred_in(self) -> torch.dtype:
        """The dtype in which the mean is taken from x, float64 where x was when it was fitted; identity: float32."""
        return torch.float32 if self.mean is None else self.mean.dtype

    def forward(self, x: Tensor) -> Tensor:
        """Project raw x ``[N, in_features]`` to z ``[N, D]``."""
        require_samples("InputProjection", x, self.in_features)
        # Attributes of a module and conversions that change nothing are what a call for one sample feels.
        mean, scale, rotation = (self._buffers[name] for name in ("mean", "scale", "rotation"))
        if mean is None or scale is None:
            return x
        if rotation is None:
            return (x - mean).mul_(scale)
        dtype = mean.dtype
        if x.dtype != dtype:
            dtype = torch.promote_types(x.dtype, dtype)
            rotation = rotation.to(dtype)
        one_product = is_watched(x) or x.shape[0] <= PROJECT_ROWS  # a graph is for any number of samples
        if one_product or (torch.is_grad_enabled() and x.requires_grad):
            return (x - mean) @ rotation * scale
        z = torch.empty((len(x), self.out_features), dtype=dtype, device=x.device)
        for begin in range(0, len(x), PROJECT_ROWS):
            rows = slice(begin, begin + PROJECT_ROWS)
            torch.mm(x[rows] - mean, rotation, out=z[rows]).mul_(scale)
        return z


def _float_of(x: Tensor) -> torch.dtype:
    """Return the dtype of sums over x: its own, or that which holds its integers."""
    if x.dtype in FLOATS:
        return x.dtype
    wide = not x.is_floating_point() and x.numel() and magnitude(x) > EXACT_INTEGERS
    return torch.float64 if wide else torch.float32


def _weighed(x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the samples of weight > 0, and their weights scaled to mean 1; None where all weigh the same."""
    if weight is None:
        return x, None
    kept = weight > 0
    if not bool(kept.all()):
        x, weight = x[kept.to(x.device)], weight[kept]
    if bool((weight == weight[0]).all()):
        return x, None
    return x, scale_sample_weight("InputProjection.fit", weight).to(x.device)


def _require_choice(
    n_samples: int, n_features: int, n_components: int | None, explained_variance: float | None
) -> None:
    if n_components is not None and explained_variance is not None:
        raise ValueError(
            "InputProjection.fit: n_components and explained_variance must not be given both, "
            f"got {n_components} and {explained_variance}"
        )
    most = min(n_samples, n_features)
    is_count = isinstance(n_components, Integral) and not isinstance(n_components, bool)
    if n_components is not None and not (is_count and 1 <= n_components <= most):
        raise ValueError(
            f"InputProjection.fit: n_components must be an int in [1, min(N={n_samples}, D={n_features})], "
            f"got {n_components!r}"
        )
    if explained_variance is not None and not 0 < explained_variance <= 1:
        raise ValueError(
            f"InputProjection.fit: explained_variance must be a share in (0, 1], got {explained_variance!r}"
        )


@dataclass(frozen=True)
class _Moments:
    """Of x ``[N, D]``, in float64: mean ``[D]``, the sum of all features' variances, covariance ``[D, D]`` or None.

    Only the upper triangle of the covariance is filled.
    """

    mean: Tensor
    variance: float
    covariance: Tensor | None

    @classmethod
    def of(cls, x: Tensor, weight: Tensor | None, with_covariance: bool) -> _Moments:
        """Take one pass in chunks, around the mean of the first, so that a large mean costs no digits.

        Weights are float64 ``[N]`` of mean 1, or None.
        """
        n, d = x.shape
        dtype = _float_of(x)
        first = x[:COVARIANCE_ROWS]
        around = first.to(dtype).mean(0)
        if weight is not None:
            shares = weight[: len(first)] / weight[: len(first)].max()
            around = ((first.double() * shares.unsqueeze(1)).sum(0) / shares.sum()).to(dtype)
        buffer = torch.empty_like(first, dtype=dtype)
        total = around.new_zeros(d, dtype=torch.float64)
        squares, product, covariance = total.clone(), None, None
        if with_covariance:
            product = around.new_zeros((d, d))
            covariance = torch.zeros_like(product, dtype=torch.float64)
        for begin in range(0, n, COVARIANCE_ROWS):
            chunk = x[begin : begin + COVARIANCE_ROWS]
            centred = torch.sub(chunk.to(dtype), around, out=buffer[: len(chunk)])
            if weight is not None:  # of the roots, products are the weighted ones
                root = weight[begin : begin + COVARIANCE_ROWS].sqrt().to(dtype).unsqueeze(1)
                centred *= root
                total += (centred * root).sum(0)
            else:
                total += centred.sum(0)
            if product is not None and covariance is not None:
                covariance += _upper_product(centred, out=product)
            else:
                squares += centred.square_().sum(0)
        shift = total / n
        if covariance is not None:
            squares = covariance.diagonal().clone()
            covariance = (covariance / n).sub_(torch.outer(shift, shift))
        variance = float((squares / n - shift.square()).sum())
        if not math.isfinite(variance):
            name = str(dtype).removeprefix("torch.")
            raise ValueError(
                f"InputProjection.fit: x must have squares that fit in {name}, got larger values"
            )
        rounding = ROUNDINGS * torch.finfo(dtype).eps * float(squares.sum()) / n
        return cls(around + shift, variance if variance > rounding else 0.0, covariance)


def _upper_product(x: Tensor, out: Tensor) -> Tensor:
    """Compute ``xᵀ·x`` on and above the diagonal of ``out``, in bands of rows."""
    height = -(-x.shape[1] // COVARIANCE_BANDS)
    for begin in range(0, x.shape[1], height):
        torch.mm(x[:, begin : begin + height].T, x[:, begin:], out=out[begin : begin + height, begin:])
    return out


@dataclass(frozen=True)
class _Wanted:
    """A number of components, or the variance that they have to keep."""

    count: int | None
    variance: float

    def of(self, variances: Tensor) -> int:
        """Return how many of ``variances``, the largest first, are wanted."""
        if self.count is not None:
            return self.count
        return min(int((variances.cumsum(0) < self.variance).sum()) + 1, len(variances))


def _exact_axes(moments: _Moments, wanted: _Wanted) -> tuple[Tensor, Tensor]:
    """Return axes ``[D, k]`` and variances ``[k]``, the largest first."""
    assert moments.covariance is not None
    variances, axes = torch.linalg.eigh(moments.covariance, UPLO="U")
    variances = variances.flip(0).clamp_(min=0)
    count = wanted.of(variances)
    return axes.flip(1)[:, :count], variances[:count]


def _randomised_axes(
    x: Tensor, weight: Tensor | None, moments: _Moments, wanted: _Wanted, seed: int
) -> tuple[Tensor, Tensor]:
    """Return the same without ``[D, D]``; where a share is wanted, try twice as many components until they reach it."""
    most = min(x.shape)
    dtype = _float_of(x)
    centred = x.to(dtype) - moments.mean.to(dtype)
    if weight is not None:
        centred *= weight.sqrt().to(dtype).unsqueeze(1)
    rank = wanted.count or min(FIRST_COMPONENTS, most)
    while True:
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            torch.manual_seed(int(seed))
            _, values, axes = torch.svd_lowrank(centred, min(rank + OVERSAMPLING, most), POWER_ITERATIONS)
        variances = values.double().square() / len(x)
        count = wanted.of(variances)
        if count <= rank:
            return axes[:, :count], variances[:count]
        rank = min(2 * rank, most)
