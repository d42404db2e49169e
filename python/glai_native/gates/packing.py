"""This module makes gates: packed from bits, from a layer's pre-activations, and those of paths from those of units."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from glai_native.gates import words
from glai_native.gates.packed import GateEstimate, PackedGates, common_structure
from glai_native.machine.layouts import size, without_history
from glai_native.machine.watching import way


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
        bits = without_history(bits)
        return PackedGates._trusted(words.PACK[way(bits)](bits), bits.shape[1])
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
    x, weight, bias = without_history(x), without_history(weight), without_history(bias)
    return PackedGates._trusted(words.SELECT[way(x, weight, bias)](x, weight, bias), size(weight, 0))


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
    first = layers[0].words
    if len(layers) > 1 and any([layer.words.shape[0] != first.shape[0] for layer in layers]):
        raise ValueError(
            f"path_gates: all layers must have the same number of samples, got {[len(layer) for layer in layers]}"
        )
    n_paths = math.prod([layer.n_gates + 1 for layer in layers])
    if n_paths >= 2**31:
        raise ValueError(f"path_gates: the layers make {n_paths} paths, at most {2**31 - 1} are supported")
    structure_id = layers[0].structure_id if len(layers) == 1 else common_structure("path_gates", layers)
    estimate = _path_estimate(layers)
    unit_words = [layer.words for layer in layers]
    path_words = words.PATHS[way(first)](unit_words, [layer.n_gates for layer in layers])
    return PackedGates._trusted(path_words, n_paths, structure_id, estimate)


def _path_estimate(layers: Sequence[PackedGates]) -> GateEstimate | None:
    """Return the estimate of path gates, exact for one layer; None where it is not known of all unit bits.

    For several, units of different layers count as independent, and of the deviation this is the most that the
    density allows.
    """
    if is_dynamo_compiling():  # or each value would be a graph of its own
        return None
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
