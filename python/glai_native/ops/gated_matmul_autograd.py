"""The gated product and its two gradients on plain tensors: the bare kernels, and both ways to differentiate them.

The family is closed: each op's gradient is made of the other two. A form that is forced is that call's alone, its
gradients choose theirs; a precision is theirs too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

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
from glai_native.ops.operands import Estimate, product_execution, weight_grad_execution


def bare_gated_matmul(
    x: Tensor,
    words: Tensor,
    n_gates: int,
    estimate: Estimate,
    weight: Tensor,
    bias: Tensor | None,
    form: str | None,
    precision: str | None,
) -> Tensor:
    """``y [N, C]``."""
    if not all_contiguous(x, weight, bias):
        x, weight = unit_stride(x), either_unit_stride(weight)
        bias = None if bias is None else unit_stride(bias)
    y = new_matrix(x, 0, weight, 2)
    how = product_execution("gated_matmul", y, n_gates, x, estimate, form, precision)
    _native.gated_matmul(x, words, n_gates, weight, bias, y, *how)
    return y


def bare_weight_grad(
    x: Tensor,
    words: Tensor,
    n_gates: int,
    estimate: Estimate,
    dy: Tensor,
    with_bias: bool,
    form: str | None,
    precision: str | None,
    out: Tensor | None = None,
    accumulate: bool = False,
) -> tuple[Tensor, Tensor]:
    """``dw`` and, ``with_bias``, ``db [P, C]``; otherwise ``[0, C]``."""
    if out is None:
        out = new_empty(x, n_gates, size(x, 1), size(dy, 1))
    elif isinstance(out, Tensor) and not out.is_inference():
        torch.autograd.graph.increment_version(out)
    db = new_empty(dy, n_gates if with_bias else 0, size(dy, 1))
    x, dy = unit_stride(x), unit_stride(dy)
    bias_out = db if with_bias else None
    cuda = weight_grad_execution(x, words, n_gates, dy)
    _native.gated_matmul_weight_grad(
        x, words, n_gates, dy, out, bias_out, accumulate, form, precision, *cuda, *execution(words)
    )
    return out, db


def bare_input_grad(
    dy: Tensor,
    words: Tensor,
    n_gates: int,
    estimate: Estimate,
    weight: Tensor,
    form: str | None,
    precision: str | None,
) -> Tensor:
    """``dx [N, D]``."""
    dx = new_matrix(dy, 0, weight, 1)
    dy, weight = unit_stride(dy), either_unit_stride(weight)
    how = product_execution("gated_matmul_input_grad", dx, n_gates, dy, estimate, form, precision)
    _native.gated_matmul_input_grad(dy, words, n_gates, weight, dx, *how)
    return dx


class GatedProducts(NamedTuple):
    """The three ops as differentiable calls on plain tensors."""

    forward: Callable[[Tensor, Tensor, int, Estimate, Tensor, Tensor | None, str | None, str | None], Tensor]
    weight_grad: Callable[
        [Tensor, Tensor, int, Estimate, Tensor, bool, str | None, str | None], tuple[Tensor, Tensor]
    ]
    input_grad: Callable[[Tensor, Tensor, int, Estimate, Tensor, str | None, str | None], Tensor]


def _save_forward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, words, ctx.n_gates, ctx.estimate, weight, _, _, ctx.precision = inputs
    ctx.save_for_backward(x, words, weight)


def _forward_backward(family: GatedProducts, ctx: Any, dy: Tensor) -> Any:
    x, words, weight = ctx.saved_tensors
    need_x, _, _, _, need_weight, need_bias, _, _ = ctx.needs_input_grad
    dx = (
        family.input_grad(dy, words, ctx.n_gates, ctx.estimate, weight, None, ctx.precision)
        if need_x
        else None
    )
    dw = db = None
    if need_weight or need_bias:
        dw, db = family.weight_grad(x, words, ctx.n_gates, ctx.estimate, dy, need_bias, None, ctx.precision)
    return dx, None, None, None, dw if need_weight else None, db if need_bias else None, None, None


def _save_weight_grad(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, words, ctx.n_gates, ctx.estimate, dy, ctx.with_bias, _, ctx.precision = inputs
    ctx.save_for_backward(x, words, dy)


def _weight_grad_backward(family: GatedProducts, ctx: Any, ddw: Tensor, ddb: Tensor) -> Any:
    x, words, dy = ctx.saved_tensors
    need_x, _, _, _, need_dy, _, _, _ = ctx.needs_input_grad
    dx = family.input_grad(dy, words, ctx.n_gates, ctx.estimate, ddw, None, ctx.precision) if need_x else None
    bias = ddb if ctx.with_bias else None
    ddy = (
        family.forward(x, words, ctx.n_gates, ctx.estimate, ddw, bias, None, ctx.precision)
        if need_dy
        else None
    )
    return dx, None, None, None, ddy, None, None, None


def _save_input_grad(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    dy, words, ctx.n_gates, ctx.estimate, weight, _, ctx.precision = inputs
    ctx.save_for_backward(dy, words, weight)


def _input_grad_backward(family: GatedProducts, ctx: Any, ddx: Tensor) -> Any:
    dy, words, weight = ctx.saved_tensors
    need_dy, _, _, _, need_weight, _, _ = ctx.needs_input_grad
    ddy = (
        family.forward(ddx, words, ctx.n_gates, ctx.estimate, weight, None, None, ctx.precision)
        if need_dy
        else None
    )
    dw = (
        family.weight_grad(ddx, words, ctx.n_gates, ctx.estimate, dy, False, None, ctx.precision)[0]
        if need_weight
        else None
    )
    return ddy, None, None, None, dw, None, None


class _GatedMatmul(torch.autograd.Function):
    forward = staticmethod(bare_gated_matmul)
    setup_context = staticmethod(_save_forward)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        return _forward_backward(EAGER, ctx, dy)


class _WeightGrad(torch.autograd.Function):
    setup_context = staticmethod(_save_weight_grad)

    @staticmethod
    def forward(
        x: Tensor,
        words: Tensor,
        n_gates: int,
        estimate: Estimate,
        dy: Tensor,
        with_bias: bool,
        form: str | None,
        precision: str | None,
    ) -> Any:
        return bare_weight_grad(x, words, n_gates, estimate, dy, with_bias, form, precision)

    @staticmethod
    def backward(ctx: Any, ddw: Tensor, ddb: Tensor) -> Any:
        return _weight_grad_backward(EAGER, ctx, ddw, ddb)


class _InputGrad(torch.autograd.Function):
    forward = staticmethod(bare_input_grad)
    setup_context = staticmethod(_save_input_grad)

    @staticmethod
    def backward(ctx: Any, ddx: Tensor) -> Any:
        return _input_grad_backward(EAGER, ctx, ddx)


EAGER = GatedProducts(_GatedMatmul.apply, _WeightGrad.apply, _InputGrad.apply)


# --- the same ops registered with torch, for torch.compile and torch.export ---


@torch.library.custom_op("glai_native::gated_matmul", mutates_args=())
def _registered_gated_matmul(
    x: Tensor,
    words: Tensor,
    n_gates: int,
    estimate: Estimate,
    weight: Tensor,
    bias: Tensor | None,
    form: str | None,
    precision: str | None,
) -> Tensor:
    return bare_gated_matmul(x, words, n_gates, estimate, weight, bias, form, precision)


@_registered_gated_matmul.register_fake
def _(
    x: Tensor,
    words: Tensor,
    n_gates: int,
    estimate: Estimate,
    weight: Tensor,
    bias: Tensor | None,
    form: str | None,
    precision: str | None,
) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[2]))


@torch.library.custom_op("glai_native::gated_matmul_weight_grad", mutates_args=())
def _registered_weight_grad(
    x: Tensor,
    words: Tensor,
    n_gates: int,
    estimate: Estimate,
    dy: Tensor,
    with_bias: bool,
    form: str | None,
    precision: str | None,
) -> tuple[Tensor, Tensor]:
    return bare_weight_grad(x, words, n_gates, estimate, dy, with_bias, form, precision)


@_registered_weight_grad.register_fake
def _(
    x: Tensor,
    words: Tensor,
    n_gates: int,
    estimate: Estimate,
    dy: Tensor,
    with_bias: bool,
    form: str | None,
    precision: str | None,
) -> tuple[Tensor, Tensor]:
    dw = x.new_empty((n_gates, x.shape[1], dy.shape[1]))
    return dw, dy.new_empty((n_gates if with_bias else 0, dy.shape[1]))


@torch.library.custom_op("glai_native::gated_matmul_input_grad", mutates_args=())
def _registered_input_grad(
    dy: Tensor,
    words: Tensor,
    n_gates: int,
    estimate: Estimate,
    weight: Tensor,
    form: str | None,
    precision: str | None,
) -> Tensor:
    return bare_input_grad(dy, words, n_gates, estimate, weight, form, precision)


@_registered_input_grad.register_fake
def _(
    dy: Tensor,
    words: Tensor,
    n_gates: int,
    estimate: Estimate,
    weight: Tensor,
    form: str | None,
    precision: str | None,
) -> Tensor:
    return dy.new_empty((dy.shape[0], weight.shape[1]))


REGISTERED = GatedProducts(_registered_gated_matmul, _registered_weight_grad, _registered_input_grad)

_registered_gated_matmul.register_autograd(
    partial(_forward_backward, REGISTERED), setup_context=_save_forward
)
_registered_weight_grad.register_autograd(
    partial(_weight_grad_backward, REGISTERED), setup_context=_save_weight_grad
)
_registered_input_grad.register_autograd(
    partial(_input_grad_backward, REGISTERED), setup_context=_save_input_grad
)
