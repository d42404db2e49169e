"""This module checks gates and plans what CUDA kernels are told; everything else is checked natively."""

from __future__ import annotations

from typing import Optional, Sequence  # noqa: UP035

import torch
from torch import Tensor
from torch.compiler import is_compiling

import glai_native._native as _native
from glai_native.gates.packed import PackedGates, words_per_row
from glai_native.machine import backend
from glai_native.machine.layouts import size


def require_gates(op: str, gates: PackedGates) -> None:
    """Raise TypeError unless gates are PackedGates."""
    if not isinstance(gates, PackedGates):
        raise TypeError(
            f"{op}: gates must be PackedGates, got {type(gates).__name__}; pack_gates(bits) makes them"
        )


# Density and deviation; torch 2.6 knows a registered op's argument by no other spelling.
Estimate = Optional[Sequence[float]]  # noqa: UP045


def known_of(gates: PackedGates) -> Estimate:
    """Return what the host knows of gates, by which CUDA products choose their form."""
    if gates.estimate is None or not is_compiling():
        return gates.estimate
    # A graph is compiled anew for each value: few of them, where batches are counted one by one.
    return [round(32 * share) / 32 for share in gates.estimate]


def plan_product(
    op: str,
    y: Tensor,
    n_gates: int,
    summed: Tensor,
    estimate: Estimate,
    form: str | None,
    precision: str | None,
) -> tuple[str | None, _native.CudaProduct | None]:
    """Return the form that a product takes, and what CUDA is told besides; on the CPU ``form`` itself, and None.

    ``summed``: x ``[N, D]``, or dy ``[N, C]``, whose columns a product sums over.
    """
    if not backend.runs_cuda_kernels(y):
        return form, None
    tf32 = _takes_tf32(precision)
    known = None if estimate is None else (estimate[0], estimate[1])
    form, slices, reference_words = _native.plan_cuda_product(
        op, y, n_gates, size(summed, 1), tf32 and y.dtype == torch.float32, known, form
    )
    partial = y.new_empty((slices, *y.shape), dtype=_sum_dtype(y)) if slices > 1 else None
    reference = y.new_empty(reference_words, dtype=torch.int32) if reference_words else None
    return form, _native.CudaProduct(tf32, partial=partial, reference=reference)


def plan_weight_grad(
    x: Tensor, words: Tensor, n_gates: int, dy: Tensor, precision: str | None
) -> _native.CudaProduct | None:
    """Make what a weight gradient is told on CUDA: memory for each split's sums, and for each path's gates."""
    columns = _gate_columns(words, n_gates)
    if columns is None:
        return None
    splits = _native.plan_cuda_weight_grad(x, n_gates, size(dy, 1))
    shape = splits, n_gates, size(x, 1) + 1, size(dy, 1)
    partial = x.new_empty(shape, dtype=_sum_dtype(x)) if splits > 1 else None
    return _native.CudaProduct(_takes_tf32(precision), partial=partial, gate_columns=columns)


def plan_gathered(words: Tensor, n_gates: int) -> _native.CudaProduct | None:
    """Make what another product that goes path by path is told on CUDA: memory for each path's gates."""
    columns = _gate_columns(words, n_gates)
    return None if columns is None else _native.CudaProduct(backend.allows_tf32(), gate_columns=columns)


def _takes_tf32(precision: str | None) -> bool:
    return backend.allows_tf32() if precision is None else precision == "tf32"


def _sum_dtype(t: Tensor) -> torch.dtype:
    return torch.float64 if t.dtype == torch.float64 else torch.float32


def _gate_columns(words: Tensor, n_gates: int) -> Tensor | None:
    """Make memory for the gates of each path, bits over samples; None on the CPU."""
    if not (isinstance(words, Tensor) and backend.runs_cuda_kernels(words)):
        return None
    return words.new_empty((n_gates, words_per_row(words.shape[0])))
