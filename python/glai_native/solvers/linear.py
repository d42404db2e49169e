"""The linear model without gates is the control beside every solver."""

from __future__ import annotations

from glai_native.estimator.estimator import PathEstimator
from glai_native.solvers.samples import Samples
from glai_native.solvers.sgd.solving import default_epochs, default_patience, rate_of_features
from glai_native.solvers.sgd.training import train_on
from glai_native.solvers.statistics.sums import PathStatistics
from glai_native.solvers.streamed import StreamedSamples

LINEAR_BATCH, LINEAR_RATE = 128, 1e-2


def solve_linear(train: Samples | StreamedSamples, held_out: Samples | None, seed: int) -> PathEstimator:
    """Fit one path that is always on: by softmax regression; for values by least squares, in closed form.

    Args:
        train: samples with one path (:meth:`Samples.always_on`).
        held_out: the same of those that stop the training; None: nothing stops it early.
        seed: of the order of samples.
    """
    first = train[:1].z
    shape = (1, first.shape[1], train.n_outputs)
    if train.has_values:
        statistics = PathStatistics(*shape, device=first.device)
        statistics.fill(train.parts())
        return statistics.solve("gcv").to(first.dtype)
    linear = PathEstimator(*shape, dtype=first.dtype, device=first.device)
    epochs, passes = default_epochs(len(train), LINEAR_BATCH)
    train_on(
        linear,
        train,
        held_out,
        epochs=epochs,
        batch_size=LINEAR_BATCH,
        learning_rate=rate_of_features(LINEAR_RATE, first.shape[1]),
        patience=None if held_out is None else default_patience(epochs, len(train) // LINEAR_BATCH),
        seed=seed,
        progress=False,
        passes=passes,
    )
    return linear
