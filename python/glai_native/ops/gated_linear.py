"""This module holds the op of output directions: one linear unit per path, read where its gate is on.

As in :mod:`glai_native.ops.gated_matmul`, a call takes a registered op where something watches, an
``autograd.Function`` where a gradient is needed, and the bare kernel otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

import glai_native._native as _native
from glai_native.gates.packed import PackedGates
from glai_native.machine import backend
from glai_native.machine.backend import execution
from glai_native.machine.layouts import (
    all_contiguous,
    either_unit_stride,
    new_empty,
    new_matrix,
    unit_stride,
)
from glai_native.machine.watching import PLAIN, is_batched_gradient, register, saving_forward, way
from glai_native.ops.gated_matmul_autograd import EAGER
from glai_native.ops.operands import ordinary_words, plain_gates, require_gates
from glai_native.ops.oracle import apply_gates_ref, gated_linear_ref


def gated_linear(x: Tensor, gates: PackedGates, u: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``h[n,p] = g[n,p] · (bias[p] + sum_d x[n,d] · u[p,d])``, which is ``g ⊙ (x·uᵀ + bias)``.

    It is differentiable in ``x``, ``u`` and ``bias``, to any order; the gradients are dense products of ``g ⊙ dh``.
    What a sample computes depends on no other sample, and has the same bits for any number of threads.

    Source: the gated linear units of Fiat, Malach and Shalev-Shwartz, arXiv 1906.05032.

    Args:
        x: ``[N, D]``, any strides; float32 or float64, on CUDA float16 or bfloat16 too.
        gates: path gates, N samples of P.
        u: ``[P, D]``, as ``nn.Linear`` keeps it, of x's dtype.
        bias: ``[P]`` or None.

    Returns:
        ``[N, P]``, exactly 0 where a gate is off, also where the product is NaN or infinite. (The gradients are
        sums over all paths or samples, in which 0 times an infinity is NaN.)

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, named with what was expected.
    """
    require_gates("gated_linear", gates)
    family = _family_for(x, u, bias) if is_dynamo_compiling() else _WAYS[_native.way(x, u, bias)]
    return family.gated_linear(x, gates.words, gates.n_gates, u, bias)


# --- the bare kernels ---


def _gated_linear(x: Tensor, words: Tensor, n_gates: int, u: Tensor, bias: Tensor | None) -> Tensor:
    if not all_contiguous(x, u, bias):
        x, u = unit_stride(x), either_unit_stride(u)
        bias = None if bias is None else unit_stride(bias)
    h = new_matrix(x, 0, u, 0)
    tf32 = backend.runs_cuda_kernels(h) and backend.allows_tf32()
    _native.gated_linear(x, words, n_gates, u, bias, h, tf32, *execution(h))
    return h


def _apply_gates(values: Tensor, words: Tensor, n_gates: int) -> Tensor:
    """Compute ``g ⊙ values``, ``[N, P]``; exactly 0 where a gate is off."""
    values = unit_stride(values)
    out = new_empty(values, *values.shape)
    _native.apply_gates(values, words, n_gates, out, *execution(out))
    return out


# --- gradients: with dh masked, they are dense products; masking is its own gradient ---

# Of dh, x and u, which are wanted: the gradients of x, of u and of the bias.
Wanted = tuple[bool, bool, bool]
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def _torch_gradients(dh: Tensor, x: Tensor, u: Tensor, wanted: Wanted) -> Gradients:
    want_x, want_u, want_bias = wanted
    return dh @ u if want_x else None, dh.T @ x if want_u else None, dh.sum(0) if want_bias else None


def _own_gradients(dh: Tensor, x: Tensor, u: Tensor, wanted: Wanted) -> Gradients:
    """Compute them by gated products of one path that is always on.

    So they have the same bits for any number of threads, and wait for none that has no core.
    """
    if backend.runs_cuda_kernels(dh):
        return _torch_gradients(dh, x, u, wanted)
    want_x, want_u, want_bias = wanted
    on = torch.from_numpy(np.ones((len(dh), 1), dtype=np.int32))
    dx = du = dbias = None
    if want_x:
        dx = EAGER.forward(dh, on, 1, None, u.unsqueeze(0), None, None, None)
    if want_u:
        du = EAGER.weight_grad(dh, on, 1, None, x, False, None, None)[0].squeeze(0)
    if want_bias:
        no_features = dh[:, :0]
        dbias = EAGER.weight_grad(no_features, on, 1, None, dh, True, None, None)[1].squeeze(0)
    return dx, du, dbias


