"""Memory that notices what a call should not do: inputs that cannot be written, and pages without access around all.

What is read lies in pages without write access, what is written in an arena whose every other byte is compared after
the call. A page that nobody may touch lies before and behind each, and tensors often end, or begin, right at it.
"""

import ctypes
import mmap
import random

import torch
from torch import Tensor

from glai_native.ops.oracle import pack_gates_ref

PAGE = mmap.PAGESIZE
NO_ACCESS, READ_ONLY = 0, 1
FLOATS = (torch.float32, torch.float64)
BYTES = (torch.bool, torch.uint8, torch.int8)
ITEM = {dtype: dtype.itemsize for dtype in (*FLOATS, torch.int32, torch.int64, *BYTES)}
ARENA_BYTES = 48 << 20
POOL_VALUES = 1 << 20
# Rows of gates, more than a block of samples of a kernel.
GATE_ROWS = 1200
DENSITIES = (0.0, 0.1, 0.5, 0.9, 1.0, None)  # None: what most samples have, and some noise

_libc = ctypes.CDLL(None, use_errno=True)


def guarded_bytes(size: int) -> tuple[Tensor, int]:
    """Uint8 memory of whole pages, at least ``size``, between two that nobody may touch; and its address."""
    inner = -(-size // PAGE) * PAGE
    pages = mmap.mmap(-1, inner + 2 * PAGE)
    whole = torch.frombuffer(pages, dtype=torch.uint8)
    begin = whole.data_ptr()
    protect(begin, PAGE, NO_ACCESS)
    protect(begin + PAGE + inner, PAGE, NO_ACCESS)
    return whole[PAGE : PAGE + inner], begin + PAGE


def protect(address: int, size: int, access: int) -> None:
    if _libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), access) != 0:
        raise OSError(ctypes.get_errno(), "mprotect failed")


def frozen(values: Tensor) -> Tensor:
    """A contiguous copy that cannot be written, flush with the page behind it."""
    size = values.numel() * values.itemsize
    memory, address = guarded_bytes(max(size, 1))
    copy = memory[memory.numel() - size :].view(values.dtype).view(values.shape) if size else values.clone()
    copy.copy_(values)
    protect(address, memory.numel(), READ_ONLY)
    return copy


class Gates:
    """Gates of GATE_ROWS samples, as words, as bools and as a float64 mask."""

    def __init__(self, n_gates: int, density: float | None, generator: torch.Generator) -> None:
        if density is None:
            usual = torch.rand(n_gates, generator=generator) < 0.5
            bits = usual ^ (torch.rand((GATE_ROWS, n_gates), generator=generator) < 0.03)
        else:
            bits = torch.rand((GATE_ROWS, n_gates), generator=generator) < density
        self.n_gates, self.words, self.bits = n_gates, frozen(pack_gates_ref(bits)), bits

    def rows(self, rng: random.Random, n: int) -> tuple[Tensor, Tensor]:
        """Words and bools of n samples."""
        first = GATE_ROWS - n if rng.random() < 0.5 else rng.randrange(GATE_ROWS - n + 1)
        return self.words[first : first + n], self.bits[first : first + n]


class Memory:
    """What the calls of one process read and write."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(7)
        values = torch.randn(POOL_VALUES, generator=self._generator, dtype=torch.float64)
        # Sums of products of these are exact in any order, the reference's too: what is repeated by a stride of 0
        # adds up the same rounding again and again, which the bound on results does not foresee.
        steps = ((torch.float32, 4), (torch.float64, 64))
        self._pools = {dtype: frozen(((values * step).round() / step).to(dtype)) for dtype, step in steps}
        self._pools[torch.bool] = frozen(values > 0)
        self._pools[torch.uint8] = frozen((50 * values.abs()).clamp(max=127).to(torch.uint8))
        self._pools[torch.int8] = frozen((50 * values).clamp(-128, 127).to(torch.int8))
        self._gates: dict[tuple[int, float | None], Gates] = {}
        self._bytes, _ = guarded_bytes(ARENA_BYTES)
        self._bytes.fill_(255)
        self.arena = {dtype: self._bytes.view(dtype) for dtype in ITEM}
        self._low = ARENA_BYTES

    def gates(self, rng: random.Random, n_gates: int) -> Gates:
        key = n_gates, rng.choice(DENSITIES)
        if key not in self._gates:
            self._gates[key] = Gates(*key, self._generator)
        return self._gates[key]

    def read(self, rng: random.Random, shape: tuple[int, ...], strides: tuple[int, ...], dtype) -> Tensor:
        """A view of the values that cannot be written."""
        return self._view(rng, self._pools[dtype], shape, strides)

    def overlapping(self, rng: random.Random, written: Tensor, other: Tensor) -> Tensor | None:
        """A tensor like ``other`` that begins where ``written`` does; None where the arena has no such place."""
        at = written.data_ptr() - self._bytes.data_ptr()
        item = other.itemsize
        extent = sum((s - 1) * t for s, t in zip(other.shape, other.stride(), strict=True)) + 1
        if at % item or at + extent * item > ARENA_BYTES or not 0 <= at < ARENA_BYTES:
            return None
        arena = self.arena[other.dtype]
        return arena.as_strided(other.shape, other.stride(), arena.storage_offset() + at // item)

    @staticmethod
    def _view(rng: random.Random, pool: Tensor, shape: tuple[int, ...], strides: tuple[int, ...]) -> Tensor:
        extent = span(shape, strides)
        most = pool.numel() - extent
        if most < 0:
            raise ValueError(f"the pool is too small for {shape} {strides}")
        place = rng.random()
        first = most if place < 0.6 else 0 if place < 0.7 else rng.randrange(most + 1)
        return pool.as_strided(shape, strides, pool.storage_offset() + first)

    def write(self, rng: random.Random, shape: tuple[int, ...], strides: tuple[int, ...], dtype) -> Tensor:
        """A view into the arena, before those that the call has there already; every byte is 255."""
        item = ITEM[dtype]
        gap = rng.choice((0, 0, 1, 3, 64)) * item
        first = (self._low - gap - span(shape, strides) * item) // item
        if first < 0:
            raise ValueError(f"the arena is too small for {shape} {strides}")
        self._low = first * item
        arena = self.arena[dtype]
        return arena.as_strided(shape, strides, arena.storage_offset() + first)

    def place(self, rng: random.Random, values: Tensor) -> Tensor:
        """A contiguous copy in the arena."""
        strides = contiguous(tuple(values.shape))
        return self.write(rng, tuple(values.shape), strides, values.dtype).copy_(values)

    def used(self) -> Tensor:
        """All that the call may have touched, and what lies before: int64."""
        return self.arena[torch.int64][max(0, self._low - 4096) // 8 :]

    def clear(self) -> None:
        self.used().fill_(-1)
        self._low = ARENA_BYTES


def span(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """How many elements lie from the first to past the last one."""
    if 0 in shape:
        return 0
    return sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) + 1


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, inner = [], 1
    for size in reversed(shape):
        strides.append(inner)
        inner *= max(size, 1)
    return tuple(reversed(strides))


def forget(tensor: Tensor) -> None:
    """Makes every byte of a tensor of the arena 255 again."""
    if tensor.numel():
        whole = {1: torch.uint8, 4: torch.int32, 8: torch.int64}[tensor.itemsize]
        tensor.view(whole).fill_(255 if whole == torch.uint8 else -1)
