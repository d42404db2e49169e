"""This module holds the ops on packed words as calls on plain tensors, each with the ways that a call may take.

Which way that is, :mod:`glai_native.machine.watching` says. Gates are constants: no op here has a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import glai_native._native as _native
from glai_native.gates.oracle import (
    gate_counts_ref,
    gate_hamming_ref,
    pack_gates_ref,
    path_gates_ref,
    selector_gates_ref,
    unpack_gates_ref,
    words_per_row,
)
from glai_native.machine import backend
from glai_native.machine.backend import execution
from glai_native.machine.layouts import all_contiguous, either_unit_stride, size, unit_stride
from glai_native.machine.watching import register

# Per way, in the order of machine.watching.
Ways = tuple[Callable[..., Tensor], ...]


# --- the bare kernels ---


def _pack(bits: Tensor) -> Tensor:
    """Pack bool or floats ``[N, P]``."""
    bits = unit_stride(bits)
    words = bits.new_empty((bits.shape[0], words_per_row(bits.shape[1])), dtype=torch.int32)
    _native.pack_gates(bits, words, *execution(bits))
    return words


def _unpack(words: Tensor, n_gates: int) -> Tensor:
    """Unpack to bool ``[N, P]``."""
    bits = words.new_empty((words.shape[0], n_gates), dtype=torch.bool)
    _native.unpack_gates(words, n_gates, bits, *execution(words))
    return bits


def _counts(words: Tensor, n_gates: int) -> Tensor:
    """Count in how many samples each gate is on, int64 ``[P]``."""
    counts = words.new_empty(n_gates, dtype=torch.int64)
    _native.gate_counts(words, n_gates, counts, *execution(words))
    return counts


def _hamming(words: Tensor, other: Tensor, n_gates: int) -> Tensor:
    """Count in how many gates each sample differs, int64 ``[N]``."""
    distance = words.new_empty(words.shape[0], dtype=torch.int64)
    _native.gate_hamming(words, other, n_gates, distance, *execution(words))
    return distance


def _select(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Make the words of ``x[n]·weight[h] + bias[h] > 0``."""
    if not all_contiguous(x, weight, bias):
        x, weight = unit_stride(x), either_unit_stride(weight)
        bias = None if bias is None else unit_stride(bias)
    like = x if isinstance(x, Tensor) else torch.empty(0, device="cpu")
    words = like.new_empty((size(x, 0), words_per_row(size(weight, 0))), dtype=torch.int32)
    tf32 = backend.runs_cuda_kernels(words) and backend.allows_tf32()
    _native.selector_gates(x, weight, bias, words, tf32, *execution(words))
    return words


def _paths(layers: Sequence[Tensor], widths: Sequence[int]) -> Tensor:
    """Make the words of path gates from those of each layer's units."""
    first = layers[0]
    n, how = first.shape[0], execution(first)
    words, n_gates = first.new_ones((n, 1)), 1
    for layer, width in zip(reversed(layers), reversed(widths), strict=True):
        outer = first.new_empty((n, words_per_row((width + 1) * n_gates)))
        _native.path_gates(layer, width, words, n_gates, outer, *how)
        words, n_gates = outer, (width + 1) * n_gates
    return words


# --- the same in plain torch ---


def _plain_unpack(words: Tensor, n_gates: int) -> Tensor:
    _require_words(words, n_gates)
    return unpack_gates_ref(words, n_gates)


def _plain_counts(words: Tensor, n_gates: int) -> Tensor:
    return gate_counts_ref(_plain_unpack(words, n_gates))


def _plain_hamming(words: Tensor, other: Tensor, n_gates: int) -> Tensor:
    if words.shape != other.shape:
        raise ValueError(
            f"gate_hamming: words_b must be [N={words.shape[0]}, W={words.shape[1]}], got {list(other.shape)}"
        )
    return gate_hamming_ref(_plain_unpack(words, n_gates), _plain_unpack(other, n_gates))


def _plain_select(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return pack_gates_ref(selector_gates_ref(x, weight, bias))


def _plain_paths(layers: Sequence[Tensor], widths: Sequence[int]) -> Tensor:
    return pack_gates_ref(
        path_gates_ref([_plain_unpack(*layer) for layer in zip(layers, widths, strict=True)])
    )


def _require_words(words: Tensor, n_gates: int) -> None:
    """Raise where plain torch would cut or stretch what a kernel refuses."""
    if words.ndim != 2 or words.shape[1] != words_per_row(n_gates):
        raise ValueError(f"PackedGates: words must be [N, {words_per_row(n_gates)}], got {list(words.shape)}")


# --- registered with torch ---


def _ways(
    name: str, bare: Callable[..., Tensor], fake: Callable[..., Tensor], plain: Callable[..., Tensor]
) -> Ways:
    return bare, bare, register(name, bare, fake), plain


def _words_like(like: Tensor, n: Any, n_gates: int) -> Tensor:
    return like.new_empty((n, words_per_row(n_gates)), dtype=torch.int32)


PACK = _ways("pack_gates", _pack, lambda bits: _words_like(bits, *bits.shape), pack_gates_ref)
UNPACK = _ways(
    "unpack_gates",
    _unpack,
    lambda words, n_gates: words.new_empty((words.shape[0], n_gates), dtype=torch.bool),
    _plain_unpack,
)
COUNTS = _ways(
    "gate_counts",
    _counts,
    lambda words, n_gates: words.new_empty(n_gates, dtype=torch.int64),
    _plain_counts,
)
HAMMING = _ways(
    "gate_hamming",
    _hamming,
    lambda words, other, n_gates: words.new_empty(words.shape[0], dtype=torch.int64),
    _plain_hamming,
)
SELECT = _ways(
    "selector_gates",
    _select,
    lambda x, weight, bias: _words_like(x, x.shape[0], weight.shape[0]),
    _plain_select,
)
PATHS = _ways(
    "path_gates",
    _paths,
    lambda layers, widths: _words_like(
        layers[0], layers[0].shape[0], math.prod([width + 1 for width in widths])
    ),
    _plain_paths,
)
