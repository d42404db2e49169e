"""This module checks gates and plans what CUDA kernels are told; everything else is checked natively."""

from __future__ import annotations

from typing import Optional, Sequence  # noqa: UP035

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

import glai_native._native as _native
from glai_native.gates.packed import PackedGates, words_per_row
from glai_native.gates.words import UNPACK
from glai_native.machine import backend
from glai_native.machine.layouts import size
from glai_native.machine.watching import PLAIN


def require_gates(op: str, gates: PackedGates) -> None:
    """Raise TypeError unless gates are PackedGates."""
    if not isinstance(gates, PackedGates):
        raise TypeError(
            f"{op}: gates must be PackedGates, got {type(gates).__name__}; pack_gates(bits) makes them"
        )


# Density and deviation; torch 2.6 knows a registered op's argument by no other spelling.
Estimate = Optional[Sequence[float]]  # noqa: UP045


def known_of(gates: PackedGates) -> Estimate:
    """Return what the host knows of gates, by which CUDA products choose their form; of a graph, in few steps."""
    if not is_dynamo_compiling():
        return gates._estimate
    return gates.coarse_estimate if gates.words.is_cuda else None


def ordinary_words(words: Tensor) -> Tensor:
    """Return words that a backward pass may read; gates may well be captured in inference mode, beforehand."""
    return words.clone() if words.is_inference() else words


def plain_gates(op: str, words: Tensor, n_gates: int, *tensors: tuple[Tensor | None, str]) -> Tensor:
    """Unpack gates for plain torch, which would stretch sizes of 1 where a kernel refuses: sizes are checked here.

    Args:
        op: who is asked, named in the errors.
        words: ``[N, ceil(P/32)]``.
        n_gates: P.
        tensors: each tensor or None, with a letter for each of its sizes.
    """
    sizes = {"N": words.shape[0], "P": n_gates}
    for tensor, letters in tensors:
        if tensor is None:
            continue
        if tensor.ndim != len(letters) or any(
            sizes.setdefault(letter, size) != size for letter, size in zip(letters, tensor.shape, strict=True)
        ):
            expected = ", ".join(
                f"{letter}={sizes[letter]}" if letter in sizes else letter for letter in letters
            )
            raise ValueError(f"{op}: a tensor must be [{expected}], got {list(tensor.shape)}")
    return UNPACK[PLAIN](words, n_gates)


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
