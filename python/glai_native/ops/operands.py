"""What ops are given, made fit for kernels: layouts, sizes, outputs. Everything else is checked natively."""

from __future__ import annotations

from typing import Optional, Sequence  # noqa: UP035

import torch
from torch import Tensor, get_num_threads
from torch.compiler import is_compiling

import glai_native._native as _native
from glai_native.gates.packed import PackedGates, words_per_row
from glai_native.machine import backend
from glai_native.machine.backend import execution
from glai_native.machine.layouts import size


def require_gates(op: str, gates: PackedGates) -> None:
    """Refuses what are no packed gates."""
    if not isinstance(gates, PackedGates):
        raise TypeError(
            f"{op}: gates must be PackedGates, got {type(gates).__name__}; pack_gates(bits) makes them"
        )


# Density and deviation; torch 2.6 knows a registered op's argument by no other spelling.
Estimate = Optional[Sequence[float]]  # noqa: UP045


def known_of(gates: PackedGates) -> Estimate:
    """What the host knows of gates; CUDA products choose their form by it."""
    if gates.estimate is None or not is_compiling():
        return gates.estimate
    # A graph is compiled anew for each value: few of them, where batches are counted one by one.
    return [round(32 * share) / 32 for share in gates.estimate]


def product_execution(
    op: str,
    y: Tensor,
    n_gates: int,
    summed: Tensor,
    estimate: Estimate,
    form: str | None,
    precision: str | None,
) -> tuple[str | None, str | None, bool, Tensor | None, Tensor | None, int, int]:
    """Form and precision; of CUDA products whether tf32 will do, and their workspaces; threads, stream.

    ``summed``: x ``[N, D]``, or dy ``[N, C]``, whose columns a product sums over.
    """
    if not backend.runs_cuda_kernels(y):
        return form, precision, False, None, None, get_num_threads(), 0
    tf32 = backend.allows_tf32() if precision is None else precision == "tf32"
    known = None if estimate is None else (estimate[0], estimate[1])
    form, slices, reference_words = _native.plan_cuda_product(
        op, y, n_gates, size(summed, 1), tf32 and y.dtype == torch.float32, known, form
    )
    dtype = torch.float64 if y.dtype == torch.float64 else torch.float32
    partial = y.new_empty((slices, *y.shape), dtype=dtype) if slices > 1 else None
    reference = y.new_empty(reference_words, dtype=torch.int32) if reference_words else None
    return form, precision, tf32, partial, reference, *execution(y)


def weight_grad_execution(
    x: Tensor, words: Tensor, n_gates: int, dy: Tensor
) -> tuple[bool, Tensor | None, Tensor | None]:
    """Of a weight gradient on CUDA whether tf32 will do, memory for each split's sums, and for each path's gates."""
    tf32, columns = gathered_execution(words, n_gates)
    if columns is None:
        return tf32, None, None
    splits = _native.plan_cuda_weight_grad(x, n_gates, size(dy, 1))
    if splits == 1:
        return tf32, None, columns
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return tf32, x.new_empty((splits, n_gates, size(x, 1) + 1, size(dy, 1)), dtype=dtype), columns


def gathered_execution(words: Tensor, n_gates: int) -> tuple[bool, Tensor | None]:
    """The same for a product that goes path by path: memory for each path's gates, bits over samples."""
    if not (isinstance(words, Tensor) and backend.runs_cuda_kernels(words)):
        return False, None
    return backend.allows_tf32(), words.new_empty((n_gates, words_per_row(words.shape[0])))
