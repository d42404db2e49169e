"""This module makes the closed forms' matrices: the path kernel over samples, the gram matrix over path features.

Both are computed on values alone: what goes in is taken as detached, and no gradient comes out (under the transforms
of ``torch.func``, which take plain torch instead, derivatives are the true ones). Values are float32
or float64; on CUDA the path kernel takes float16 and bfloat16 too, and tf32 is used where torch may use it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import glai_native._native as _native
from glai_native.gates.packed import PackedGates, common_structure
from glai_native.machine import backend
from glai_native.machine.backend import execution
from glai_native.machine.layouts import new_empty, new_zeros, size, unit_stride, without_history
from glai_native.machine.watching import PLAIN, REGISTERED, register, way
from glai_native.ops.operands import plain_gates, plan_gathered, require_gates
from glai_native.ops.oracle import path_gram_ref, path_kernel_ref

CACHE_LINE_BYTES = 64


def path_kernel(
    xa: Tensor,
    layers_a: Sequence[PackedGates],
    xb: Tensor | None = None,
    layers_b: Sequence[PackedGates] | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Compute ``k[n,m] = (xa[n]·xb[m] + 1) · prod_l (a_l(n)·a_l(m) + 1)``.

    This is the inner product of all path features of two samples, without the paths: a_l are the unit bits of hidden
    layer l, and the ones are the bias feature and the always-on unit of each layer.

    Source: the neural path kernel, Lakshminarayanan and Singh, arXiv 2006.10529, with bias features.

    Args:
        xa: ``[Na, D]``.
        layers_a: unit bits of the Na samples, one :class:`PackedGates` per hidden layer, first layer first, the
            always-on unit not among them.
        xb: ``[Nb, D]``; None: the kernel of ``xa`` with itself, half of which is computed.
        layers_b: unit bits of the Nb samples; goes with ``xb``.
        out: ``[Na, Nb]`` to write into, with stride 1 in its last dimension; None makes one. Memory that was
            written before saves the page faults of a fresh result, which can cost more than the kernel itself.

    Returns:
        ``out``, ``[Na, Nb]``, exactly symmetric when ``xb`` is None. It carries no gradient.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, named with what was expected; layers of different
            structures; ``xb`` without ``layers_b`` or the reverse; an ``out`` that shares memory with an argument.
    """
    op = "path_kernel"
    if (xb is None) != (layers_b is None):
        given, missing = ("xb", "layers_b") if layers_b is None else ("layers_b", "xb")
        raise ValueError(f"{op}: {given} must come with {missing}")
    _require_layers(op, "layers_a", layers_a)
    if layers_b is not None:
        _require_layers(op, "layers_b", layers_b)
        units_a, units_b = ([layer.n_gates for layer in layers] for layers in (layers_a, layers_b))
        if units_a != units_b:
            raise ValueError(f"{op}: layers_b must have the units of layers_a, {units_a}, got {units_b}")
    common_structure(op, [*layers_a, *(layers_b or ())])
    words_a, words_b = ([layer.words for layer in layers] for layers in (layers_a, layers_b or ()))
    arguments = xa, words_a, xb, words_b, [layer.n_gates for layer in layers_a]
    taken = way(xa, xb, out)
    if taken >= REGISTERED:
        kernel = _KERNEL[taken](*arguments)
        return kernel if out is None else out.copy_(kernel)
    if out is None:
        return _path_kernel(*arguments)
    if isinstance(out, Tensor) and not out.is_inference():
        torch.autograd.graph.increment_version(out)
    _write_kernel(*arguments, out)
    return out


def path_gram(
    x: Tensor, gates: PackedGates, sample_weight: Tensor | None = None, out: Tensor | None = None
) -> Tensor:
    """Compute the upper triangle of ``gram[(p,d),(q,e)] = sum_n s[n] · g[n,p] · g[n,q] · x[n,d] · x[n,e]``.

    This is the gram matrix of the path features, with x extended by a last feature, 1, whose weight is the bias. Rows
    and columns run over (p, d), d fastest: feature d of path p is row p·(D+1) + d, its bias row p·(D+1) + D.

    Source: the normal equations of least squares over neural path features (arXiv 2006.10529).

    Args:
        x: ``[N, D]``.
        gates: path gates, N samples of P.
        sample_weight: s, ``[N]``, of any sign: a negative one takes a sample out again; None: 1 for each.
        out: ``[P·(D+1), P·(D+1)]`` to add to, so that samples can come in chunks; with stride 1 in its last
            dimension. None: zeros.

    Returns:
        ``out``. Only elements on or above the diagonal are added to: below it, ``out`` stays as it was (zero where
        it was made here). Two paths that are never on together leave their block untouched. It carries no
        gradient.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, named with what was expected.
    """
    require_gates("path_gram", gates)
    arguments = x, gates.words, gates.n_gates, sample_weight
    taken = way(x, sample_weight, out)
    if taken >= REGISTERED:
        gram = _GRAM[taken](*arguments)
        return gram if out is None else out.add_(gram)
    if out is None:
        return _path_gram(*arguments)
    if isinstance(out, Tensor) and not out.is_inference():
        torch.autograd.graph.increment_version(out)
    _add_gram(*arguments, out)
    return out


# --- the bare kernels ---


