"""The cases that are timed, and that the tests therefore check: shapes and densities of the gated ops."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

INDEPENDENT = "independent"  # gates drawn one by one; others are named after the data they come from


@dataclass(frozen=True)
class Shape:
    """N samples, P paths, D features, C outputs."""

    n: int
    p: int
    d: int
    c: int

    def __str__(self) -> str:
        return f"({self.n},{self.p},{self.d},{self.c})"

    @property
    def work(self) -> int:
        """Multiply-adds of one op where every gate is on."""
        return self.n * self.p * self.d * self.c

    @property
    def weight_bytes(self) -> int:
        """Of one float32 copy of the weights."""
        return 4 * self.p * self.d * self.c


GIANT = Shape(512, 64, 2048, 1000)
SHAPES = (
    Shape(256, 64, 64, 10),
    Shape(256, 256, 784, 10),
    Shape(512, 128, 512, 100),
    Shape(1024, 256, 384, 64),
    Shape(128, 17, 384, 77),
    Shape(4096, 25, 784, 10),
    Shape(512, 193, 50, 10),
    GIANT,
)
QUICK_SHAPES = (SHAPES[0], SHAPES[4], SHAPES[6])
DENSITIES = (1.0, 0.75, 0.5, 0.25, 0.1, 0.05)
QUICK_DENSITIES = (1.0, 0.5, 0.1)


@dataclass(frozen=True)
class Case:
    """Inputs of all three gated ops.

    Attributes:
        shape: of the inputs.
        density: what was asked for, or for the gates of a selector what was measured.
        x: ``[N, D]``.
        gates: bool ``[N, P]``.
        weight: ``[P, D, C]``.
        dy: ``[N, C]``.
        source: ``INDEPENDENT``, or the name of the data whose selector gave the gates.
    """

    shape: Shape
    density: float
    x: Tensor
    gates: Tensor
    weight: Tensor
    dy: Tensor
    source: str = INDEPENDENT


def make_case(
    shape: Shape,
    density: float,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    *,
    gates: Tensor | None = None,
    source: str = INDEPENDENT,
    device: torch.device | str = "cpu",
) -> Case:
    """Standard normal values, and independent gates of that density or the ``gates`` given; drawn on ``device``."""
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=dtype, device=device)

    if gates is None:
        gates = torch.rand((shape.n, shape.p), generator=generator, device=device) < density
    return Case(
        shape,
        density,
        x=normal(shape.n, shape.d),
        gates=gates,
        weight=normal(shape.p, shape.d, shape.c),
        dy=normal(shape.n, shape.c),
        source=source,
    )
