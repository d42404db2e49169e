"""This module is the way out: the same function in torch's own modules alone, which need nothing of this package."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, fx, nn

from glai_native.gates.paths import units_of_paths
from glai_native.model.glai import GLAI


def to_torch(module: nn.Module) -> nn.Module:
    """Make the same function of torch's own modules: Linear layers, comparisons, products. Nothing is packed.

    The result imports nothing of this package, wherever it goes: it can be exported (``torch.export``, ONNX), traced,
    scripted, cast to any floating type, quantised, compiled, saved whole or as a ``state_dict``. What is trained here
    is trainable there, what is frozen is frozen, and gates are constants to gradients there too. It computes all paths
    of all samples, N·P·C numbers (with output directions N·P), which the kernels do not.

    Source: the path estimator as it is defined, arXiv 2312.09971.

    Args:
        module: a :class:`GLAI`, a :class:`GLAIHead`, or any module that holds some. It stays as it is.

    Returns:
        Of a ``GLAI`` a ``torch.fx.GraphModule``, which takes raw x ``[..., in_features]`` and gives ``[..., C]``,
        values in the units of y; of another module a copy in which those stand in place of each ``GLAI``.

    Raises:
        TypeError: it is no ``nn.Module``; a learner's is ``learner.model_``.
        ValueError: it holds no ``GLAI``.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"to_torch: module must be a torch.nn.Module, got {type(module).__name__}; a learner has one as model_"
        )
    if isinstance(module, GLAI):
        return _plain(module)
    found = [
        (name, part) for name, part in module.named_modules(remove_duplicate=False) if isinstance(part, GLAI)
    ]
    if not found:
        raise ValueError(f"to_torch: module must be or hold a GLAI, got {type(module).__name__} without one")
    plain = {part: _plain(part) for _, part in found}
    # A copy to which each GLAI is copied as what stands for it, however often and wherever it is held.
    return copy.deepcopy(module, {id(part): replacement for part, replacement in plain.items()})


def _plain(model: GLAI) -> fx.GraphModule:
    root = _Plain(model)
    # Traced, its class is torch's own and its code plain text: neither names this package.
    graph = fx.Tracer().trace(root)
    for node in graph.nodes:
        node.type = None  # names of this module's, which torch.jit.script would look up
    plain = fx.GraphModule(root, graph, "PlainGLAI")
    return plain.train(model.training)


class _Plain(nn.Module):
    """What is traced: the structure and the numbers of a model as Linear layers."""

    mean: Tensor | None
    scale: Tensor
    rotation: Tensor | None
    zero: Tensor
    rounded: Tensor | None
    target_mean: Tensor | None
    target_scale: Tensor

    def __init__(self, model: GLAI) -> None:
        super().__init__()
        selector, estimator = model.selector, model.estimator
        projection = selector.projection
        dtype = selector.hidden[0][0].dtype
        for name in ("mean", "scale", "rotation"):
            self.register_buffer(name, _copied(getattr(projection, name)))
        # What is not on; also of the type that all is computed in, whatever the module is cast to.
        self.register_buffer("zero", selector.hidden[0][0].new_zeros(()))
        self.hidden = nn.ModuleList(_linear(*layer, trained=False) for layer in selector.hidden)
        if selector.kept_paths is not None:
            for i, units in enumerate(units_of_paths(selector.kept_paths, selector.widths)):
                self.register_buffer(f"units_{i}", units.clone())
        self.pruned = selector.kept_paths is not None
        self.sizes = (estimator.n_paths, estimator.out_features)
        self.directed, self.of_units = estimator.directions is not None, estimator.n_units > 0
        if estimator.directions is None:
            weight = estimator.weight.to(dtype)
            trained = estimator.weight.requires_grad
            self.paths = _linear(
                weight.transpose(1, 2).flatten(0, 1), estimator.bias.to(dtype).flatten(), trained
            )
        else:
            trained = estimator.u.requires_grad
            self.paths = _linear(estimator.u.to(dtype), estimator.beta.to(dtype), trained)
            self.constant = _linear(
                estimator.constant_weight.to(dtype).T, estimator.constant_bias.to(dtype), trained
            )
            self.directions = _linear(estimator.directions.to(dtype).T, None, trained=False)
        # Of the type of what comes out, where numbers cast to 16 bits round it.
        rounded = None if estimator.dtype == dtype else torch.zeros_like(self.zero, dtype=estimator.dtype)
        self.register_buffer("rounded", rounded)
        # The outputs' own units are no scaling.
        scaling = (estimator.target_mean, estimator.target_scale) if estimator.has_scaling else (None, None)
        for name, numbers in zip(("target_mean", "target_scale"), scaling, strict=True):
            self.register_buffer(
                name, None if numbers is None else numbers.to(self.zero.device, estimator.dtype)
            )

    def forward(self, x: Tensor) -> Tensor:
        z = x
        if self.mean is not None:
            z = x - self.mean
            z = (z if self.rotation is None else z @ self.rotation.type_as(z)) * self.scale
        z = z.type_as(self.zero)
        if self.of_units:
            h = z
            for layer in self.hidden:
                h = torch.relu(layer(h))
            y = self.paths(torch.cat([h, z], -1))
        else:
            y = self._of_paths(z)
        if self.rounded is not None:
            y = y.type_as(self.rounded)
        return cast(Tensor, y if self.target_mean is None else y * self.target_scale + self.target_mean)

    def _of_paths(self, z: Tensor) -> Tensor:
        gates = self._gates(z)
        carried = self.paths(z)
        if self.directed:
            y = self.constant(z) + self.directions(torch.where(gates, carried, self.zero))
        else:
            each = carried.unflatten(-1, self.sizes)
            y = torch.where(gates.unsqueeze(-1), each, self.zero).sum(-2)
        return cast(Tensor, y)

    def _gates(self, z: Tensor) -> Tensor:
        """Return path gates, bool ``[..., P]``."""
        gates: Tensor | None = None
        activation = z
        for i, layer in enumerate(self.hidden):
            pre_activation = layer(activation)
            on = pre_activation > 0
            on = torch.cat([on, torch.ones_like(on[..., :1])], -1)  # the always-on unit
            if i + 1 < len(self.hidden):  # of the last layer nobody reads the activation
                activation = torch.relu(pre_activation)
            if self.pruned:
                on = on.index_select(-1, getattr(self, f"units_{i}"))
                gates = on if gates is None else gates & on
            else:
                gates = on if gates is None else (gates.unsqueeze(-1) & on.unsqueeze(-2)).flatten(-2)
        return cast(Tensor, gates)


def _copied(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().clone()


def _linear(weight: Tensor, bias: Tensor | None, trained: bool) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format), trained)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().clone(), trained)
    return linear