def _path_kernel(
    xa: Tensor,
    words_a: Sequence[Tensor],
    xb: Tensor | None,
    words_b: Sequence[Tensor],
    n_units: Sequence[int],
) -> Tensor:
    """Compute the kernel ``[Na, Nb]``."""
    out = new_empty(xa, size(xa, 0), size(xa if xb is None else xb, 0))
    _write_kernel(xa, words_a, xb, words_b, n_units, out)
    return out


def _write_kernel(
    xa: Tensor,
    words_a: Sequence[Tensor],
    xb: Tensor | None,
    words_b: Sequence[Tensor],
    n_units: Sequence[int],
    out: Tensor,
) -> None:
    _native.path_kernel(
        unit_stride(xa),
        words_a,
        None if xb is None else unit_stride(xb),
        words_b,
        n_units,
        out,
        backend.runs_cuda_kernels(words_a[0]) and backend.allows_tf32(),
        *execution(words_a[0]),
    )


def _path_gram(x: Tensor, words: Tensor, n_gates: int, sample_weight: Tensor | None) -> Tensor:
    """Compute the upper triangle of the gram matrix, zeros below."""
    width = n_gates * (size(x, 1) + 1)
    out = new_zeros(x, width, width)
    _add_gram(x, words, n_gates, sample_weight, out)
    return out


def _add_gram(x: Tensor, words: Tensor, n_gates: int, sample_weight: Tensor | None, out: Tensor) -> None:
    n, width = size(x, 0), size(x, 1) + 1
    features = _feature_rows(x, n, width)
    weighted = None
    if sample_weight is not None:
        sample_weight, weighted = unit_stride(sample_weight), _feature_rows(x, n, width)
    _native.path_gram(
        unit_stride(x),
        words,
        n_gates,
        sample_weight,
        features,
        weighted,
        out,
        plan_gathered(words, n_gates),
        *execution(features),
    )


# --- where something watches ---


def _fake_kernel(
    xa: Tensor,
    words_a: Sequence[Tensor],
    xb: Tensor | None,
    words_b: Sequence[Tensor],
    n_units: Sequence[int],
) -> Tensor:
    return xa.new_empty((xa.shape[0], (xa if xb is None else xb).shape[0]))


def _fake_gram(x: Tensor, words: Tensor, n_gates: int, sample_weight: Tensor | None) -> Tensor:
    width = n_gates * (x.shape[1] + 1)
    return x.new_empty((width, width))


def _plain_kernel(
    xa: Tensor,
    words_a: Sequence[Tensor],
    xb: Tensor | None,
    words_b: Sequence[Tensor],
    n_units: Sequence[int],
) -> Tensor:
    a = [plain_gates("path_kernel", *of, (xa, "ND")) for of in zip(words_a, n_units, strict=True)]
    if xb is None:
        upper = path_kernel_ref(xa, a, xa, a).triu()
        return upper + upper.triu(1).T
    b = [plain_gates("path_kernel", *of, (xb, "ND")) for of in zip(words_b, n_units, strict=True)]
    return path_kernel_ref(xa, a, xb, b)


def _plain_gram(x: Tensor, words: Tensor, n_gates: int, sample_weight: Tensor | None) -> Tensor:
    g = plain_gates("path_gram", words, n_gates, (x, "ND"), (sample_weight, "N"))
    return path_gram_ref(x, g, sample_weight)


_registered_path_kernel = register("path_kernel", _path_kernel, _fake_kernel)
_registered_path_gram = register("path_gram", _path_gram, _fake_gram)
# What is carried has no gradient: a compiled graph gets x without its history, as the kernels do.
_KERNEL = {
    REGISTERED: lambda xa, words_a, xb, words_b, n_units: _registered_path_kernel(
        without_history(xa), words_a, without_history(xb), words_b, n_units
    ),
    PLAIN: _plain_kernel,
}
_GRAM = {
    REGISTERED: lambda x, words, n_gates, sample_weight: _registered_path_gram(
        without_history(x), words, n_gates, without_history(sample_weight)
    ),
    PLAIN: _plain_gram,
}


def pack_upper(gram: Tensor) -> Tensor:
    """Return the upper triangle of ``gram [M, M]`` row by row, ``[M·(M+1)/2]``."""
    packed = gram.new_empty(len(gram) * (len(gram) + 1) // 2)
    for i, row in enumerate(packed.split(list(range(len(gram), 0, -1)))):
        row.copy_(gram[i, i:])
    return packed


def unpack_upper(packed: Tensor, out: Tensor) -> None:
    """Write what :func:`pack_upper` gave into the upper triangle of ``out [M, M]``."""
    for i, row in enumerate(packed.split(list(range(len(out), 0, -1)))):
        out[i, i:] = row


def _require_layers(op: str, name: str, layers: Sequence[PackedGates]) -> None:
    if not isinstance(layers, Sequence) or any(not isinstance(layer, PackedGates) for layer in layers):
        raise TypeError(f"{op}: {name} must be a sequence of PackedGates, one per hidden layer")
    if not layers:
        raise ValueError(f"{op}: {name} must hold the unit bits of at least one hidden layer, got none")


def _feature_rows(like: Tensor, n: int, width: int) -> Tensor:
    """Make workspace ``[n, width]``; rows an odd number of cache lines apart do not collide in the cache."""
    per_line = CACHE_LINE_BYTES // (like.element_size() if isinstance(like, Tensor) else 4)
    return new_empty(like, n, (-(-width // per_line) | 1) * per_line)[:, :width]
