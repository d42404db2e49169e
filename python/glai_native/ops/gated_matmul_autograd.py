"""This module holds the gated product and its two gradients on plain tensors.

It has the bare kernels, both ways to differentiate them, and plain torch for who looks inside.

The family is closed: each op's gradient is made of the other two. A form that is forced is that call's alone, its
gradients choose theirs; a precision is theirs too. Gates are passed as ``words, n_gates, estimate``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

import glai_native._native as _native
from glai_native.machine.backend import execution
from glai_native.machine.layouts import (
    all_contiguous,
    either_unit_stride,
    new_empty,
    new_matrix,
    size,
    unit_stride,
)
from glai_native.machine.watching import is_batched_gradient, register, saving_forward, way
from glai_native.ops.operands import Estimate, ordinary_words, plain_gates, plan_product, plan_weight_grad
from glai_native.ops.oracle import (
    gated_matmul_bias_grad_ref,
    gated_matmul_input_grad_ref,
    gated_matmul_ref,
    gated_matmul_weight_grad_ref,
)


class GatedProducts(NamedTuple):
    """The three ops as calls on plain tensors, one way to differentiate them."""

    forward: Callable[..., Tensor]
    weight_grad: Callable[..., tuple[Tensor, Tensor]]
    input_grad: Callable[..., Tensor]


def products_for(a: Tensor, b: Tensor, c: Tensor | None = None) -> GatedProducts:
    """Choose the shortest way that is right (:mod:`glai_native.machine.watching`)."""
    return _WAYS[way(a, b, c) if is_dynamo_compiling() else _native.way(a, b, c)]


# --- the bare kernels ---


def _gated_matmul(
    x: Tensor,
    words: Tensor,
    n_gates: int,
    estimate: Estimate,
    weight: Tensor,
    bias: Tensor | None,
    form: str | None,
    precision: str | None,
) -> Tensor:
    """Compute ``y [N, C]`` by the bare kernel."""
    if not all_contiguous(x, weight, bias):
        x, weight = unit_stride(x), either_unit_stride(weight)
        bias = None if bias is None else unit_stride(bias)
    y = new_matrix(x, 0, weight, 2)
    form, cuda = plan_product("gated_matmul", y, n_gates, x, estimate, form, precision)
    threads, stream = execution(y)
    _native.gated_matmul(x, words, n_gates, weight, bias, y, form, precision, cuda, threads, stream)
    return y


def _weight_grad(
    x: Tensor,
    words: Tensor,
    n_gates: int,
    estimate: Estimate,
    dy: Tensor,
    with_bias: bool,
    form: str | None,
    precision: str | None,
) -> tuple[Tensor, Tensor]:
    """Compute ``dw`` and, ``with_bias``, ``db [P, C]``, otherwise ``[0, C]``, by the bare kernel."""
    dw = new_empty(x, n_gates, size(x, 1), size(dy, 1))
    db = new_empty(dy, n_gates if with_bias else 0, size(dy, 1))
    write_weight_grad(x, words, n_gates, dy, dw, db if with_bias else None, False, form, precision)
    return dw, db


def write_weight_grad(
    x: Tensor,
    words: Tensor,
    n_gates: int,
    dy: Tensor,
    dw: Tensor,
    db: Tensor | None,
    accumulate: bool,
    form: str | None,
    precision: str | None,
) -> None:
    """Write into ``dw`` and ``db``, or add to them."""
    x, dy = unit_stride(x), unit_stride(dy)
    cuda = plan_weight_grad(x, words, n_gates, dy, precision)
    threads, stream = execution(words)
    _native.gated_matmul_weight_grad(
        x, words, n_gates, dy, dw, db, accumulate, form, precision, cuda, threads, stream
    )


def _input_grad(
    dy: Tensor,
    words: Tensor,
    n_gates: int,
    estimate: Estimate,
    weight: Tensor,
    form: str | None,
    precision: str | None,
) -> Tensor:
    """Compute ``dx [N, D]`` by the bare kernel."""
    dx = new_matrix(dy, 0, weight, 1)
    dy, weight = unit_stride(dy), either_unit_stride(weight)
    form, cuda = plan_product("gated_matmul_input_grad", dx, n_gates, dy, estimate, form, precision)
    threads, stream = execution(dx)
    _native.gated_matmul_input_grad(dy, words, n_gates, weight, dx, form, precision, cuda, threads, stream)
    return dx


BARE = GatedProducts(_gated_matmul, _weight_grad, _input_grad)


# --- gradients ---


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    first, words, n_gates, estimate, second, *_, precision = inputs
    ctx.save_for_backward(first, ordinary_words(words), second)
    ctx.n_gates, ctx.estimate, ctx.precision = n_gates, estimate, precision


def _save_weight_grad(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _save(ctx, inputs, output)
    ctx.with_bias = inputs[5]


def _saved(ctx: Any) -> tuple[Tensor, tuple[Tensor, int, Estimate], Tensor]:
    first, words, second = ctx.saved_tensors
    return first, (words, ctx.n_gates, ctx.estimate), second


def _products_of_gradients(gradient: Tensor, a: Tensor, b: Tensor) -> GatedProducts:
    return _PLAIN if is_batched_gradient(gradient) else products_for(gradient, a, b)


# `products`: of the registered ops their own, or a graph would end here; None: whatever is right by now.


def _forward_backward(products: GatedProducts | None, ctx: Any, dy: Tensor) -> Any:
    x, gates, weight = _saved(ctx)
    products = products or _products_of_gradients(dy, x, weight)
    need_x, _, _, _, need_weight, need_bias, _, _ = ctx.needs_input_grad
    dx = products.input_grad(dy, *gates, weight, None, ctx.precision) if need_x else None
    dw = db = None
    if need_weight or need_bias:
        dw, db = products.weight_grad(x, *gates, dy, need_bias, None, ctx.precision)
    return dx, None, None, None, dw if need_weight else None, db if need_bias else None, None, None


def _weight_grad_backward(products: GatedProducts | None, ctx: Any, ddw: Tensor, ddb: Tensor) -> Any:
    x, gates, dy = _saved(ctx)
    products = products or _products_of_gradients(ddw, x, dy)
    need_x, _, _, _, need_dy, _, _, _ = ctx.needs_input_grad
    bias = ddb if ctx.with_bias else None
    dx = products.input_grad(dy, *gates, ddw, None, ctx.precision) if need_x else None
    ddy = products.forward(x, *gates, ddw, bias, None, ctx.precision) if need_dy else None
    return dx, None, None, None, ddy, None, None, None


def _input_grad_backward(products: GatedProducts | None, ctx: Any, ddx: Tensor) -> Any:
    dy, gates, weight = _saved(ctx)
    products = products or _products_of_gradients(ddx, dy, weight)
    need_dy, _, _, _, need_weight, _, _ = ctx.needs_input_grad
    ddy = products.forward(ddx, *gates, weight, None, None, ctx.precision) if need_dy else None
    dw = products.weight_grad(ddx, *gates, dy, False, None, ctx.precision)[0] if need_weight else None
    return ddy, None, None, None, dw, None, None


class _GatedMatmul(torch.autograd.Function):
    forward = saving_forward(_gated_matmul, _save)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        return _forward_backward(None, ctx, dy)


class _WeightGrad(torch.autograd.Function):
    forward = saving_forward(_weight_grad, _save_weight_grad)

    @staticmethod
    def backward(ctx: Any, ddw: Tensor, ddb: Tensor) -> Any:
        return _weight_grad_backward(None, ctx, ddw, ddb)


class _InputGrad(torch.autograd.Function):
    forward = saving_forward(_input_grad, _save)

    @staticmethod
    def backward(ctx: Any, ddx: Tensor) -> Any:
        return _input_grad_backward(None, ctx, ddx)


EAGER = GatedProducts(_GatedMatmul.apply, _WeightGrad.apply, _InputGrad.apply)


# --- the same ops registered with torch, for torch.compile and torch.export ---


def _fake_gated_matmul(
    x: Tensor, words: Tensor, n_gates: int, estimate: Estimate, weight: Tensor, *_: Any
) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[2]))


def _fake_weight_grad(
    x: Tensor, words: Tensor, n_gates: int, estimate: Estimate, dy: Tensor, with_bias: bool, *_: Any
) -> tuple[Tensor, Tensor]:
    dw = x.new_empty((n_gates, x.shape[1], dy.shape[1]))
    return dw, dy.new_empty((n_gates if with_bias else 0, dy.shape[1]))


def _fake_input_grad(
    dy: Tensor, words: Tensor, n_gates: int, estimate: Estimate, weight: Tensor, *_: Any
) -> Tensor:
    return dy.new_empty((dy.shape[0], weight.shape[1]))


_registered_gated_matmul = register("gated_matmul", _gated_matmul, _fake_gated_matmul, has_derivative=True)
_registered_weight_grad = register(
    "gated_matmul_weight_grad", _weight_grad, _fake_weight_grad, has_derivative=True
)
_registered_input_grad = register(
    "gated_matmul_input_grad", _input_grad, _fake_input_grad, has_derivative=True
)
REGISTERED = GatedProducts(_registered_gated_matmul, _registered_weight_grad, _registered_input_grad)

_registered_gated_matmul.register_autograd(partial(_forward_backward, REGISTERED), setup_context=_save)
_registered_weight_grad.register_autograd(
    partial(_weight_grad_backward, REGISTERED), setup_context=_save_weight_grad
)
_registered_input_grad.register_autograd(partial(_input_grad_backward, REGISTERED), setup_context=_save)


# --- plain torch, for transforms of functions and forward-mode derivatives; forms and precisions are the kernels' ---


def _plain_gated_matmul(
    x: Tensor, words: Tensor, n_gates: int, _: Any, weight: Tensor, bias: Tensor | None, *__: Any
) -> Tensor:
    g = plain_gates("gated_matmul", words, n_gates, (x, "ND"), (weight, "PDC"), (bias, "PC"))
    return gated_matmul_ref(x, g, weight, bias)


def _plain_weight_grad(
    x: Tensor, words: Tensor, n_gates: int, _: Any, dy: Tensor, with_bias: bool, *__: Any
) -> tuple[Tensor, Tensor]:
    g = plain_gates("gated_matmul_weight_grad", words, n_gates, (x, "ND"), (dy, "NC"))
    db = gated_matmul_bias_grad_ref(g, dy)
    return gated_matmul_weight_grad_ref(x, g, dy), db if with_bias else db[:0]


def _plain_input_grad(dy: Tensor, words: Tensor, n_gates: int, _: Any, weight: Tensor, *__: Any) -> Tensor:
    g = plain_gates("gated_matmul_input_grad", words, n_gates, (dy, "NC"), (weight, "PDC"))
    return gated_matmul_input_grad_ref(dy, g, weight)


_PLAIN = GatedProducts(_plain_gated_matmul, _plain_weight_grad, _plain_input_grad)
_WAYS = (BARE, EAGER, REGISTERED, _PLAIN)
