"""This module defines every op in plain torch: the kernels are held to it, and tests call it the oracle.

Gates are bool tensors ``[N, P]`` here. N samples, P paths, D features, C outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from glai_native.gates.packed import WORD_BITS


def pack_gates_ref(bits: Tensor) -> Tensor:
    """Pack bool or float (on when > 0) ``[N, P]`` into int32 words ``[N, ceil(P/32)]``."""
    on = bits if bits.dtype == torch.bool else bits > 0
    n, p = on.shape
    w = -(-p // WORD_BITS)
    padded = torch.zeros((n, w * WORD_BITS), dtype=torch.int64, device=bits.device)
    padded[:, :p] = on
    place = torch.arange(WORD_BITS, device=bits.device)
    words = (padded.view(n, w, WORD_BITS) << place).sum(-1)
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


def gated_linear_ref(x: Tensor, g: Tensor, u: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``h[n,p] = g[n,p] · (bias[p] + sum_d x[n,d] · u[p,d])``, 0 where a gate is off."""
    return apply_gates_ref(torch.nn.functional.linear(x, u, bias), g)


def apply_gates_ref(values: Tensor, g: Tensor) -> Tensor:
    """Return ``values[n,p]`` where the gate is on, 0 elsewhere."""
    return values.where(g, 0)


def gated_matmul_ref(x: Tensor, g: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``y[n,c] = sum_p g[n,p] · (bias[p,c] + sum_d x[n,d] · weight[p,d,c])``."""
    gates = g.to(x.dtype)
    y = torch.einsum("np,nd,pdc->nc", gates, x, weight)
    return y if bias is None else y + gates @ bias


def gated_matmul_weight_grad_ref(x: Tensor, g: Tensor, dy: Tensor) -> Tensor:
    """Compute ``dw[p,d,c] = sum_n g[n,p] · x[n,d] · dy[n,c]``."""
    return torch.einsum("np,nd,nc->pdc", g.to(x.dtype), x, dy)


def gated_matmul_bias_grad_ref(g: Tensor, dy: Tensor) -> Tensor:
    """Compute ``db[p,c] = sum_n g[n,p] · dy[n,c]``."""
    return g.to(dy.dtype).T @ dy


def gated_matmul_input_grad_ref(dy: Tensor, g: Tensor, weight: Tensor) -> Tensor:
    """Compute ``dx[n,d] = sum_p g[n,p] · sum_c dy[n,c] · weight[p,d,c]``."""
    return torch.einsum("np,nc,pdc->nd", g.to(dy.dtype), dy, weight)


def path_kernel_ref(xa: Tensor, layers_a: Sequence[Tensor], xb: Tensor, layers_b: Sequence[Tensor]) -> Tensor:
    """Compute ``k[n,m] = (xa[n]·xb[m] + 1) · prod_l (a_l(n)·a_l(m) + 1)``, unit bits bool ``[N, h_l]``."""
    kernel = xa @ xb.T + 1
    for a, b in zip(layers_a, layers_b, strict=True):
        kernel = kernel * (a.to(xa.dtype) @ b.to(xa.dtype).T + 1)
    return kernel


def path_features_ref(x: Tensor, g: Tensor) -> Tensor:
    """Compute ``phi[n,(p,d)] = g[n,p] · x[n,d]``, the bias feature 1 last in each p: ``[N, P·(D+1)]``."""
    with_bias = torch.cat([x, x.new_ones((x.shape[0], 1))], dim=1)
    return (g.to(x.dtype).unsqueeze(2) * with_bias.unsqueeze(1)).flatten(1)


def path_gram_ref(x: Tensor, g: Tensor, sample_weight: Tensor | None = None) -> Tensor:
    """Compute ``gram[i,j] = sum_n s[n] · phi[n,i] · phi[n,j]`` where i <= j, zero elsewhere."""
    phi = path_features_ref(x, g)
    weighted = phi if sample_weight is None else phi * sample_weight.unsqueeze(1)
    return (weighted.T @ phi).triu()
