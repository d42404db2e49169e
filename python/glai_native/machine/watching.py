"""This module tells which way an op takes: who watches what is computed, and whether gradients are asked for.

Kernels get pointers, so that torch sees nothing of them. Where something has to see, a call takes another way: an op
that is registered with torch (compilers, exporters, tracers, fake tensors, subclasses of tensors), or plain torch
operations (transforms of functions and forward-mode derivatives, which want to look inside).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_dynamo_compiling

import glai_native._native as _native

# What `way` returns, in the order in which an op lists its ways. They are csrc/bindings/watching.cpp's.
BARE, GRADIENT, REGISTERED, PLAIN = range(4)

_are_transforms_active = torch._C._are_functorch_transforms_active


def way(a: Any = None, b: Any = None, c: Any = None) -> int:
    """Return which way an op on these takes; what is no tensor counts for nothing."""
    if is_dynamo_compiling():  # which reads no further, so that the rest is for those who run
        return PLAIN if _are_transforms_active() else REGISTERED
    return _native.way(a, b, c)


def is_watched(a: Any = None) -> bool:
    """Return whether anything sees what is computed on ``a``, and may see it again for other values and sizes."""
    return way(a) >= REGISTERED


def is_batched_gradient(gradient: Tensor) -> bool:
    """Return whether a gradient is many in one (``torch.autograd.grad(is_grads_batched=True)``), unseen by `way`."""
    return bool(torch._C._functorch.is_legacy_batchedtensor(gradient))


def register(
    name: str, run: Callable[..., Any], fake: Callable[..., Any], *, has_derivative: bool = False
) -> Any:
    """Register a bare op with torch, and with it what its outputs look like for inputs without values.

    Args:
        name: in the namespace ``glai_native``.
        run: the op; its annotations are the schema.
        fake: makes empty outputs of the right sizes.
        has_derivative: outputs depend smoothly on inputs. torch drops the derivatives of forward mode at a registered
            op without a word, so that it is refused here (eager calls of our functions take the plain way instead).
    """
    # Lists of sizes are a structure's and never change; torch.jit.trace knows no lists of symbols.
    schema = torch.library.infer_schema(run, mutates_args=()).replace("SymInt[]", "int[]")
    run = _refusing(name, run) if has_derivative else run
    op = torch.library.custom_op(f"glai_native::{name}", run, mutates_args=(), schema=schema)
    op.register_fake(fake)
    return op


def saving_forward(run: Callable[..., Any], save: Callable[..., None]) -> Any:
    """Make the ``forward`` of an ``autograd.Function`` from a bare op and what a registered one has as setup_context.

    Of a ``setup_context`` torch binds the signature anew in each call, which takes longer than small ops. Transforms of
    functions would need it, but take plain torch here.
    """

    def forward(ctx: Any, *inputs: Any) -> Any:
        output = run(*inputs)
        save(ctx, inputs, output)
        return output

    return staticmethod(forward)


def _refusing(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(run)
    def refusing(*arguments: Any) -> Any:
        if forward_ad._current_level >= 0:
            raise RuntimeError(
                f"{name}: forward-mode derivatives must be taken of the model itself, got them through a compiled, "
                "exported or traced copy, in which they would be lost"
            )
        return run(*arguments)

    return refusing
