"""This module holds the gated product and its two gradients: native kernels as torch functions.

Shapes are in N samples, P paths (gates), D features and C outputs. Floating tensors are float32 or float64, on CUDA
float16 or bfloat16 too (summed in float32), all of one op alike, with any strides (a kernel that needs another layout
gets a copy). CUDA products of float32 take tf32 where ``torch.backends.cuda.matmul.allow_tf32`` says so,
unless a gated product is told its ``precision``.

A call takes the shortest way that is right: the bare kernel, an ``autograd.Function`` where a gradient is needed, a
registered op where a compiler, an exporter or a tracer watches, plain torch under ``torch.func``'s transforms.
"""

from __future__ import annotations

import torch
from torch import Tensor, get_num_threads
from torch.compiler import is_dynamo_compiling

import glai_native._native as _native
from glai_native.gates.packed import PackedGates
from glai_native.machine.layouts import needs_grad
from glai_native.machine.threads import OUTSIDE
from glai_native.machine.watching import is_watched
from glai_native.ops.gated_matmul_autograd import products_for, write_weight_grad
from glai_native.ops.operands import known_of, require_gates


def gated_matmul(
    x: Tensor,
    gates: PackedGates,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    form: str | None = None,
    precision: str | None = None,
) -> Tensor:
    """Compute ``y[n,c] = sum_p g[n,p] · (bias[p,c] + sum_d x[n,d] · weight[p,d,c])``.

    It is differentiable in ``x``, ``weight`` and ``bias``, to any order.

    Source: the path estimator's product, arXiv 2312.09971; a gated linear network in Fiat, Malach and Shalev-Shwartz,
    arXiv 1906.05032. Sums over subsets: Arlazarov, Dinic, Kronrod and Faradzhev (1970).

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
    if form is None and precision is None and not is_dynamo_compiling():
        threads = OUTSIDE.threads or get_num_threads()  # kernel_threads(), without the call
        y: Tensor | None = _native.gated_matmul_on_cpu(x, gates.words, gates.n_gates, weight, bias, threads)
        if y is not None:
            return y
    return products_for(x, weight, bias).forward(
        x, gates.words, gates.n_gates, known_of(gates), weight, bias, form, precision
    )


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
    """Compute the masked gradient accumulation ``dw[p,d,c] = sum_n g[n,p] · x[n,d] · dy[n,c]``.

    Source: the gradient of :func:`gated_matmul` with respect to its weight.

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
        return products_for(x, dy).weight_grad(
            x, gates.words, gates.n_gates, known_of(gates), dy, False, form, precision
        )[0]
    if isinstance(out, Tensor) and needs_grad(x, dy, out):
        raise ValueError(f"{op}: with out, no argument may require a gradient; call it under torch.no_grad()")
    if is_watched(out):
        dw, _ = products_for(x, dy).weight_grad(
            x, gates.words, gates.n_gates, known_of(gates), dy, False, form, precision
        )
        return out.add_(dw) if accumulate else out.copy_(dw)
    if isinstance(out, Tensor) and not out.is_inference():
        torch.autograd.graph.increment_version(out)
    write_weight_grad(x, gates.words, gates.n_gates, dy, out, None, accumulate, form, precision)
    return out


def gated_matmul_input_grad(
    dy: Tensor, gates: PackedGates, weight: Tensor, *, form: str | None = None, precision: str | None = None
) -> Tensor:
    """Compute ``dx[n,d] = sum_p g[n,p] · sum_c dy[n,c] · weight[p,d,c]``.

    Source: the gradient of :func:`gated_matmul` with respect to x.

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
    return products_for(dy, weight).input_grad(
        dy, gates.words, gates.n_gates, known_of(gates), weight, form, precision
    )