class _Family(NamedTuple):
    """Both ops as differentiable calls on plain tensors, and the gradients of one of them."""

    gated_linear: Callable[[Tensor, Tensor, int, Tensor, Tensor | None], Tensor]
    apply_gates: Callable[[Tensor, Tensor, int], Tensor]
    gradients: Callable[[Tensor, Tensor, Tensor, Wanted], Gradients]


_BARE = _Family(_gated_linear, _apply_gates, _own_gradients)


def _save_linear(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, words, ctx.n_gates, u, _ = inputs
    ctx.save_for_backward(x, ordinary_words(words), u)


def _linear_backward(family: _Family | None, ctx: Any, dh: Tensor) -> Any:
    x, words, u = ctx.saved_tensors
    family = family or _family_of_gradients(dh)
    need_x, _, _, need_u, need_bias = ctx.needs_input_grad
    dh = family.apply_gates(dh, words, ctx.n_gates)
    dx, du, dbias = family.gradients(dh, x, u, (need_x, need_u, need_bias))
    return dx, None, None, du, dbias


def _save_gates(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, words, ctx.n_gates = inputs
    ctx.save_for_backward(ordinary_words(words))


def _gates_backward(family: _Family | None, ctx: Any, dout: Tensor) -> Any:
    (words,) = ctx.saved_tensors
    family = family or _family_of_gradients(dout)
    return family.apply_gates(dout, words, ctx.n_gates), None, None


class _GatedLinear(torch.autograd.Function):
    forward = saving_forward(_gated_linear, _save_linear)

    @staticmethod
    def backward(ctx: Any, dh: Tensor) -> Any:
        return _linear_backward(None, ctx, dh)


class _ApplyGates(torch.autograd.Function):
    forward = saving_forward(_apply_gates, _save_gates)

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> Any:
        return _gates_backward(None, ctx, dout)


_EAGER = _Family(_GatedLinear.apply, _ApplyGates.apply, _own_gradients)


def _fake_gated_linear(x: Tensor, words: Tensor, n_gates: int, u: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((x.shape[0], u.shape[0]))


def _fake_apply_gates(values: Tensor, words: Tensor, n_gates: int) -> Tensor:
    return values.new_empty(values.shape)


_registered_gated_linear = register("gated_linear", _gated_linear, _fake_gated_linear, has_derivative=True)
_registered_apply_gates = register("apply_gates", _apply_gates, _fake_apply_gates, has_derivative=True)
# A compiler knows best how to compute dense products.
_REGISTERED = _Family(_registered_gated_linear, _registered_apply_gates, _torch_gradients)

_registered_gated_linear.register_autograd(partial(_linear_backward, _REGISTERED), setup_context=_save_linear)
_registered_apply_gates.register_autograd(partial(_gates_backward, _REGISTERED), setup_context=_save_gates)


# --- plain torch ---


def _plain_gated_linear(x: Tensor, words: Tensor, n_gates: int, u: Tensor, bias: Tensor | None) -> Tensor:
    g = plain_gates("gated_linear", words, n_gates, (x, "ND"), (u, "PD"), (bias, "P"))
    return gated_linear_ref(x, g, u, bias)


def _plain_apply_gates(values: Tensor, words: Tensor, n_gates: int) -> Tensor:
    return apply_gates_ref(values, plain_gates("apply_gates", words, n_gates, (values, "NP")))


_PLAIN = _Family(_plain_gated_linear, _plain_apply_gates, _torch_gradients)
_WAYS = (_BARE, _EAGER, _REGISTERED, _PLAIN)


def _family_for(a: Tensor, b: Tensor | None = None, c: Tensor | None = None) -> _Family:
    return _WAYS[way(a, b, c)]


def _family_of_gradients(gradient: Tensor) -> _Family:
    return _WAYS[PLAIN if is_batched_gradient(gradient) else way(gradient)]
