"""This module makes integer features and their sums, exact to the bit on every machine.

Features are bytes, 0 to 127, and sums int64: integer addition has no rounding, so that any order, any cutting into
chunks, any number of threads and any instruction set give the same bits, and samples that are taken out again leave
nothing behind. No gradient comes out of any of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

import glai_native._native as _native
from glai_native.machine import backend
from glai_native.machine.backend import execution
from glai_native.machine.layouts import new_empty, new_zeros, size, unit_stride, without_history
from glai_native.machine.watching import PLAIN, REGISTERED, register, way
from glai_native.ops.oracle import class_sums_ref, integer_features_ref, integer_gram_ref

MOST = 127  # of a feature


class IntegerLayer(NamedTuple):
    """One hidden layer: ``h = min(127, (max(below·weightᵀ + bias, 0) · multiplier + 2^(shift-1)) >> shift)``.

    ``weight`` int8 ``[H, K]``, ``bias`` int32 ``[H]``, ``multiplier`` int32 ``[H]`` in [0, 2^16), ``shift`` 1 to 62.
    """

    weight: Tensor
    bias: Tensor
    multiplier: Tensor
    shift: int


def integer_gram(features: Tensor, out: Tensor | None = None, *, sign: int = 1) -> Tensor:
    """Compute the upper triangle of ``gram[i,j] = sum_n features[n,i] · features[n,j]``, exactly.

    Source: the normal equations of least squares, in integers.

    Args:
        features: uint8 ``[N, M]``, values 0 to 127.
        out: int64 ``[M, M]`` to add to, so that samples can come in chunks; with stride 1 in its last dimension.
            None: zeros.
        sign: 1, or -1: samples that were added are taken out again.

    Returns:
        ``out``. Only elements on or above the diagonal are added to: below it, ``out`` stays as it was (zero where
        it was made here).

    Raises:
        ValueError: shapes, dtypes, devices or values that do not fit, named with what was expected; nothing has been
            added then.
    """
    taken = way(features, out)
    if taken >= REGISTERED:
        gram = _GRAM[taken](features, sign)
        return gram if out is None else out.add_(gram)
    if out is None:
        return _integer_gram(features, sign)
    _count_change(out)
    _add_gram(features, sign, out)
    return out


def class_sums(
    features: Tensor,
    classes: Tensor,
    out: Tensor | None = None,
    n_classes: int | None = None,
    *,
    sign: int = 1,
) -> Tensor:
    """Compute ``sums[i,c]``, the sum of ``features[n,i]`` over the samples n of class c, exactly.

    Source: the right-hand side of least squares on 0/1 targets, in integers.

    Args:
        features: uint8 ``[N, M]``.
        classes: int64 ``[N]``, in [0, C).
        out: int64 ``[M, C]`` to add to, with stride 1 in its last dimension. None: zeros.
        n_classes: C, where there is no ``out``.
        sign: 1, or -1: samples that were added are taken out again.

    Returns:
        ``out``.

    Raises:
        ValueError: shapes, dtypes, devices or classes that do not fit, named with what was expected; nothing has been
            added then.
    """
    if n_classes is None:
        if out is None:
            raise ValueError("class_sums: n_classes must be given where out is None")
        n_classes = size(out, 1)
    elif out is not None and n_classes != size(out, 1):
        raise ValueError(f"class_sums: n_classes must be that of out, {size(out, 1)}, got {n_classes}")
    taken = way(features, classes, out)
    if taken >= REGISTERED:
        sums = _CLASS_SUMS[taken](features, classes, n_classes, sign)
        return sums if out is None else out.add_(sums)
    if out is None:
        return _class_sums(features, classes, n_classes, sign)
    _count_change(out)
    _add_class_sums(features, classes, sign, out)
    return out


def integer_features(
    x: Tensor, mean: Tensor, scale: Tensor, layers: Sequence[IntegerLayer], out: Tensor | None = None
) -> Tensor:
    """Compute bytes ``(h, q + 64, 127)`` with q = clamp(rint((x - mean) · scale), -63, 63).

    h is the output of the last layer; the first reads q, every other the layer before. The difference, the product and
    the integer next to it are each rounded in float32, all that follows is integer arithmetic: every machine gives the
    same bytes. NaN gives -63.

    Args:
        x: float32 ``[N, D]``.
        mean: float32 ``[D]``.
        scale: float32 ``[D]``.
        layers: one :class:`IntegerLayer` per hidden layer, first layer first.
        out: uint8 ``[N, H+D+1]`` to write into, with stride 1 in its last dimension; None makes one.

    Returns:
        ``out``, H units of the last layer, then D features, then the constant 127.

    Raises:
        ValueError: shapes, dtypes, devices or values that do not fit, or sums that could pass 32 bits, named with what
            was expected.
    """
    if not isinstance(layers, Sequence) or any(not isinstance(layer, IntegerLayer) for layer in layers):
        raise TypeError("integer_features: layers must be a sequence of IntegerLayer, one per hidden layer")
    weights, biases, multipliers, shifts = [list(parts) for parts in zip(*layers, strict=True)] or [[]] * 4
    arguments = x, mean, scale, weights, biases, multipliers, shifts
    taken = way(x, out)
    if taken >= REGISTERED:
        features = _FEATURES[taken](*arguments)
        return features if out is None else out.copy_(features)
    if out is None:
        return _integer_features(*arguments)
    _count_change(out)
    _write_features(*arguments, out)
    return out


# --- the bare kernels ---


def _integer_gram(features: Tensor, sign: int) -> Tensor:
    """Compute the upper triangle of the gram matrix, zeros below."""
    m = size(features, 1)
    out = new_zeros(features, m, m, dtype=torch.int64)
    _add_gram(features, sign, out)
    return out


def _add_gram(features: Tensor, sign: int, out: Tensor) -> None:
    features = unit_stride(features)
    _require_on_device("integer_gram", "features", features, MOST)
    _native.integer_gram(features, sign, out, *_execution(features))


def _class_sums(features: Tensor, classes: Tensor, n_classes: int, sign: int) -> Tensor:
    """Compute the sums of each class, ``[M, C]``."""
    out = new_zeros(features, size(features, 1), n_classes, dtype=torch.int64)
    _add_class_sums(features, classes, sign, out)
    return out


def _add_class_sums(features: Tensor, classes: Tensor, sign: int, out: Tensor) -> None:
    features = unit_stride(features)
    _require_on_device("class_sums", "classes", classes, size(out, 1) - 1)
    _native.class_sums(features, unit_stride(classes), sign, out, *_execution(features))


def _integer_features(
    x: Tensor,
    mean: Tensor,
    scale: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    multipliers: Sequence[Tensor],
    shifts: Sequence[int],
) -> Tensor:
    """Compute the features, ``[N, H+D+1]``."""
    width = (size(weights[-1], 0) if weights else 0) + size(x, 1) + 1
    out = new_empty(x, size(x, 0), width, dtype=torch.uint8)
    _write_features(x, mean, scale, weights, biases, multipliers, shifts, out)
    return out


def _write_features(
    x: Tensor,
    mean: Tensor,
    scale: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    multipliers: Sequence[Tensor],
    shifts: Sequence[int],
    out: Tensor,
) -> None:
    _native.integer_features(
        unit_stride(x),
        unit_stride(mean),
        unit_stride(scale),
        [unit_stride(weight) for weight in weights],
        [unit_stride(bias) for bias in biases],
        [unit_stride(multiplier) for multiplier in multipliers],
        shifts,
        out,
        *_execution(x),
    )


def _execution(tensor: Tensor) -> tuple[int, int]:
    """Return where an op runs; where there is no tensor anywhere will do, the native checks refuse it by name."""
    return execution(tensor) if isinstance(tensor, Tensor) else (1, 0)


def _count_change(out: Tensor) -> None:
    """Tell torch that ``out`` is written, which sees nothing of it."""
    if isinstance(out, Tensor) and not out.is_inference():
        torch.autograd.graph.increment_version(out)


def _require_on_device(op: str, name: str, values: Tensor, most: int) -> None:
    """Refuse values outside [0, most] that lie where the native checks do not look."""
    if not (isinstance(values, Tensor) and backend.runs_cuda_kernels(values) and values.numel()):
        return
    low, high = (int(value) for value in torch.aminmax(values))
    if low < 0 or high > most:
        raise ValueError(f"{op}: {name} must be values 0 to {most}, got {low} to {high}")


# --- where something watches ---


def _fake_gram(features: Tensor, sign: int) -> Tensor:
    return features.new_empty((features.shape[1], features.shape[1]), dtype=torch.int64)


def _fake_class_sums(features: Tensor, classes: Tensor, n_classes: int, sign: int) -> Tensor:
    return features.new_empty((features.shape[1], n_classes), dtype=torch.int64)


def _fake_features(
    x: Tensor,
    mean: Tensor,
    scale: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    multipliers: Sequence[Tensor],
    shifts: Sequence[int],
) -> Tensor:
    return x.new_empty((x.shape[0], weights[-1].shape[0] + x.shape[1] + 1), dtype=torch.uint8)


def _plain_features(
    x: Tensor,
    mean: Tensor,
    scale: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    multipliers: Sequence[Tensor],
    shifts: Sequence[int],
) -> Tensor:
    layers = list(zip(weights, biases, multipliers, shifts, strict=True))
    return integer_features_ref(x.detach(), mean.detach(), scale.detach(), layers)


_registered_integer_gram = register("integer_gram", _integer_gram, _fake_gram)
_registered_class_sums = register("class_sums", _class_sums, _fake_class_sums)
_registered_integer_features = register("integer_features", _integer_features, _fake_features)
_GRAM = {
    REGISTERED: _registered_integer_gram,
    PLAIN: lambda features, sign: sign * integer_gram_ref(features),
}
_CLASS_SUMS = {
    REGISTERED: _registered_class_sums,
    PLAIN: lambda features, classes, n_classes, sign: sign * class_sums_ref(features, classes, n_classes),
}
_FEATURES = {
    REGISTERED: lambda x, *frozen: _registered_integer_features(without_history(x), *frozen),
    PLAIN: _plain_features,
}
