"""Stored gates and what goes with them are a dataset of PyTorch's here, for its DataLoader."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler
from torch.utils.data._utils.collate import default_collate_fn_map

from glai_native.gates.packed import PackedGates
from glai_native.gates.store import GateStore


class _Rows(tuple[Any, ...]):
    """Gates and tensors of some samples, which batches join along the samples: PyTorch would stack them."""


class GateDataset(Dataset[Any]):
    """Samples with their stored gates, fetched a batch at a time; :meth:`loader` makes the DataLoader.

    A plain ``DataLoader(dataset, batch_size)``, ``Subset`` or ``ConcatDataset`` gives the same batches, more slowly: it
    takes each apart into samples, and joins them again.

    Source: a map-style ``torch.utils.data.Dataset`` over a :class:`GateStore`.

    Args:
        store: gates of N samples.
        *tensors: what goes with them, each ``[N, ...]`` in the same order (features, targets).
    """

    def __init__(self, store: GateStore, *tensors: Tensor) -> None:
        if not isinstance(store, GateStore):
            raise TypeError(f"GateDataset: store must be a GateStore, got {type(store).__name__}")
        for i, tensor in enumerate(tensors):
            if len(tensor) != len(store):
                raise ValueError(
                    f"GateDataset: tensor {i} must have N={len(store)} samples like the store, got {len(tensor)}"
                )
        self.store = store
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, ids: Sequence[int] | Tensor | slice | int) -> tuple[PackedGates | Tensor, ...]:
        """Return ``(path gates, *tensors)`` of the samples ``ids``; one sample stays a row."""
        if isinstance(ids, Tensor) and not ids.ndim:
            ids = int(ids)
        if isinstance(ids, slice):
            rows = torch.arange(len(self), device="cpu")[ids]
        else:
            rows = torch.as_tensor([int(ids)] if isinstance(ids, Integral) else ids, device="cpu")
        return _Rows((self.store.batch(rows), *(tensor[rows.to(tensor.device)] for tensor in self.tensors)))

    def __getitems__(self, ids: Sequence[int]) -> list[tuple[PackedGates | Tensor, ...]]:
        """Return a batch's samples one by one, as a plain DataLoader asks for them; the store is read once."""
        whole = self[ids]
        return [_Rows(part[i : i + 1] for part in whole) for i in range(len(ids))]

    def loader(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        drop_last: bool = False,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> DataLoader[Any]:
        """Make a DataLoader whose items are whole batches; ``options`` go to DataLoader (``num_workers``, ...)."""
        order = RandomSampler(self, generator=generator) if shuffle else SequentialSampler(self)
        batches = BatchSampler(order, batch_size, drop_last)
        return DataLoader(self, sampler=batches, batch_size=None, **options)


def _join_rows(batch: Sequence[_Rows], **_: Any) -> tuple[Any, ...]:
    parts = list(zip(*batch, strict=True))
    return tuple(_join(part) if isinstance(part[0], PackedGates) else torch.cat(part) for part in parts)


def _join(parts: Sequence[PackedGates]) -> PackedGates:
    gates = PackedGates.cat(parts)
    if all(part.estimate == parts[0].estimate for part in parts):  # of one store, and so of the batch too
        gates.estimate = parts[0].estimate
    return gates


default_collate_fn_map[_Rows] = _join_rows  # PyTorch's documented way to extend ``default_collate``
