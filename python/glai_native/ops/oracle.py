"""This module defines every op in plain torch: the kernels are held to it, and tests call it the oracle.

Gates are bool tensors ``[N, P]`` here. N samples, P paths, D features, C outputs. What makes and reads gates alone
stands in :mod:`glai_native.gates.oracle`, and can be had from here too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from glai_native.gates.oracle import gate_counts_ref as gate_counts_ref
from glai_native.gates.oracle import gate_hamming_ref as gate_hamming_ref
from glai_native.gates.oracle import pack_gates_ref as pack_gates_ref
from glai_native.gates.oracle import path_gates_ref as path_gates_ref
from glai_native.gates.oracle import selector_gates_ref as selector_gates_ref
from glai_native.gates.oracle import unpack_gates_ref as unpack_gates_ref


def gated_linear_ref(x: Tensor, g: Tensor, u: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``h[n,p] = g[n,p] · (bias[p] + sum_d x[n,d] · u[p,d])``, 0 where a gate is off."""
    return apply_gates_ref(torch.nn.functional.linear(x, u, bias), g)


def apply_gates_ref(values: Tensor, g: Tensor) -> Tensor:
    """Return ``values[n,p]`` where the gate is on, 0 elsewhere."""
    return values.where(g, 0)


def _products(gates: Tensor, x: Tensor) -> Tensor:
    """Return ``gates[n,p] · x[n,d]``, ``[N, P·D]``."""
    return (gates.unsqueeze(2) * x.unsqueeze(1)).reshape(x.shape[0], gates.shape[1] * x.shape[1])


def gated_matmul_ref(x: Tensor, g: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``y[n,c] = sum_p g[n,p] · (bias[p,c] + sum_d x[n,d] · weight[p,d,c])``."""
    gates = g.to(x.dtype)
    y = _products(gates, x) @ weight.reshape(weight.shape[0] * weight.shape[1], weight.shape[2])
    return y if bias is None else y + gates @ bias


def gated_matmul_weight_grad_ref(x: Tensor, g: Tensor, dy: Tensor) -> Tensor:
    """Compute ``dw[p,d,c] = sum_n g[n,p] · x[n,d] · dy[n,c]``."""
    return (_products(g.to(x.dtype), x).T @ dy).reshape(g.shape[1], x.shape[1], dy.shape[1])


def gated_matmul_bias_grad_ref(g: Tensor, dy: Tensor) -> Tensor:
    """Compute ``db[p,c] = sum_n g[n,p] · dy[n,c]``."""
    return g.to(dy.dtype).T @ dy


def gated_matmul_input_grad_ref(dy: Tensor, g: Tensor, weight: Tensor) -> Tensor:
    """Compute ``dx[n,d] = sum_p g[n,p] · sum_c dy[n,c] · weight[p,d,c]``."""
    n_paths, n_features, n_outputs = weight.shape
    each = (dy @ weight.reshape(n_paths * n_features, n_outputs).T).reshape(dy.shape[0], n_paths, n_features)
    return (g.to(dy.dtype).unsqueeze(2) * each).sum(1)


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


def integer_gram_ref(features: Tensor) -> Tensor:
    """Compute ``gram[i,j] = sum_n features[n,i] · features[n,j]`` where i <= j, zero elsewhere, in int64."""
    wide = features.to(torch.int64)
    return (wide.T @ wide).triu()


def class_sums_ref(features: Tensor, classes: Tensor, n_classes: int) -> Tensor:
    """Compute ``sums[i,c]``, the sum of ``features[n,i]`` over the samples of class c, in int64 ``[M, C]``."""
    members = classes.unsqueeze(1) == torch.arange(n_classes, device=classes.device)
    return features.to(torch.int64).T @ members.to(torch.int64)


def integer_layer_ref(below: Tensor, weight: Tensor, bias: Tensor, multiplier: Tensor, shift: int) -> Tensor:
    """Compute ``min(127, (max(a, 0) · multiplier + 2^(shift-1)) >> shift)`` of a = below·weightᵀ + bias, in int64."""
    sums = below @ weight.to(torch.int64).T + bias.to(torch.int64)
    rounded = sums.clamp(min=0) * multiplier.to(torch.int64) + (1 << (shift - 1))
    return (rounded >> shift).clamp(max=127)


def integer_features_ref(
    x: Tensor, mean: Tensor, scale: Tensor, layers: Sequence[tuple[Tensor, Tensor, Tensor, int]]
) -> Tensor:
    """Compute bytes ``(h, q + 64, 127)``; q is x in units of scale, 7 bits with sign, and h the last layer's."""
    q = ((x - mean) * scale).nan_to_num(-63).clamp(-63, 63).round().to(torch.int64)
    h = q
    for layer in layers:
        h = integer_layer_ref(h, *layer)
    return torch.cat([h, q + 64, q.new_full((q.shape[0], 1), 127)], dim=1).to(torch.uint8)
