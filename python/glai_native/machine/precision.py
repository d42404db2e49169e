"""This module keeps casts out of what has a precision of its own: gates are bits, which rounding would switch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

Method = TypeVar("Method", bound=Callable[..., Any])


def in_own_precision(method: Method) -> Method:
    """Make a method of a module compute on its first argument as if there were no autocast."""

    @functools.wraps(method)
    def run(module: Any, x: Any, *rest: Any) -> Any:
        if isinstance(x, Tensor) and (x.is_cpu or x.is_cuda) and torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return method(module, x, *rest)
        return method(module, x, *rest)

    return cast(Method, run)


def is_narrower(dtype: torch.dtype, than: torch.dtype) -> bool:
    """Return whether a cast to a floating type rounds what another holds."""
    return dtype.is_floating_point and than.is_floating_point and dtype.itemsize < than.itemsize
