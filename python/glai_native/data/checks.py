"""Samples x ``[N, D]``, classes ``[N]`` or values ``[N, C]``, and weights ``[N]`` are checked here alone."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64)


def require_samples(owner: str, x: Tensor, in_features: int, name: str = "x") -> None:
    """Raise unless x, called ``name``, is a tensor ``[N, D=in_features]`` whose values can be read as they are."""
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{owner}: {name} must be a torch.Tensor [N, D={in_features}], got {type(x).__name__}"
        )
    if x.ndim != 2 or x.shape[1] != in_features:
        raise ValueError(f"{owner}: {name} must be [N, D={in_features}], got {list(x.shape)}")
    require_dense(owner, name, x)


def require_dense(owner: str, name: str, tensor: Tensor) -> None:
    """Raise if nobody can read the tensor's values as they are: it is sparse, or on the device ``meta``."""
    if tensor.layout is not torch.strided:
        raise ValueError(f"{owner}: {name} must be a dense tensor, pass {name}.to_dense()")
    if tensor.is_meta:
        raise ValueError(f"{owner}: {name} must be on cpu or cuda, got meta, which holds no values")


def require_targets(
    owner: str, targets: Tensor, n_samples: int, n_outputs: int, name: str = "targets"
) -> Tensor:
    """Raise unless targets are class indices ``[N]`` in ``[0, C)`` or finite values ``[N, C]``.

    Args:
        owner: who is asked, named in the errors.
        targets: class indices of any integer type, or floating values.
        n_samples: N.
        n_outputs: C.
        name: what the owner calls them.

    Returns:
        int64 ``[N]``, or the values as they came.
    """
    if not isinstance(targets, Tensor):
        raise TypeError(
            f"{owner}: {name} must be a torch.Tensor, got {type(targets).__name__}; of labels "
            "class indices, and what each means in class_labels=; GLAIClassifier takes labels as they are"
        )
    require_dense(owner, name, targets)
    if targets.is_complex() or targets.dtype == torch.bool:
        raise ValueError(f"{owner}: {name} must be class indices or floating values, got {targets.dtype}")
    if targets.is_floating_point():
        if targets.shape != (n_samples, n_outputs):
            raise ValueError(
                f"{owner}: {name} must be values [N={n_samples}, C={n_outputs}] or class indices [N={n_samples}], "
                f"got {str(targets.dtype).removeprefix('torch.')} {list(targets.shape)}"
            )
        require_finite(owner, name, targets)
        return targets
    if targets.shape != (n_samples,):
        raise ValueError(
            f"{owner}: {name} must be class indices [N={n_samples}] or values [N={n_samples}, C={n_outputs}], "
            f"got {str(targets.dtype).removeprefix('torch.')} {list(targets.shape)}"
        )
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < n_outputs:
        raise ValueError(
            f"{owner}: {name} must be class indices in [0, C={n_outputs}), "
            f"got {int(targets.min())} to {int(targets.max())}"
        )
    return targets.long()


def require_sample_weight(owner: str, sample_weight: Tensor | None, n_samples: int) -> Tensor | None:
    """Raise unless weights of samples are finite real numbers >= 0 ``[N]``, or None; return them."""
    if sample_weight is None:
        return None
    if not isinstance(sample_weight, Tensor):
        raise TypeError(
            f"{owner}: sample_weight must be a torch.Tensor [N={n_samples}], got {type(sample_weight).__name__}"
        )
    if sample_weight.is_complex():
        raise ValueError(f"{owner}: sample_weight must be real numbers, got {sample_weight.dtype}")
    require_dense(owner, "sample_weight", sample_weight)
    if sample_weight.shape != (n_samples,):
        raise ValueError(f"{owner}: sample_weight must be [N={n_samples}], got {list(sample_weight.shape)}")
    if not sample_weight.is_floating_point():
        sample_weight = sample_weight.double()
    require_finite(owner, "sample_weight", sample_weight)
    if bool((sample_weight < 0).any()):
        raise ValueError(f"{owner}: sample_weight must be >= 0, got {float(sample_weight.min())}")
    return sample_weight


