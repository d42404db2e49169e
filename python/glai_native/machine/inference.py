"""This module trains inside ``torch.inference_mode`` as outside: what it makes there would never be trained again."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

Function = TypeVar("Function", bound=Callable[..., Any])


def outside_inference_mode(function: Function) -> Function:
    """Make a function run as if nobody had switched inference mode on, on copies of tensors that were made in it."""

    @functools.wraps(function)
    def run(*arguments: Any, **named: Any) -> Any:
        with torch.inference_mode(False):
            return function(
                *(_ordinary(argument) for argument in arguments),
                **{name: _ordinary(argument) for name, argument in named.items()},
            )

    return cast(Function, run)


def _ordinary(argument: Any) -> Any:
    """Return a copy of a tensor that was made in inference mode; a module's are replaced in place."""
    if isinstance(argument, Tensor):
        return argument.clone() if argument.is_inference() else argument
    if isinstance(argument, nn.Module) and "_parameters" in vars(
        argument
    ):  # one that is just being made has none
        for module in argument.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None and parameter.is_inference():
                    module._parameters[name] = nn.Parameter(parameter.clone(), parameter.requires_grad)
            for name, buffer in module._buffers.items():
                if buffer is not None and buffer.is_inference():
                    module._buffers[name] = buffer.clone()
    return argument
