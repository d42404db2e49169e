"""What the native loop is given is checked here, and read as its steps read it."""

from __future__ import annotations

import math
from numbers import Integral, Real
from pathlib import Path
from typing import overload

from torch import Tensor

from glai_native.data.checks import FLOATS, as_values, require_finite, require_samples, scale_sample_weight
from glai_native.estimator.estimator import PathEstimator
from glai_native.gates.packed import PackedGates
from glai_native.machine.layouts import unit_stride
from glai_native.solvers.samples import Samples
from glai_native.solvers.sgd.native import SgdSettings
from glai_native.solvers.streamed import StreamedSamples

LOSSES = ("cross_entropy", "squared")
# Of unit features that are computed once and kept; of more each batch's are computed in each epoch.
UNIT_FEATURES_BYTES = 1 << 30


def require_count(name: str, count: object) -> None:
    """Raise unless ``count`` is an int >= 1."""
    if not isinstance(count, Integral) or count < 1:
        raise ValueError(f"train_estimator: {name} must be an int >= 1, got {count!r}")


def require_settings(
    settings: SgdSettings,
    epochs: int,
    patience: int | None,
    checkpoint: Path | None,
) -> None:
    """Raise unless these are settings of a training, and its checkpoint one that can be written."""
    if settings.loss not in LOSSES:
        raise ValueError(f"train_estimator: loss must be one of {', '.join(LOSSES)}, got {settings.loss!r}")
    require_count("epochs", epochs)
    require_count("batch_size", settings.batch_size)
    if patience is not None:
        require_count("patience", patience)
    rate, decay, seed = settings.learning_rate, settings.weight_decay, settings.seed
    if not (isinstance(rate, Real) and math.isfinite(rate) and rate > 0):
        raise ValueError(f"train_estimator: learning_rate must be > 0, got {rate!r}")
    if not (isinstance(decay, Real) and math.isfinite(decay) and decay >= 0):
        raise ValueError(f"train_estimator: weight_decay must be >= 0, got {decay!r}")
    if not isinstance(seed, Integral):
        raise ValueError(f"train_estimator: seed must be an int, got {seed!r}")
    if checkpoint is not None and not checkpoint.parent.is_dir():
        raise ValueError(
            f"train_estimator: checkpoint must be a file in a folder that exists, got {checkpoint}"
        )


def require_validation(validation: object | None, patience: int | None) -> None:
    """Raise unless ``validation`` is what :func:`train_estimator` takes, and there where patience needs it."""
    if validation is None:
        if patience is not None:
            raise ValueError("train_estimator: patience needs validation=(x, gates, targets), got None")
    elif not isinstance(validation, (tuple, list)) or len(validation) not in (3, 4):
        found = (
            f"{len(validation)} of them"
            if isinstance(validation, (tuple, list))
            else type(validation).__name__
        )
        raise ValueError(
            f"train_estimator: validation must be (x, gates, targets), got {found}; a sample_weight may follow"
        )


def require_trainable(estimator: PathEstimator) -> None:
    """Raise unless there are finite weights to start from."""
    if not isinstance(estimator, PathEstimator):
        raise TypeError(f"train_estimator: estimator must be a PathEstimator, got {type(estimator).__name__}")
    for name, parameter in estimator.named_parameters():
        require_finite("train_estimator", f"the estimator's {name}", parameter.detach())


def read_samples(
    owner: str,
    estimator: PathEstimator,
    x: Tensor,
    gates: PackedGates | None,
    targets: Tensor,
    sample_weight: Tensor | None = None,
) -> Samples:
    """Check what is trained on or validated with, and bring it to its canonical form."""
    require_samples(owner, x, estimator.in_features)
    _require_like_estimator(owner, estimator, x)
    if not len(x):
        raise ValueError(f"{owner}: x must hold at least one sample, got none")
    samples = Samples.of_projected(
        owner,
        x,
        gates,
        targets,
        sample_weight,
        n_paths=estimator.n_paths,
        n_outputs=estimator.out_features,
        structure_id=estimator.structure_id,
    ).canonical()
    if not len(samples):
        raise ValueError(f"{owner}: sample_weight must have a sum > 0, got 0.0")
    return samples


def _require_like_estimator(owner: str, estimator: PathEstimator, x: Tensor) -> None:
    if estimator.dtype not in FLOATS:
        raise ValueError(
            f"{owner}: the estimator must be float32 or float64, got {estimator.dtype}; train it as .float() and "
            "cast it afterwards"
        )
    if x.dtype != estimator.dtype or x.device != estimator.samples_seen.device:
        raise ValueError(
            f"{owner}: x must be {estimator.dtype} on {estimator.samples_seen.device} like the estimator, "
            f"got {x.dtype} on {x.device}"
        )


@overload
def prepared(owner: str, estimator: PathEstimator, samples: Samples, loss: str) -> Samples: ...
@overload
def prepared(
    owner: str, estimator: PathEstimator, samples: Samples | StreamedSamples, loss: str
) -> Samples | StreamedSamples: ...
def prepared(
    owner: str, estimator: PathEstimator, samples: Samples | StreamedSamples, loss: str
) -> Samples | StreamedSamples:
    """Return samples as the steps read them; classes become values where the loss is squared error."""
    weight = samples.weight
    if weight is not None:
        weight = scale_sample_weight(owner, weight).to(estimator.dtype)
    if isinstance(samples, StreamedSamples):
        return samples.weighted(weight).formed(lambda window: _as_read(owner, estimator, window, loss))
    if samples.n_features * len(samples) * samples.z.element_size() <= UNIT_FEATURES_BYTES:
        samples = samples.with_features()
    return _as_read(owner, estimator, samples.weighted(weight), loss)


def _as_read(owner: str, estimator: PathEstimator, samples: Samples, loss: str) -> Samples:
    x, y = samples.z, samples.y
    _require_like_estimator(owner, estimator, x)
    if loss == "squared":
        y = as_values(y, samples.n_outputs, x.dtype)
        require_finite(owner, f"targets as {x.dtype}", y)
    elif samples.has_values:
        raise ValueError(f"{owner}: targets must be class indices [N={len(x)}] for cross-entropy, got values")
    return samples.steps(unit_stride(x), y.contiguous(), samples.weight)
