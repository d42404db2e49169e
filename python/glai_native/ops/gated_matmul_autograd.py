"""This module holds the gated product and its two gradients on plain tensors.

It has the bare kernels, and both ways to differentiate them.

The family is closed: each op's gradient is made of the other two. A form that is forced is that call's alone, its
gradients choose theirs; a precision is theirs too. Gates are passed as ``words, n_gates, estimate``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_compiling

import glai_native._native as _native
from glai_native.machine.backend import execution
from glai_native.machine.layouts import (
    all_contiguous,
    either_unit_stride,
    needs_grad,
    new_empty,
    new_matrix,
    size,
    unit_stride,
)
from glai_native.ops.operands import Estimate, plan_product, plan_weight_grad


class GatedProducts(NamedTuple):
    """The three ops as calls on plain tensors, one way to differentiate them."""

    forward: Callable[..., Tensor]
    weight_grad: Callable[..., tuple[Tensor, Tensor]]
    input_grad: Callable[..., Tensor]


def products_for(a: Tensor, b: Tensor, c: Tensor | None = None) -> GatedProducts:
    """Choose the shortest way that is right: registered for a compiler, autograd functions for a gradient, or bare."""
    return REGISTERED if is_compiling() else EAGER if needs_grad(a, b, c) else BARE


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
    ctx.save_for_backward(first, words, second)
    ctx.n_gates, ctx.estimate, ctx.precision = n_gates, estimate, precision


def _save_weight_grad(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _save(ctx, inputs, output)
    ctx.with_bias = inputs[5]


def _saved(ctx: Any) -> tuple[Tensor, tuple[Tensor, int, Estimate], Tensor]:
    first, words, second = ctx.saved_tensors
    return first, (words, ctx.n_gates, ctx.estimate), second


def _forward_backward(products: GatedProducts, ctx: Any, dy: Tensor) -> Any:
    x, gates, weight = _saved(ctx)
    need_x, _, _, _, need_weight, need_bias, _, _ = ctx.needs_input_grad
    dx = products.input_grad(dy, *gates, weight, None, ctx.precision) if need_x else None
    dw = db = None
    if need_weight or need_bias:
        dw, db = products.weight_grad(x, *gates, dy, need_bias, None, ctx.precision)
    return dx, None, None, None, dw if need_weight else None, db if need_bias else None, None, None


def _weight_grad_backward(products: GatedProducts, ctx: Any, ddw: Tensor, ddb: Tensor) -> Any:
    x, gates, dy = _saved(ctx)
    need_x, _, _, _, need_dy, _, _, _ = ctx.needs_input_grad
    bias = ddb if ctx.with_bias else None
    dx = products.input_grad(dy, *gates, ddw, None, ctx.precision) if need_x else None
    ddy = products.forward(x, *gates, ddw, bias, None, ctx.precision) if need_dy else None
    return dx, None, None, None, ddy, None, None, None


def _input_grad_backward(products: GatedProducts, ctx: Any, ddx: Tensor) -> Any:
    dy, gates, weight = _saved(ctx)
    need_dy, _, _, _, need_weight, _, _ = ctx.needs_input_grad
    ddy = products.forward(ddx, *gates, weight, None, None, ctx.precision) if need_dy else None
    dw = products.weight_grad(ddx, *gates, dy, False, None, ctx.precision)[0] if need_weight else None
    return ddy, None, None, None, dw, None, None


class _GatedMatmul(torch.autograd.Function):
    forward = staticmethod(_gated_matmul)
    setup_context = staticmethod(_save)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        return _forward_backward(EAGER, ctx, dy)


class _WeightGrad(torch.autograd.Function):
    forward = staticmethod(_weight_grad)
    setup_context = staticmethod(_save_weight_grad)

    @staticmethod
    def backward(ctx: Any, ddw: Tensor, ddb: Tensor) -> Any:
        return _weight_grad_backward(EAGER, ctx, ddw, ddb)


class _InputGrad(torch.autograd.Function):
    forward = staticmethod(_input_grad)
    setup_context = staticmethod(_save)

    @staticmethod
    def backward(ctx: Any, ddx: Tensor) -> Any:
        return _input_grad_backward(EAGER, ctx, ddx)


EAGER = GatedProducts(_GatedMatmul.apply, _WeightGrad.apply, _InputGrad.apply)


# --- the same ops registered with torch, for torch.compile and torch.export ---

_registered_gated_matmul = torch.library.custom_op(
    "glai_native::gated_matmul", _gated_matmul, mutates_args=()
)
_registered_weight_grad = torch.library.custom_op(
    "glai_native::gated_matmul_weight_grad", _weight_grad, mutates_args=()
)
_registered_input_grad = torch.library.custom_op(
    "glai_native::gated_matmul_input_grad", _input_grad, mutates_args=()
)
REGISTERED = GatedProducts(_registered_gated_matmul, _registered_weight_grad, _registered_input_grad)


@_registered_gated_matmul.register_fake
def _(x: Tensor, words: Tensor, n_gates: int, estimate: Estimate, weight: Tensor, *_: Any) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[2]))


@_registered_weight_grad.register_fake
def _(
    x: Tensor, words: Tensor, n_gates: int, estimate: Estimate, dy: Tensor, with_bias: bool, *_: Any
) -> tuple[Tensor, Tensor]:
    dw = x.new_empty((n_gates, x.shape[1], dy.shape[1]))
    return dw, dy.new_empty((n_gates if with_bias else 0, dy.shape[1]))


@_registered_input_grad.register_fake
def _(dy: Tensor, words: Tensor, n_gates: int, estimate: Estimate, weight: Tensor, *_: Any) -> Tensor:
    return dy.new_empty((dy.shape[0], weight.shape[1]))


_registered_gated_matmul.register_autograd(partial(_forward_backward, REGISTERED), setup_context=_save)
_registered_weight_grad.register_autograd(
    partial(_weight_grad_backward, REGISTERED), setup_context=_save_weight_grad
)
_registered_input_grad.register_autograd(partial(_input_grad_backward, REGISTERED), setup_context=_save)
