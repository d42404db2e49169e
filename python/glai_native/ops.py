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
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, get_num_threads, is_grad_enabled
from torch.compiler import is_compiling

from glai_native import _native, backend
from glai_native.backend import execution
from glai_native.gates import GateEstimate, PackedGates, common_structure, words_per_row


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
        bits = _unit_stride(bits.detach())
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
    # What is no tensor is left to the checks, here as in the other ops.
    x, weight = (t.detach() if isinstance(t, Tensor) else t for t in (x, weight))
    x, weight = _unit_stride(x), _either_unit_stride(weight)
    bias = _unit_stride(bias.detach()) if isinstance(bias, Tensor) else bias
    n_gates = _size(weight, 0)
    like = x if isinstance(x, Tensor) else torch.empty(0)
    words = like.new_empty((_size(x, 0), words_per_row(n_gates)), dtype=torch.int32)
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
    if any(not isinstance(layer, PackedGates) for layer in layers):
        raise TypeError("path_gates: layers must be a sequence of PackedGates, one per hidden layer")
    if len({len(layer) for layer in layers}) != 1:
        raise ValueError(
            f"path_gates: all layers must have the same number of samples, got {[len(layer) for layer in layers]}"
        )
    n_paths = math.prod(layer.n_gates + 1 for layer in layers)
    if n_paths >= 2**31:
        raise ValueError(f"path_gates: the layers make {n_paths} paths, at most {2**31 - 1} are supported")
    structure_id, estimate = common_structure("path_gates", layers), _path_estimate(layers)
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
            ``"reference"`` (CPU only): the weights of the majority's paths are summed first, and what deviates is
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
    _require_gates("gated_matmul", gates)
    if is_compiling():
        return _REGISTERED.forward(
            x, gates.words, gates.n_gates, _density(gates), weight, bias, form, precision
        )
    if _needs_grad(x, weight, bias):
        return _EAGER.forward(x, gates.words, gates.n_gates, _density(gates), weight, bias, form, precision)
    return _gated_matmul(x, gates.words, gates.n_gates, _density(gates), weight, bias, form, precision)


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
    _require_gates(op, gates)
    if out is None:
        if accumulate:
            raise ValueError(f"{op}: accumulate=True must come with out, the tensor [P, D, C] to add to")
        if is_compiling():
            return _REGISTERED.weight_grad(
                x, gates.words, gates.n_gates, _density(gates), dy, False, form, precision
            )[0]
        if _needs_grad(x, dy):
            return _EAGER.weight_grad(
                x, gates.words, gates.n_gates, _density(gates), dy, False, form, precision
            )[0]
    elif isinstance(out, Tensor) and _needs_grad(x, dy, out):
        raise ValueError(f"{op}: with out, no argument may require a gradient; call it under torch.no_grad()")
    return _weight_grad(
        x, gates.words, gates.n_gates, _density(gates), dy, False, form, precision, out, accumulate
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
    _require_gates("gated_matmul_input_grad", gates)
    if is_compiling():
        return _REGISTERED.input_grad(
            dy, gates.words, gates.n_gates, _density(gates), weight, form, precision
        )
    if _needs_grad(dy, weight):
        return _EAGER.input_grad(dy, gates.words, gates.n_gates, _density(gates), weight, form, precision)
    return _input_grad(dy, gates.words, gates.n_gates, _density(gates), weight, form, precision)


# --- the bare kernels: layouts made fit, outputs allocated, everything else checked natively ---


def _require_gates(op: str, gates: PackedGates) -> None:
    if not isinstance(gates, PackedGates):
        raise TypeError(
            f"{op}: gates must be PackedGates, got {type(gates).__name__}; pack_gates(bits) makes them"
        )


def _density(gates: PackedGates) -> float | None:
    """What the host knows of it; CUDA products choose their form by it."""
    if gates.estimate is None:
        return None
    density = gates.estimate.density
    # A graph is compiled anew for each value: few of them, where batches are counted one by one.
    return round(32 * density) / 32 if is_compiling() else density


def _needs_grad(a: Tensor, b: Tensor, c: Tensor | None = None) -> bool:
    try:
        return is_grad_enabled() and (
            a.requires_grad or b.requires_grad or (c is not None and c.requires_grad)
        )
    except AttributeError:  # no tensor: refused by name in the checks
        return False


def _plain(a: Tensor, b: Tensor, c: Tensor | None = None) -> bool:
    """Whether all are contiguous, the common case: one question each instead of four."""
    try:
        return a.is_contiguous() and b.is_contiguous() and (c is None or c.is_contiguous())
    except (AttributeError, RuntimeError):  # no tensor, or no strides
        return False


def _unit_stride(t: Tensor) -> Tensor:
    """``t``, copied only when its last dimension is strided; what is no dense tensor is left to the checks."""
    if isinstance(t, Tensor) and t.ndim > 0 and t.stride(-1) != 1 and t.shape[-1] != 1:
        return t.contiguous() if t.layout == torch.strided else t
    return t


def _either_unit_stride(t: Tensor) -> Tensor:
    """``t``, copied only when its last two dimensions are both strided: kernels read weights either way."""
    if isinstance(t, Tensor) and t.ndim > 1 and t.stride(-2) == 1:
        return t
    return _unit_stride(t)


def _matrix(a: Tensor, rows: int, b: Tensor, columns: int) -> Tensor:
    """An output beside ``a``, ``[a.shape[rows], b.shape[columns]]``; where there are no such sizes any will do."""
    try:
        return a.new_empty(a.shape[rows], b.shape[columns])  # twice as fast as with a tuple
    except (AttributeError, IndexError):  # no tensor or no matrix: refused by name in the checks
        return torch.empty(0)


def _gated_matmul(
    x: Tensor,
    words: Tensor,
    n_gates: int,
    density: float | None,
    weight: Tensor,
    bias: Tensor | None,
    form: str | None,
    precision: str | None,
) -> Tensor:
    if not _plain(x, weight, bias):
        x, weight = _unit_stride(x), _either_unit_stride(weight)
        bias = None if bias is None else _unit_stride(bias)
    y = _matrix(x, 0, weight, 2)
    how = _product_execution("gated_matmul", y, n_gates, _size(x, 1), density, form, precision)
    _native.gated_matmul(x, words, n_gates, weight, bias, y, *how)
    return y


def _product_execution(
    op: str,
    y: Tensor,
    n_gates: int,
    depth: int,
    density: float | None,
    form: str | None,
    precision: str | None,
) -> tuple[str | None, str | None, bool, Tensor | None, int, int]:
    """Form and precision; of CUDA products whether tf32 will do and memory for each split's sums; threads, stream."""
    if not backend.runs_cuda_kernels(y):
        return form, precision, False, None, get_num_threads(), 0
    tf32 = backend.allows_tf32() if precision is None else precision == "tf32"
    form, splits = _native.plan_cuda_product(
        op, y, n_gates, depth, tf32 and y.dtype == torch.float32, density, form
    )
    dtype = torch.float64 if y.dtype == torch.float64 else torch.float32
    partial = y.new_empty((splits, *y.shape), dtype=dtype) if splits > 1 else None
    return form, precision, tf32, partial, *execution(y)


def _cuda_gathered(words: Tensor, n_gates: int) -> tuple[bool, Tensor | None]:
    """The same for a product that goes path by path: memory for each path's gates, bits over samples."""
    if not (isinstance(words, Tensor) and backend.runs_cuda_kernels(words)):
        return False, None
    return backend.allows_tf32(), words.new_empty((n_gates, words_per_row(words.shape[0])))


def _size(t: Tensor, dim: int) -> int:
    """``t.shape[dim]``, or 0 where there is none, which the native checks then refuse by name."""
    return t.shape[dim] if isinstance(t, Tensor) and t.ndim > dim else 0


def _empty(like: Tensor, *shape: int) -> Tensor:
    """An output beside ``like``; where that is no tensor any will do, the checks refuse ``like`` first."""
    return like.new_empty(shape) if isinstance(like, Tensor) else torch.empty(shape)


def _weight_grad(
    x: Tensor,
    words: Tensor,
    n_gates: int,
    density: float | None,
    dy: Tensor,
    with_bias: bool,
    form: str | None,
    precision: str | None,
    out: Tensor | None = None,
    accumulate: bool = False,
) -> tuple[Tensor, Tensor]:
    """``dw`` and, ``with_bias``, ``db [P, C]``; otherwise ``[0, C]``."""
    if out is None:
        out = _empty(x, n_gates, _size(x, 1), _size(dy, 1))
    elif isinstance(out, Tensor) and not out.is_inference():
        torch.autograd.graph.increment_version(out)
    db = _empty(dy, n_gates if with_bias else 0, _size(dy, 1))
    x, dy = _unit_stride(x), _unit_stride(dy)
    bias_out = db if with_bias else None
    cuda = _cuda_gathered(words, n_gates)
    _native.gated_matmul_weight_grad(
        x, words, n_gates, dy, out, bias_out, accumulate, form, precision, *cuda, *execution(words)
    )
    return out, db


def _input_grad(
    dy: Tensor,
    words: Tensor,
    n_gates: int,
    density: float | None,
    weight: Tensor,
    form: str | None,
    precision: str | None,
) -> Tensor:
    dx = _matrix(dy, 0, weight, 1)
    dy, weight = _unit_stride(dy), _either_unit_stride(weight)
    how = _product_execution("gated_matmul_input_grad", dx, n_gates, _size(dy, 1), density, form, precision)
    _native.gated_matmul_input_grad(dy, words, n_gates, weight, dx, *how)
    return dx


# --- gradients: the family is closed, each op's gradient is made of the other two; a forced form is that
# --- call's alone, its gradients choose theirs; a precision is theirs too ---


class _Family(NamedTuple):
    """The three ops as differentiable calls on plain tensors."""

    forward: Callable[
        [Tensor, Tensor, int, float | None, Tensor, Tensor | None, str | None, str | None], Tensor
    ]
    weight_grad: Callable[
        [Tensor, Tensor, int, float | None, Tensor, bool, str | None, str | None], tuple[Tensor, Tensor]
    ]
    input_grad: Callable[[Tensor, Tensor, int, float | None, Tensor, str | None, str | None], Tensor]


def _save_forward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, words, ctx.n_gates, ctx.density, weight, _, _, ctx.precision = inputs
    ctx.save_for_backward(x, words, weight)


def _forward_backward(family: _Family, ctx: Any, dy: Tensor) -> Any:
    x, words, weight = ctx.saved_tensors
    need_x, _, _, _, need_weight, need_bias, _, _ = ctx.needs_input_grad
    dx = (
        family.input_grad(dy, words, ctx.n_gates, ctx.density, weight, None, ctx.precision)
        if need_x
        else None
    )
    dw = db = None
    if need_weight or need_bias:
        dw, db = family.weight_grad(x, words, ctx.n_gates, ctx.density, dy, need_bias, None, ctx.precision)
    return dx, None, None, None, dw if need_weight else None, db if need_bias else None, None, None


def _save_weight_grad(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, words, ctx.n_gates, ctx.density, dy, ctx.with_bias, _, ctx.precision = inputs
    ctx.save_for_backward(x, words, dy)


def _weight_grad_backward(family: _Family, ctx: Any, ddw: Tensor, ddb: Tensor) -> Any:
    x, words, dy = ctx.saved_tensors
    need_x, _, _, _, need_dy, _, _, _ = ctx.needs_input_grad
    dx = family.input_grad(dy, words, ctx.n_gates, ctx.density, ddw, None, ctx.precision) if need_x else None
    bias = ddb if ctx.with_bias else None
    ddy = (
        family.forward(x, words, ctx.n_gates, ctx.density, ddw, bias, None, ctx.precision)
        if need_dy
        else None
    )
    return dx, None, None, None, ddy, None, None, None


def _save_input_grad(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    dy, words, ctx.n_gates, ctx.density, weight, _, ctx.precision = inputs
    ctx.save_for_backward(dy, words, weight)


def _input_grad_backward(family: _Family, ctx: Any, ddx: Tensor) -> Any:
    dy, words, weight = ctx.saved_tensors
    need_dy, _, _, _, need_weight, _, _ = ctx.needs_input_grad
    ddy = (
        family.forward(ddx, words, ctx.n_gates, ctx.density, weight, None, None, ctx.precision)
        if need_dy
        else None
    )
    dw = (
        family.weight_grad(ddx, words, ctx.n_gates, ctx.density, dy, False, None, ctx.precision)[0]
        if need_weight
        else None
    )
    return ddy, None, None, None, dw, None, None


class _GatedMatmul(torch.autograd.Function):
    forward = staticmethod(_gated_matmul)
    setup_context = staticmethod(_save_forward)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        return _forward_backward(_EAGER, ctx, dy)


class _WeightGrad(torch.autograd.Function):
    setup_context = staticmethod(_save_weight_grad)

    @staticmethod
    def forward(
        x: Tensor,
        words: Tensor,
        n_gates: int,
        density: float | None,
        dy: Tensor,
        with_bias: bool,
        form: str | None,
        precision: str | None,
    ) -> Any:
        return _weight_grad(x, words, n_gates, density, dy, with_bias, form, precision)

    @staticmethod
    def backward(ctx: Any, ddw: Tensor, ddb: Tensor) -> Any:
        return _weight_grad_backward(_EAGER, ctx, ddw, ddb)


class _InputGrad(torch.autograd.Function):
    forward = staticmethod(_input_grad)
    setup_context = staticmethod(_save_input_grad)

    @staticmethod
    def backward(ctx: Any, ddx: Tensor) -> Any:
        return _input_grad_backward(_EAGER, ctx, ddx)


_EAGER = _Family(_GatedMatmul.apply, _WeightGrad.apply, _InputGrad.apply)


# --- the same ops registered with torch, for torch.compile and torch.export ---


@torch.library.custom_op("glai_native::gated_matmul", mutates_args=())
def _registered_gated_matmul(
    x: Tensor,
    words: Tensor,
    n_gates: int,
    density: float | None,
    weight: Tensor,
    bias: Tensor | None,
    form: str | None,
    precision: str | None,
) -> Tensor:
    return _gated_matmul(x, words, n_gates, density, weight, bias, form, precision)


@_registered_gated_matmul.register_fake
def _(
    x: Tensor,
    words: Tensor,
    n_gates: int,
    density: float | None,
    weight: Tensor,
    bias: Tensor | None,
    form: str | None,
    precision: str | None,
) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[2]))


@torch.library.custom_op("glai_native::gated_matmul_weight_grad", mutates_args=())
def _registered_weight_grad(
    x: Tensor,
    words: Tensor,
    n_gates: int,
    density: float | None,
    dy: Tensor,
    with_bias: bool,
    form: str | None,
    precision: str | None,
) -> tuple[Tensor, Tensor]:
    return _weight_grad(x, words, n_gates, density, dy, with_bias, form, precision)


@_registered_weight_grad.register_fake
def _(
    x: Tensor,
    words: Tensor,
    n_gates: int,
    density: float | None,
    dy: Tensor,
    with_bias: bool,
    form: str | None,
    precision: str | None,
) -> tuple[Tensor, Tensor]:
    dw = x.new_empty((n_gates, x.shape[1], dy.shape[1]))
    return dw, dy.new_empty((n_gates if with_bias else 0, dy.shape[1]))


@torch.library.custom_op("glai_native::gated_matmul_input_grad", mutates_args=())
def _registered_input_grad(
    dy: Tensor,
    words: Tensor,
    n_gates: int,
    density: float | None,
    weight: Tensor,
    form: str | None,
    precision: str | None,
) -> Tensor:
    return _input_grad(dy, words, n_gates, density, weight, form, precision)


@_registered_input_grad.register_fake
def _(
    dy: Tensor,
    words: Tensor,
    n_gates: int,
    density: float | None,
    weight: Tensor,
    form: str | None,
    precision: str | None,
) -> Tensor:
    return dy.new_empty((dy.shape[0], weight.shape[1]))


_REGISTERED = _Family(_registered_gated_matmul, _registered_weight_grad, _registered_input_grad)

_registered_gated_matmul.register_autograd(
    partial(_forward_backward, _REGISTERED), setup_context=_save_forward
)
_registered_weight_grad.register_autograd(
    partial(_weight_grad_backward, _REGISTERED), setup_context=_save_weight_grad
)
_registered_input_grad.register_autograd(
    partial(_input_grad_backward, _REGISTERED), setup_context=_save_input_grad
)