def require_counts(owner: str, n_samples: int, on_counts: Tensor) -> None:
    """Raise unless N samples, each of one class, can have had paths on so often: ``on_counts`` int64 ``[P, C]``."""
    if n_samples < 0 or bool((on_counts < 0).any()):
        raise ValueError(f"{owner}: counts of samples must be >= 0")
    # As float64, whose sums of absurd counts do not turn negative.
    if on_counts.numel() and float(on_counts.double().sum(1).max()) > n_samples:
        raise ValueError(
            f"{owner}: counts of samples must fit each other, got {n_samples:,} samples and a path that was on in "
            f"{int(on_counts.double().sum(1).max()):,}"
        )


def count_outputs(owner: str, y: Tensor, sample_weight: Tensor | None = None) -> int:
    """Return C: the columns of values, or the largest class that weighs anything + 1; 1 for what is no target."""
    if not isinstance(y, Tensor) or y.is_complex() or not y.numel():
        return 1
    if y.is_floating_point():
        return y.shape[1] if y.ndim == 2 else 1
    require_dense(owner, "y", y)
    if (
        isinstance(sample_weight, Tensor)
        and sample_weight.shape == y.shape
        and not sample_weight.is_complex()
    ):
        require_dense(owner, "sample_weight", sample_weight)
        y = y[sample_weight.to(y.device) > 0]
    return max(int(y.max()) + 1, 1) if y.numel() else 1


def scale_sample_weight(owner: str, sample_weight: Tensor) -> Tensor:
    """Scale checked weights ``[N]`` to mean 1, float64; the bits are the same for any number of threads."""
    largest = sample_weight.detach().double().max()
    if not bool(largest > 0):
        raise ValueError(f"{owner}: sample_weight must have a sum > 0, got {float(largest)}")
    shares = sample_weight.detach().double() / largest  # whose sum can neither overflow nor be 0
    return shares * (len(shares) / total(shares))


def weighted_mean(values: Tensor, weight: Tensor | None) -> float:
    """Return the mean of float64 values ``[N]``, weighted by ``[N]``, of a sum > 0, or not at all."""
    if weight is None:
        return float(values.mean())
    shares = weight.double() / weight.max()  # whose sum can neither overflow nor be 0
    return float((values * shares).sum() / shares.sum())


def total(values: Tensor) -> float:
    """Return the sum, in an order that does not depend on the number of threads, as torch's does."""
    return float(values.cpu().numpy().sum())


def require_finite(owner: str, name: str, values: Tensor) -> None:
    """Raise if any value is NaN or infinite."""
    if values.numel() and not all_finite(values):
        raise ValueError(f"{owner}: {name} must be finite, got NaN or infinite values")


def all_finite(values: Tensor) -> bool:
    """Return whether no value is NaN or infinite; there must be one at least."""
    # NumPy where it can: its one thread waits for nobody, where torch's would for a core that others have taken.
    if values.device.type == "cpu" and values.dtype in FLOATS:
        with np.errstate(over="ignore", invalid="ignore"):
            if math.isfinite(values.detach().numpy().sum()):
                return True
    # One pass that writes nothing: a tenth of the time of isfinite(values).all(). NaN is both ends where there is one.
    return bool(torch.isfinite(torch.stack(values.aminmax())).all())


def magnitude(values: Tensor) -> float:
    """Return the largest absolute value; 0 of none."""
    if not values.numel():
        return 0.0
    if values.device.type == "cpu" and values.dtype in FLOATS:
        array = values.detach().numpy()
        return max(-float(array.min()), float(array.max()))
    least, most = values.aminmax()
    return max(-float(least), float(most))


def as_values(targets: Tensor, n_outputs: int, dtype: torch.dtype) -> Tensor:
    """Return targets as values ``[N, C]``: class indices become 0 and 1."""
    if targets.is_floating_point():
        return targets.to(dtype)
    return torch.nn.functional.one_hot(targets, n_outputs).to(dtype)
