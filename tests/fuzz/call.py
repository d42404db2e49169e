"""One call of a native function: what it is given, what it writes, and what must hold afterwards."""

import dataclasses
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fuzz.memory import FLOATS, POOL_VALUES, Memory, contiguous, span

# Around nothing, a word, a vector; the small ones often, since calls should take microseconds.
SIZES = (0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33)
SAMPLES = (0, 1, 2, 3, 5, 8, 9, 17, 31, 32, 33, 64, 65)
GATES = (0, 1, 2, 3, 5, 8, 9, 16, 31, 32, 33, 63, 64, 65, 97)
LARGE_SAMPLES = (130, 257, 700, 1025, 1100)
LARGE_SIZES = (48, 64, 65, 97, 128, 130, 200)
HUGE_STRIDE = 1 << 58  # of a dimension of size 1


@dataclasses.dataclass
class Call:
    """``written``: names of the arguments that are written; ``holds`` checks their values after a right call."""

    name: str
    function: Callable[..., Any]
    arguments: dict[str, Any]
    written: tuple[str, ...] = ()
    holds: Callable[[Any], None] = lambda _: None
    placed: tuple[Tensor, ...] = ()  # inputs that lie in the arena
    owner: str = ""  # the op that a sentence names, where it is not the function

    def tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.arguments.items() if isinstance(value, Tensor)}


class Draw:
    """Draws sizes, layouts and tensors for one call."""

    def __init__(self, rng: random.Random, memory: Memory) -> None:
        self.rng, self.memory = rng, memory
        self.dtype = rng.choice(FLOATS)
        large = rng.random() < 0.01
        self.n = rng.choice(LARGE_SAMPLES if large and rng.random() < 0.7 else SAMPLES)
        self._large = large

    def size(self) -> int:
        if self._large and self.rng.random() < 0.3:
            return self.rng.choice(LARGE_SIZES)
        return self.rng.choice(SIZES)

    def n_gates(self) -> int:
        return self.rng.choice(GATES)

    def gates(self, n_gates: int, n: int | None = None) -> tuple[Tensor, Tensor]:
        return self.memory.gates(self.rng, n_gates).rows(self.rng, self.n if n is None else n)

    def row_stride(self, columns: int, rows: int) -> int:
        """Of an input: any."""
        if rows == 1 and self.rng.random() < 0.3:
            return HUGE_STRIDE
        kind = self.rng.random()
        if kind < 0.5:
            return columns
        return self.rng.choice((0, 1, columns + 1, columns + 5, 2 * columns, 128))

    def matrix(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """An input whose last dimension has stride 1, of one dimension or two."""
        strides = (1,) if len(shape) == 1 else (self.row_stride(shape[1], shape[0]), 1)
        return self.memory.read(self.rng, shape, strides, dtype or self.dtype)

    def either(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """An input of two or three dimensions with stride 1 in one of the last two."""
        *outer, rows, columns = shape
        strides = [self.row_stride(columns, rows), 1]
        if self.rng.random() < 0.5:
            strides = [1, self.row_stride(rows, columns)]
        matrix = 1
        for size, stride in zip((rows, columns), strides, strict=True):
            matrix += max(size - 1, 0) * stride
        for size in outer:
            step = HUGE_STRIDE if size == 1 else self.rng.choice((matrix, matrix, 0, 1, matrix + 3))
            strides.insert(0, step)
        if span(shape, tuple(strides)) > POOL_VALUES:
            strides[: len(outer)] = [0] * len(outer)
        return self.memory.read(self.rng, shape, tuple(strides), dtype or self.dtype)

    def rows(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """An output whose rows may lie apart, in the arena."""
        strides = [1]
        for size in reversed(shape[1:]):
            strides.insert(0, strides[0] * max(size, 1) + self.rng.choice((0, 0, 1, 7)))
        if shape[0] == 1 and self.rng.random() < 0.3:
            strides[0] = HUGE_STRIDE
        return self.memory.write(self.rng, shape, tuple(strides), dtype or self.dtype)

    def packed(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """A contiguous output."""
        return self.memory.write(self.rng, shape, contiguous(shape), dtype or self.dtype)

    def maybe(self, make: Callable[[], Tensor]) -> Tensor | None:
        return make() if self.rng.random() < 0.5 else None

    def started(self, tensor: Tensor) -> Tensor:
        """Writes values into an output that is added to; returns a copy."""
        if tensor.numel() > POOL_VALUES:
            tensor.fill_(1)
        else:
            tensor.copy_(self.matrix(tensor.numel()).view(tensor.shape))
        return tensor.clone()

    def execution(self, stream: bool = True) -> dict[str, int]:
        threads = {"threads": self.rng.choice((1, 1, 1, 1, 2, 3, 0, -1, 1 << 40))}
        return threads | {"stream": 0} if stream else threads
