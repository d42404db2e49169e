"""A whole model's output is one native call here: of few samples, calls cost more than what they compute."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling

import glai_native._native as _native
from glai_native.data.checks import FLOATS
from glai_native.estimator.estimator import PathEstimator
from glai_native.machine.memory import free_memory
from glai_native.machine.threads import kernel_threads
from glai_native.machine.watching import BARE
from glai_native.structure.projection import InputProjection
from glai_native.structure.selector import PathSelector
from glai_native.structure.unit_features import unit_features

# Most samples of one call: from 512 on what calls cost is not seen (python -m glai_bench.solvers, inference).
FEW_SAMPLES = 256


@torch.no_grad()
def wide_output(selector: PathSelector, estimator: PathEstimator, x: Tensor) -> Tensor:
    """Compute a model's linear output of raw x ``[N, in_features]``, its products in float64 where memory allows.

    The terms of a closed form nearly cancel, and what float32 leaves of them depends on the samples beside a sample.
    """
    z = selector.project(x)
    inputs = (unit_features(selector, z),) if estimator.n_units else (z, selector.gates_of(z))
    tensors = [*estimator.named_parameters(), *estimator.named_buffers()]
    floats = {name: tensor for name, tensor in tensors if tensor.is_floating_point()}
    if 8 * sum(tensor.numel() for tensor in floats.values()) > free_memory(z.device) // 4:
        output: Tensor = estimator(*inputs)
        return output
    wide = {name: tensor.double() for name, tensor in floats.items()}
    output = torch.func.functional_call(estimator, wide, (inputs[0].double(), *inputs[1:]))
    return output


def model_output(selector: PathSelector, estimator: PathEstimator, x: Tensor) -> Tensor | None:
    """Return what a model of these two modules makes of raw x ``[N, in_features]``; None where they must be asked.

    They must be asked for many samples, of units, for gradients, on CUDA, by a compiler, of a pruned structure, where x
    is not of the model's dtype, and where somebody replaced or watches one of them.
    """
    if torch.is_grad_enabled() or is_dynamo_compiling() or not _is_few(x) or _native.way(x) != BARE:
        return None
    # Dictionaries of modules, not attributes: looking those up would be a tenth of the time.
    if type(selector) is not PathSelector or selector._buffers["kept_paths"] is not None:
        return None
    projection: Any = selector._modules["projection"]
    if not _is_plain(estimator, PathEstimator) or not _is_plain(projection, InputProjection):
        return None
    if (
        estimator.n_units
        or estimator.structure_id != selector.structure_id
        or x.shape[1] != projection.in_features
    ):
        return None
    parameters: dict[str, Any] = estimator._parameters
    buffers: dict[str, Any] = estimator._buffers
    directions = buffers["directions"]
    weight, bias = ("weight", "bias") if directions is None else ("u", "beta")
    mean, scale, rotation = (projection._buffers[name] for name in ("mean", "scale", "rotation"))
    hidden = selector.hidden
    weights = parameters.get(weight)  # a replica of DataParallel's has them elsewhere
    if weights is None or not hidden[0][0].dtype == weights.dtype == x.dtype:
        return None
    if mean is not None and mean.dtype != x.dtype:  # centred in another dtype, before the network's
        return None
    along = {}
    if directions is not None:
        along = {
            "directions": directions,
            "constant_weight": parameters["constant_weight"],
            "constant_bias": parameters["constant_bias"],
        }
    y = x.new_empty(x.shape[0], buffers["on_counts"].shape[1])
    _native.model_output(
        x=x,
        mean=mean,
        scale=scale,
        rotation=rotation,
        hidden_weights=[layer[0] for layer in hidden],
        hidden_biases=[layer[1] for layer in hidden],
        weight=weights,
        bias=parameters[bias],
        **along,
        y=y,
        threads=kernel_threads(),
    )
    return y


def _is_few(x: Tensor) -> bool:
    """Return whether x is a matrix of few samples that a kernel on the CPU reads as it is."""
    if not isinstance(x, Tensor) or x.ndim != 2 or not 0 < x.shape[0] <= FEW_SAMPLES:
        return False
    return x.is_cpu and x.dtype in FLOATS and x.layout is torch.strided and x.is_contiguous()


def _is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Return whether a call of the module is the forward of its class and nothing else."""
    return (
        type(module) is kind
        and "forward" not in module.__dict__
        and not (module._forward_hooks or module._forward_pre_hooks)
    )
