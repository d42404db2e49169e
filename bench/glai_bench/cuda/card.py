"""A GPU as the benchmark sees it: its clock, its size, and the rates that nothing on it passes."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from glai_bench.clock import Clock
from glai_native.machine.backend import allows_tf32, build_info

# Name to the type of the inputs, and whether products of float32 may round their operands to tf32.
PRECISIONS = {
    "bf16": (torch.bfloat16, False),
    "tf32": (torch.float32, True),
    "fp32": (torch.float32, False),
}

MATRIX_SIZE = 8192
COPY_BYTES = 1 << 30
FLOOR_REPEATS = 10


class Event(Protocol):
    """What the clock asks of ``torch.cuda.Event``."""

    def record(self) -> None:
        """Marks this point of the current stream."""

    def synchronize(self) -> None:
        """Waits until the stream has passed it."""

    def elapsed_time(self, end: Any) -> float:
        """Milliseconds from here to ``end``."""


def _cuda_event() -> Event:
    event: Event = torch.cuda.Event(enable_timing=True)
    return event


class EventClock:
    """Seconds between two events around a call that finds the second-level cache full of something else.

    The cache is overwritten before the first event. That takes long enough for the host to queue a short call behind
    it, so that a form of one launch is timed without the host's share, and a form of many launches with as much of it
    as the card has to wait for.

    Args:
        cold_bytes: how much to overwrite.
        device: of the calls.
        event: makes one event; tests give their own.
    """

    def __init__(
        self, cold_bytes: int, device: torch.device, event: Callable[[], Event] = _cuda_event
    ) -> None:
        self._cold = torch.empty(cold_bytes, dtype=torch.uint8, device=device)
        self._begin, self._end = event(), event()

    def __call__(self, call: Callable[[], object]) -> float:
        """Runs the call and waits for it."""
        self._cold.zero_()
        self._begin.record()
        call()
        self._end.record()
        self._end.synchronize()
        return self._begin.elapsed_time(self._end) / 1e3


@dataclass(frozen=True)
class Card:
    """Where the benchmark runs; ``name`` and sizes in bytes as the driver gives them."""

    name: str
    device: torch.device
    memory_bytes: int
    cache_bytes: int
    clock: Clock

    @classmethod
    def here(cls) -> Card:
        """The current GPU.

        Raises:
            RuntimeError: there is none, or this build has no kernels for it.
        """
        info = build_info()
        if not info["cuda_available"]:
            raise RuntimeError(f"--device cuda: no GPU to run on: {info['cuda_reason']}")
        device = torch.device("cuda", torch.cuda.current_device())
        properties = torch.cuda.get_device_properties(device)
        cache = int(properties.L2_cache_size)
        clock = EventClock(2 * cache, device)
        return cls(properties.name, device, int(properties.total_memory), cache, clock)

    def copy_bandwidth(self) -> float:
        """Bytes per second, read and written, of a large copy on the card."""
        size = min(COPY_BYTES, self.memory_bytes // 8)
        source = torch.randint(255, (size,), dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        return 2 * size / self._median(lambda: target.copy_(source))

    def matrix_rate(self, precision: str) -> float:
        """Multiply-adds per second of torch's product of two large squares of random values."""
        dtype, _ = PRECISIONS[precision]
        a, b, out = (torch.randn((MATRIX_SIZE, MATRIX_SIZE), device=self.device).to(dtype) for _ in range(3))
        with arithmetic(precision):
            return MATRIX_SIZE**3 / self._median(lambda: torch.mm(a, b, out=out))

    def release(self) -> None:
        """Hands memory that torch keeps for later back to the card: cells want it in other sizes."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _median(self, call: Callable[[], object]) -> float:
        call()
        return statistics.median(self.clock(call) for _ in range(FLOOR_REPEATS))


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Products of float32 as the precision says, for torch's calls and for ours."""
    matmul, before = torch.backends.cuda.matmul, allows_tf32()
    _, matmul.allow_tf32 = PRECISIONS[precision]
    try:
        yield
    finally:
        matmul.allow_tf32 = before
