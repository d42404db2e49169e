"""This module lets the processes of a group do one job together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


class Ranks:
    """The ranks of a process group, of which this process is one; alone where there is no group.

    Args:
        owner: who asks, for the messages.
        group: a ``torch.distributed`` process group of any backend that serves the job's device; None: no others.

    Attributes:
        rank: of this process in the group.
        size: how many processes there are.
    """

    def __init__(self, owner: str, group: dist.ProcessGroup | None = None) -> None:
        self._owner, self._group = owner, group
        self.rank, self.size = 0, 1
        if group is None:
            return
        if not dist.is_available() or not isinstance(group, dist.ProcessGroup):
            raise TypeError(
                f"{owner}: process_group must be a torch.distributed.ProcessGroup that this process is part of, "
                f"got {group!r}"
            )
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that prints and writes files."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """Return which of n things are this rank's: the shares of all ranks are in order and differ by at most one."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def add_up(self, tensor: Tensor) -> Tensor:
        """Sum a contiguous tensor over the ranks, in place; all get the same bits."""
        if self.size > 1:
            dist.all_reduce(tensor, group=self._group)
        return tensor

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Give rank 0's contiguous tensor to all, in place."""
        if self.size > 1:
            assert self._group is not None
            dist.broadcast(tensor, dist.get_global_rank(self._group, 0), group=self._group)
        return tensor

    def broadcast_bytes(self, content: bytes) -> bytes:
        """Return rank 0's bytes."""
        if self.size == 1:
            return content
        length = int(self.broadcast(torch.tensor([len(content)], device=self._device)))
        values = torch.zeros(length, dtype=torch.uint8, device="cpu")
        if self.is_first and length:
            values = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        return self.broadcast(values.to(self._device)).cpu().numpy().tobytes()

    def gather(self, text: str) -> list[str]:
        """Return the texts of all ranks, in their order."""
        if self.size == 1:
            return [text]
        content = torch.frombuffer(bytearray(text.encode() + b"\0"), dtype=torch.uint8).to(self._device)
        lengths = [torch.zeros(1, dtype=torch.int64, device=self._device) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(content)], device=self._device), group=self._group)
        longest = int(torch.cat(lengths).max())
        padded = content.new_zeros(longest)
        padded[: len(content)] = content
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded, group=self._group)
        return [part.cpu().numpy().tobytes().rstrip(b"\0").decode() for part in parts]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make what fails on one rank within fail on all, so that none waits for one that has gone.

        Raises:
            RuntimeError: the first sentence of another rank that failed, where this one did not.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            if self.size == 1:
                raise
            failure = error
        sentences = self.gather("" if failure is None else str(failure) or type(failure).__name__)
        if failure is not None:
            raise failure
        for rank, sentence in enumerate(sentences):
            if sentence:
                raise RuntimeError(f"{sentence} (on rank {rank})")

    def require_alike(self, facts: Mapping[str, str]) -> dict[str, str]:
        """Raise on all ranks alike if facts differ between them; return those that any rank stated."""
        known: dict[str, tuple[str, int]] = {}
        for rank, text in enumerate(self.gather(json.dumps(dict(facts)))):
            for name, value in json.loads(text).items():
                first, where = known.setdefault(name, (value, rank))
                if value != first:
                    raise ValueError(
                        f"{self._owner}: {name} must be alike on all ranks, got {first} on rank {where} and {value} "
                        f"on rank {rank}"
                    )
        return {name: value for name, (value, _) in known.items()}

    @property
    def _device(self) -> torch.device:
        """Where words between ranks lie: the host's memory where the group's backend serves it."""
        if "cpu" in dist.get_backend_config(self._group):
            return torch.device("cpu")
        return torch.device("cuda", torch.cuda.current_device())


def or_default(group: dist.ProcessGroup | None) -> dist.ProcessGroup | None:
    """Return the group, or where that is None the default process group, which is None where there is none."""
    return dist.group.WORLD if group is None and dist.is_available() else group
