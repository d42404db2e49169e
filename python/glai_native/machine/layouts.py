"""This module makes tensors fit for kernels: layouts, sizes, outputs; the native checks get what is no tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, is_grad_enabled

_NUMPY_DTYPES = {torch.float32: np.float32, torch.float64: np.float64, torch.int64: np.int64}


def needs_grad(a: Tensor, b: Tensor, c: Tensor | None = None) -> bool:
    """Return whether a gradient will be asked for."""
    try:
        return is_grad_enabled() and (
            a.requires_grad or b.requires_grad or (c is not None and c.requires_grad)
        )
    except AttributeError:  # no tensor: refused by name in the checks
        return False


def all_contiguous(a: Tensor, b: Tensor, c: Tensor | None = None) -> bool:
    """Return whether all are contiguous, the common case, with one question each instead of four."""
    try:
        return a.is_contiguous() and b.is_contiguous() and (c is None or c.is_contiguous())
    except (AttributeError, RuntimeError):  # no tensor, or no strides
        return False


def without_history(t: Any) -> Any:
    """Return ``t``, detached where that changes anything; what is no tensor is left to the checks."""
    return t.detach() if isinstance(t, Tensor) and t.requires_grad else t


def _is_strided(t: Tensor) -> bool:
    return isinstance(t, Tensor) and t.layout == torch.strided


def unit_stride(t: Tensor) -> Tensor:
    """Return ``t``, copied only when its last dimension is strided; what is no dense tensor is left to the checks."""
    if _is_strided(t) and t.ndim > 0 and t.stride(-1) != 1 and t.shape[-1] != 1:
        return t.contiguous()
    return t


def either_unit_stride(t: Tensor) -> Tensor:
    """Return ``t``, copied only when its last two dimensions are both strided: kernels read weights either way."""
    if _is_strided(t) and t.ndim > 1 and t.stride(-2) == 1:
        return t
    return unit_stride(t)


def size(t: Tensor, dim: int) -> int:
    """Return ``t.shape[dim]``, or 0 where there is none, which the native checks then refuse by name."""
    return t.shape[dim] if isinstance(t, Tensor) and t.ndim > dim else 0


def new_matrix(a: Tensor, rows: int, b: Tensor, columns: int) -> Tensor:
    """Make an output beside ``a``, ``[a.shape[rows], b.shape[columns]]``; where there are no such sizes any will do."""
    try:
        return a.new_empty(a.shape[rows], b.shape[columns])  # twice as fast as with a tuple
    except (AttributeError, IndexError):  # no tensor or no matrix: refused by name in the checks
        return torch.empty(0, device="cpu")


def new_empty(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """Make an output beside ``like``; where that is no tensor any will do, the checks refuse ``like`` first."""
    return (
        like.new_empty(shape, dtype=dtype, layout=torch.strided)
        if isinstance(like, Tensor)
        else torch.empty(shape, dtype=dtype, device="cpu")
    )


def new_zeros(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """Make zeros beside ``like``, of its dtype where none is given: an output that is added to.

    On the CPU their memory comes as zeros from the system, and the threads that add to it touch it first; torch's would
    be written by its own threads, which wait for each other.
    """
    if isinstance(like, Tensor):
        dtype = dtype or like.dtype
        if like.device.type == "cpu" and dtype in _NUMPY_DTYPES:
            try:
                return torch.from_numpy(np.zeros(shape, _NUMPY_DTYPES[dtype]))
            except ValueError:  # more bytes than there are addresses
                raise MemoryError(f"no memory holds zeros of shape {list(shape)}") from None
        return like.new_zeros(shape, dtype=dtype, layout=torch.strided)
    return torch.zeros(shape, dtype=dtype, device="cpu")
