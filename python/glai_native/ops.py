"""The ops: native kernels as torch functions.

Shapes are in N samples, P paths (gates), D features and C outputs. Floating tensors are float32 or float64, on CUDA
float16 or bfloat16 too (summed in float32), all of one op alike, with any strides (a kernel that needs another layout
gets a copy). CUDA products of float32 take tf32 where ``torch.backends.cuda.matmul.allow_tf32`` says so,
unless a gated product is told its ``precision``.

A call takes the shortest way that is right: a registered op under ``torch.compile``, an
``autograd.Function`` where a gradient is needed, the bare kernel otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.compiler import is_compiling

from glai_native import _native, backend
from glai_native.backend import execution
from glai_native.gated_products import EAGER, REGISTERED, bare_gated_matmul, bare_input_grad, bare_weight_grad
from glai_native.gates import GateEstimate, PackedGates, common_structure, words_per_row
from glai_native.operands import (
    either_unit_stride,
    known_of,
    needs_grad,
    require_gates,
    size,
    unit_stride,
    without_history,
)


def pack_gates(bits: Tensor) -> PackedGates:
    """Packs gates into bits.

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
    """Which units of a ReLU layer fire: gate h of sample n is ``x[n]·weight[h] + bias[h] > 0`` (NaN is off).

    Pre-activations are never written to memory, and a sample's gates depend on no other sample.

    Args:
        x: ``[N, D]``, the layer's input.
        weight: ``[H, D]``, as ``nn.Linear`` keeps it.
        bias: ``[H]`` or None.
    """
    x, weight = unit_stride(without_history(x)), either_unit_stride(without_history(weight))
    bias = None if bias is None else unit_stride(without_history(bias))
    n_gates = size(weight, 0)
    like = x if isinstance(x, Tensor) else torch.empty(0)
    words = like.new_empty((size(x, 0), words_per_row(n_gates)), dtype=torch.int32)
    tf32 = backend.runs_cuda_kernels(words) and backend.allows_tf32()
    _native.selector_gates(x, weight, bias, words, tf32, *execution(words))
    return PackedGates._trusted(words, n_gates)


def path_gates(layers: Sequence[PackedGates]) -> PackedGates:
    """Path gates from the unit bits of each hidden layer, first layer first.

    A path is one unit per layer and its gate the AND of their bits; every layer has, last, a unit that is
    always on. P = (h_1+1)·…·(h_L+1), j_1 slowest (DESIGN: "The mathematics").
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
    """Of path gates, where it is known of the unit bits: exact for one layer.

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


def gated_matmul(
    x: Tensor,
    gates: PackedGates,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    form: str | None = None,
    precision: str | None = None,
) -> Tensor:
    """``y[n,c] = sum_p g[n,p] · (bias[p,c] + sum_d x[n,d] · weight[p,d,c])``.

    Differentiable in ``x``, ``weight`` and ``bias``, to any order.

    Args:
        x: ``[N, D]``.
        gates: path gates, N samples of P.
        weight: ``[P, D, C]``.
        bias: ``[P, C]`` or None.
        form: forces a form by name; None chooses one (``glai bench --explain`` shows which, and why): on the CPU by
            shapes and counts of the gates, on CUDA by shapes and, where the host knows it, by ``gates.estimate``.
            ``"compaction"``: per path, the rows that are on are multiplied; work falls with the density.
            ``"dense"`` (CUDA only): all rows are, and the gates select what is added.
            ``"subset_sums"`` (CPU only): paths in groups, the rows of each subset of a group are multiplied by the sum
            of the subset's weights; up to five times less work where many gates are on.
            ``"reference"``: the weights of the majority's paths are summed first, and what deviates is
            corrected; work falls with the deviation. Where it is chosen, not forced, it steps aside when weights of
            paths that a sample has off outweigh those it has on.
        precision: of float32 tensors; gradients take it too. None: ``"fp32"`` on the CPU, on CUDA as torch allows.
            ``"fp32"``: operands as they are. ``"tf32"``: CUDA alone. ``"bf16"``: the CPU alone (on CUDA pass bfloat16
            tensors); operands, biases among them, are rounded to bfloat16, to nearest, ties to even, and sums are in
            float32. Where weights of paths are added before they are multiplied, they are added in float32 and their
            sum is rounded once, so that it may be off by 2^-8 of the sum of their magnitudes. Processors whose
            bfloat16 dot products pay use them: these take subnormal numbers for zero. Others multiply the rounded
            numbers in float32, and gain no time by it. It changes nothing about which form is taken.

    Returns:
        ``[N, C]``. A NaN or infinity in a weight reaches the samples whose path is on, and no others unless
        ``form="reference"`` is forced, where those of a path that most samples have on may reach every sample; one in
        x reaches its own sample only. Weights of paths that are on together may be added before they are multiplied:
        such a sum overflows where the largest finite number is passed, although the products alone might not.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, named with what was expected.
    """
    require_gates("gated_matmul", gates)
    if is_compiling():
        return REGISTERED.forward(
            x, gates.words, gates.n_gates, known_of(gates), weight, bias, form, precision
        )
    if needs_grad(x, weight, bias):
        return EAGER.forward(x, gates.words, gates.n_gates, known_of(gates), weight, bias, form, precision)
    return bare_gated_matmul(x, gates.words, gates.n_gates, known_of(gates), weight, bias, form, precision)


