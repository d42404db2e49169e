"""This module makes gates: packed from bits, from a layer's pre-activations, and those of paths from those of units."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

import glai_native._native as _native
from glai_native.gates.packed import GateEstimate, PackedGates, common_structure, words_per_row
from glai_native.machine import backend
from glai_native.machine.backend import execution
from glai_native.machine.layouts import either_unit_stride, size, unit_stride, without_history


def pack_gates(bits: Tensor) -> PackedGates:
    """Pack gates into bits.

    Source: the layout of :class:`PackedGates`.

    Args:
        bits: ``[N, P]``, bool, or a number that means on when it is > 0 (NaN is off).
    """
    if isinstance(bits, Tensor) and bits.ndim == 2:
        if bits.is_complex():
            raise ValueError(f"pack_gates: bits must be bool or real numbers, got {bits.dtype}")
        if bits.dtype not in (torch.bool, torch.float32, torch.float64):
            bits = bits > 0
        bits = unit_stride(bits.detach())
        words = bits.new_empty((bits.shape[0], words_per_row(bits.shape[1])), dtype=torch.int32)
        _native.pack_gates(bits, words, *execution(bits))
        return PackedGates._trusted(words, bits.shape[1])
    found = f"{bits.ndim} dimensions" if isinstance(bits, Tensor) else type(bits).__name__
    raise ValueError(f"pack_gates: bits must be a tensor [N, P], got {found}")


def selector_gates(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> PackedGates:
    """Compute which units of a ReLU layer fire: gate h of sample n is ``x[n]·weight[h] + bias[h] > 0`` (NaN is off).

    Pre-activations are never written to memory, and a sample's gates depend on no other sample.

    Args:
        x: ``[N, D]``, the layer's input.
        weight: ``[H, D]``, as ``nn.Linear`` keeps it.
        bias: ``[H]`` or None.
    """
    x, weight = unit_stride(without_history(x)), either_unit_stride(without_history(weight))
    bias = None if bias is None else unit_stride(without_history(bias))
    n_gates = size(weight, 0)
    like = x if isinstance(x, Tensor) else torch.empty(0, device="cpu")
    words = like.new_empty((size(x, 0), words_per_row(n_gates)), dtype=torch.int32)
    tf32 = backend.runs_cuda_kernels(words) and backend.allows_tf32()
    _native.selector_gates(x, weight, bias, words, tf32, *execution(words))
    return PackedGates._trusted(words, n_gates)


def path_gates(layers: Sequence[PackedGates]) -> PackedGates:
    """Make path gates from the unit bits of each hidden layer, first layer first.

    A path is one unit per layer and its gate the AND of their bits; every layer has, last, a unit that is
    always on. P = (h_1+1)·…·(h_L+1), j_1 slowest (DESIGN: "The mathematics").

    Source: the gates of neural path features, Lakshminarayanan and Singh, arXiv 2006.10529.
    """
    if isinstance(layers, PackedGates):
        raise TypeError(
            "path_gates: layers must be a sequence of PackedGates, one per hidden layer, got one alone"
        )
    if not layers:
        raise ValueError("path_gates: layers must hold the unit bits of at least one hidden layer, got none")
    if not all([isinstance(layer, PackedGates) for layer in layers]):
        raise TypeError("path_gates: layers must be a sequence of PackedGates, one per hidden layer")
    if len(layers) > 1 and len({len(layer) for layer in layers}) != 1:
        raise ValueError(
            f"path_gates: all layers must have the same number of samples, got {[len(layer) for layer in layers]}"
        )
    n_paths = math.prod(layer.n_gates + 1 for layer in layers)
    if n_paths >= 2**31:
        raise ValueError(f"path_gates: the layers make {n_paths} paths, at most {2**31 - 1} are supported")
    structure_id = layers[0].structure_id if len(layers) == 1 else common_structure("path_gates", layers)
    estimate = _path_estimate(layers)
    first = layers[0].words
    paths = PackedGates._trusted(first.new_ones((len(layers[0]), 1)), 1)
    for layer in reversed(layers):
        n_gates = (layer.n_gates + 1) * paths.n_gates
        words = first.new_empty((len(layers[0]), words_per_row(n_gates)))
        _native.path_gates(layer.words, layer.n_gates, paths.words, paths.n_gates, words, *execution(first))
        paths = PackedGates._trusted(words, n_gates, structure_id)
    paths.estimate = estimate
    return paths


def _path_estimate(layers: Sequence[PackedGates]) -> GateEstimate | None:
    """Return the estimate of path gates, exact for one layer; None where it is not known of all unit bits.

    For several, units of different layers count as independent, and of the deviation this is the most that the
    density allows.
    """
    density = 1.0
    for layer in layers:
        if layer.estimate is None:
            return None
        density *= (layer.n_gates * layer.estimate.density + 1) / (layer.n_gates + 1)
    if len(layers) == 1:
        (layer,) = layers
        assert layer.estimate is not None
        return GateEstimate(density, layer.n_gates * layer.estimate.deviation / (layer.n_gates + 1))
    return GateEstimate(density, min(density, 1 - density))
