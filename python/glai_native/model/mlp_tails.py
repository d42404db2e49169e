"""This file finds the ReLU network that a ``nn.Sequential`` ends in, and reads it as plain Linear and ReLU layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

EXPECTED = (
    "an nn.Sequential that ends in (Linear, ReLU, ..., Linear) with at least one hidden layer (Dropout, Identity and "
    "BatchNorm1d right after a Linear may stand between)"
)
# What is the identity in eval mode.
NEUTRAL = (nn.Dropout, nn.Identity)


@dataclass(frozen=True)
class MLPTail:
    """The last layers of a Sequential, where they are a ReLU network.

    Attributes:
        name: of the Sequential in the module that it was found in.
        sequential: the Sequential itself.
        keys: names of the layers in it, first Linear first.
    """

    name: str
    sequential: nn.Sequential
    keys: tuple[str, ...]

    def plain_mlp(self) -> nn.Sequential:
        """Return what the layers compute in eval mode, as ``Sequential(Linear, ReLU, ..., Linear)``; it is a copy.

        BatchNorm1d is folded, with its running statistics, into the Linear before it.
        """
        linears: list[nn.Linear] = []
        for key in self.keys:
            layer = self.sequential._modules[key]
            if isinstance(layer, nn.Linear):
                weight = layer.weight.detach()
                linears.append(
                    _linear(weight, weight.new_zeros(len(weight)) if layer.bias is None else layer.bias)
                )
            elif isinstance(layer, nn.BatchNorm1d):
                linears[-1] = _fold(linears[-1], layer)
        layers = [layer for linear in linears for layer in (linear, nn.ReLU())]
        return nn.Sequential(*layers[:-1])


def find_mlp(owner: str, module: nn.Module, name: str | None) -> MLPTail:
    """Return the ReLU network at ``name``, or the only one in the module.

    Args:
        owner: who is asked, named in the errors.
        module: where to look.
        name: dotted name of a Sequential, ``""`` for the module itself; None looks at all of them.

    Raises:
        ValueError: there is none at that name; none or more than one in the module; a layer of it has hooks.
    """
    if name is None:
        found = [
            tail for name, child in module.named_modules() if (tail := _tail_of(name, child)) is not None
        ]
        if len(found) != 1:
            names = ", ".join(repr(tail.name) for tail in found) or "none"
            hint = "; name one" if found else ""
            raise ValueError(f"{owner}: module must hold one MLP, {EXPECTED}, found {names}{hint}")
        tail = found[0]
    else:
        try:
            child = module.get_submodule(name)
        except AttributeError:
            raise ValueError(
                f"{owner}: module must have a submodule {name!r}, it has none of that name"
            ) from None
        named = _tail_of(name, child)
        if named is None:
            inside = f" of ({', '.join(type(layer).__name__ for layer in child.children())})"
            raise ValueError(
                f"{owner}: {name!r} must be {EXPECTED}, got {type(child).__name__}"
                f"{inside if isinstance(child, nn.Sequential) else ''}"
            )
        tail = named
    for key in tail.keys:
        layer = tail.sequential._modules[key]
        if layer._forward_hooks or layer._forward_pre_hooks:
            raise ValueError(
                f"{owner}: layers of {tail.name!r} must have no forward hooks, they would be lost; layer {key!r} "
                "has (pruning: prune.remove makes it permanent)"
            )
        if layer._backward_hooks or layer._backward_pre_hooks:
            raise ValueError(
                f"{owner}: layers of {tail.name!r} must have no backward hooks, they would be lost; layer {key!r} has"
            )
    return tail


def _tail_of(name: str, module: nn.Module) -> MLPTail | None:
    if not isinstance(module, nn.Sequential) or not _computes_as(module, nn.Sequential):
        return None
    # All that is called, also what is called twice: named_children() leaves repeats out.
    named = [(key, layer) for key, layer in module._modules.items() if layer is not None]
    layers = [layer for _, layer in named]
    start, linears, end = len(layers), 0, len(layers)
    while True:
        end = _without_neutral(layers, end)
        if end and _is_foldable(layers[end - 1]):
            end = _without_neutral(layers, end - 1)
        if (
            not end
            or not _computes_as(layers[end - 1], nn.Linear)
            or isinstance(layers[end - 1], nn.LazyLinear)
        ):
            break
        start, linears = end - 1, linears + 1
        end = _without_neutral(layers, start)
        if not end or not _computes_as(layers[end - 1], nn.ReLU):
            break
        end -= 1
    return MLPTail(name, module, tuple(key for key, _ in named[start:])) if linears >= 2 else None


def _computes_as(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Return whether a call of the layer is what the class computes; a subclass may do more (adapters)."""
    return isinstance(layer, kind) and type(layer).forward is kind.forward and "forward" not in vars(layer)


def _is_foldable(layer: nn.Module) -> bool:
    if not isinstance(layer, nn.BatchNorm1d) or isinstance(layer, LazyModuleMixin):
        return False
    kind = nn.BatchNorm1d
    return (
        type(layer).forward is kind.forward
        and "forward" not in vars(layer)
        and layer.running_mean is not None
    )


def _without_neutral(layers: list[nn.Module], end: int) -> int:
    """Return how many layers are left once neutral ones are taken off the end."""
    while end and any(_computes_as(layers[end - 1], kind) for kind in NEUTRAL):
        end -= 1
    return end


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta").to(weight.dtype)
    linear.weight = nn.Parameter(weight.detach().clone())
    linear.bias = nn.Parameter(bias.detach().clone())
    return linear


def _fold(linear: nn.Linear, norm: nn.BatchNorm1d) -> nn.Linear:
    assert norm.running_mean is not None  # _tail_of takes no other
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    bias = (linear.bias.double() - norm.running_mean.double()) * scale
    if norm.bias is not None:
        bias = bias + norm.bias.double()
    return _linear(
        (linear.weight.double() * scale.unsqueeze(1)).to(linear.weight.dtype), bias.to(linear.bias.dtype)
    )
