"""This module defines every op on gates in plain torch: the kernels are held to it, and transforms look inside it.

Gates are bool tensors ``[N, P]`` here. N samples, P paths, D features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

WORD_BITS = 32


def words_per_row(n_gates: int) -> int:
    """Return how many int32 words hold ``n_gates`` gates of one sample."""
    return -(-n_gates // WORD_BITS)


def pack_gates_ref(bits: Tensor) -> Tensor:
    """Pack bool or float (on when > 0) ``[N, P]`` into int32 words ``[N, ceil(P/32)]``."""
    on = bits if bits.dtype == torch.bool else bits > 0
    n, p = on.shape
    w = words_per_row(p)
    padded = torch.nn.functional.pad(on.to(torch.int64), (0, w * WORD_BITS - p))
    place = torch.arange(WORD_BITS, device=bits.device)
    words = (padded.reshape(n, w, WORD_BITS) << place).sum(-1)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)


def unpack_gates_ref(words: Tensor, n_gates: int) -> Tensor:
    """Unpack int32 words ``[N, ceil(P/32)]`` into bool ``[N, P]``."""
    place = torch.arange(WORD_BITS, device=words.device)
    bits = (words.to(torch.int64).unsqueeze(-1) >> place) & 1
    return bits.flatten(1)[:, :n_gates].to(torch.bool)


def gate_counts_ref(g: Tensor) -> Tensor:
    """Count in how many samples each gate is on, from bool ``[N, P]`` to int64 ``[P]``."""
    return g.sum(0)


def gate_hamming_ref(a: Tensor, b: Tensor) -> Tensor:
    """Count in how many gates each sample differs, from two bool ``[N, P]`` to int64 ``[N]``."""
    return (a != b).sum(1)


def path_gates_ref(layers: Sequence[Tensor]) -> Tensor:
    """Make path gates ``[N, (h_1+1)·…·(h_L+1)]`` from unit bits per hidden layer, bool ``[N, h_l]``.

    The always-on unit is the last of its layer, and j_1 runs slowest.
    """
    n = layers[0].shape[0]
    paths = torch.ones((n, 1), dtype=torch.bool, device=layers[0].device)
    for bits in layers:
        with_constant = torch.cat([bits, bits.new_ones((n, 1))], dim=1)
        paths = (paths.unsqueeze(2) & with_constant.unsqueeze(1)).flatten(1)
    return paths


def selector_gates_ref(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``x[n]·weight[h] + bias[h] > 0``, bool ``[N, H]``."""
    return torch.nn.functional.linear(x, weight, bias) > 0