def gated_matmul_weight_grad(
    x: Tensor,
    gates: PackedGates,
    dy: Tensor,
    out: Tensor | None = None,
    accumulate: bool = False,
    *,
    form: str | None = None,
    precision: str | None = None,
) -> Tensor:
    """Masked gradient accumulation: ``dw[p,d,c] = sum_n g[n,p] · x[n,d] · dy[n,c]``.

    Args:
        x: ``[N, D]``.
        gates: path gates, N samples of P.
        dy: ``[N, C]``.
        out: ``[P, D, C]`` to write into, with stride 1 in its last dimension; None makes one.
        accumulate: add to ``out`` instead of overwriting it.
        form: forces ``"compaction"`` or, on the CPU, ``"subset_sums"`` (see :func:`gated_matmul`); None chooses.
        precision: as for :func:`gated_matmul`; x and dy are rounded each, in either form.

    Returns:
        ``out``, ``[P, D, C]``. A path that is never on has gradient exactly 0.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit; ``accumulate`` without ``out``; an ``out`` that
            needs a gradient itself.
    """
    op = "gated_matmul_weight_grad"
    require_gates(op, gates)
    if out is None:
        if accumulate:
            raise ValueError(f"{op}: accumulate=True must come with out, the tensor [P, D, C] to add to")
        if is_compiling():
            return REGISTERED.weight_grad(
                x, gates.words, gates.n_gates, known_of(gates), dy, False, form, precision
            )[0]
        if needs_grad(x, dy):
            return EAGER.weight_grad(
                x, gates.words, gates.n_gates, known_of(gates), dy, False, form, precision
            )[0]
    elif isinstance(out, Tensor) and needs_grad(x, dy, out):
        raise ValueError(f"{op}: with out, no argument may require a gradient; call it under torch.no_grad()")
    return bare_weight_grad(
        x, gates.words, gates.n_gates, known_of(gates), dy, False, form, precision, out, accumulate
    )[0]


def gated_matmul_input_grad(
    dy: Tensor, gates: PackedGates, weight: Tensor, *, form: str | None = None, precision: str | None = None
) -> Tensor:
    """``dx[n,d] = sum_p g[n,p] · sum_c dy[n,c] · weight[p,d,c]``.

    Args:
        dy: ``[N, C]``.
        gates: path gates, N samples of P.
        weight: ``[P, D, C]``.
        form: as for :func:`gated_matmul`.
        precision: as for :func:`gated_matmul`.

    Returns:
        ``[N, D]``.
    """
    require_gates("gated_matmul_input_grad", gates)
    if is_compiling():
        return REGISTERED.input_grad(dy, gates.words, gates.n_gates, known_of(gates), weight, form, precision)
    if needs_grad(dy, weight):
        return EAGER.input_grad(dy, gates.words, gates.n_gates, known_of(gates), weight, form, precision)
    return bare_input_grad(dy, gates.words, gates.n_gates, known_of(gates), weight, form, precision)
