"""Mean and scale of the first samples, by sums that have no rounding: the same for every order and machine."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# What one root mean square of the inputs is as an integer q; 63 is then four of them.
INPUT_RMS = 16
# Numbers are added up as integers of so many bits, relative to the largest; 64 bits hold 2^26 of them.
FIXED_POINT_BITS = 36
MOST_SAMPLES = 1 << 26
# Numbers that exist as float64 at a time.
CHUNK_NUMBERS = 1 << 22
LARGEST = torch.finfo(torch.float32).max


def centre_and_scale(x: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Return mean and scale, float32 ``[D]``, that put one root mean square of x - mean at ``INPUT_RMS``.

    Args:
        x: float32 ``[N >= 1, D]``, finite.
        kind: ``"global"``: all scales are equal; ``"features"``: each column has its own, and one that does not vary
            that of all.
    """
    n, d = x.shape
    if n > MOST_SAMPLES:
        raise ValueError(f"IntegerFeatures.fit: x must be of at most {MOST_SAMPLES:,} samples, got {n:,}")
    height = max(1, CHUNK_NUMBERS // d)
    sums, unit = _column_sums(x, None, height)
    mean = (sums.double() * (unit / n)).float()
    squares, unit = _column_sums(x, mean.double(), height)
    everywhere = _scale(sum(squares.tolist()), unit, n * d, otherwise=1.0)
    scales = [everywhere] * d
    if kind == "features":
        scales = [_scale(square, unit, n, otherwise=everywhere) for square in squares.tolist()]
    return mean, torch.tensor(scales, dtype=torch.float32, device="cpu")


def _scale(squares: int, unit: float, count: int, otherwise: float) -> float:
    """Return what puts the root of ``squares·unit / count`` at ``INPUT_RMS``."""
    if not squares:
        return otherwise
    return min(INPUT_RMS / math.sqrt(squares / count * unit), LARGEST)


def _column_sums(x: Tensor, mean: Tensor | None, height: int) -> tuple[Tensor, float]:
    """Return int64 ``[D]`` and the unit, a power of two, that they count: of x, or of (x - mean)²."""

    def values(part: Tensor) -> Tensor:
        return part.double() if mean is None else (part.double() - mean).square_()

    largest = max(float(values(part).abs().max()) for part in x.split(height))
    exponent = FIXED_POINT_BITS - math.frexp(largest)[1]
    sums = torch.zeros(x.shape[1], dtype=torch.int64, device="cpu")
    for part in x.split(height):
        sums += values(part).mul_(2.0**exponent).round_().long().sum(0)
    return sums, 2.0**-exponent


def quantised(x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Return q int8 ``[N, D]`` of x float32 ``[N, D]``: subtraction, product and rounding each to float32."""
    q = torch.empty(x.shape, dtype=torch.int8, device="cpu")
    height = max(1, CHUNK_NUMBERS // x.shape[1])
    for part, rows in zip(x.split(height), q.split(height), strict=True):
        rows.copy_((part - mean).mul_(scale).round_().clamp_(-63, 63))
    return q
