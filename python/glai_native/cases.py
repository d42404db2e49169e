"""The cases that are timed, and that the tests therefore check: shapes and densities of the gated ops."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shape:
    """N samples, P paths, D features, C outputs."""

    n: int
    p: int
    d: int
    c: int

    def __str__(self) -> str:
        return f"({self.n},{self.p},{self.d},{self.c})"


SHAPES = (
    Shape(256, 64, 64, 10),
    Shape(256, 256, 784, 10),
    Shape(512, 128, 512, 100),
    Shape(1024, 256, 384, 64),
    Shape(128, 17, 384, 77),
    Shape(4096, 25, 784, 10),
    Shape(512, 193, 50, 10),
    Shape(512, 64, 2048, 1000),
)
QUICK_SHAPES = (SHAPES[0], SHAPES[4], SHAPES[6])
DENSITIES = (1.0, 0.75, 0.5, 0.25, 0.1, 0.05)
QUICK_DENSITIES = (1.0, 0.5, 0.1)


@dataclass(frozen=True)
class Case:
    """Inputs of all three gated ops for one shape and density; gates bool ``[N, P]``."""

    shape: Shape
    density: float
    x: Tensor
    gates: Tensor
    weight: Tensor
    dy: Tensor


def make_case(shape: Shape, density: float, dtype: torch.dtype = torch.float32, seed: int = 0) -> Case:
    """Standard normal values and independent gates."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=dtype)

    return Case(
        shape,
        density,
        x=normal(shape.n, shape.d),
        gates=torch.rand((shape.n, shape.p), generator=generator) < density,
        weight=normal(shape.p, shape.d, shape.c),
        dy=normal(shape.n, shape.c),
    )
