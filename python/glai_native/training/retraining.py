"""Re-training brings new data to the same structure."""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import copy
from typing import Any

import torch.distributed as dist
from torch import Tensor

from glai_native.data.labels import Label
from glai_native.gates.packed import PackedGates
from glai_native.machine.inference import outside_inference_mode
from glai_native.machine.ranks import Ranks
from glai_native.model.glai import GLAI
from glai_native.model.restoring import ModelState
from glai_native.model.unseen import lower_unseen
from glai_native.solvers.choice import require_options
from glai_native.solvers.samples import Samples
from glai_native.solvers.statistics.sums import PathStatistics
from glai_native.solvers.streamed import StreamedSamples
from glai_native.training.fitting import (
    FitResult,
    announce,
    fit_samples,
    outputs_of,
    require_fit_arguments,
)
from glai_native.training.holding_out import VALIDATION_SHARE, split_samples
from glai_native.training.numbering import Numbering
from glai_native.training.reading import Stored, read_samples
from glai_native.training.taking_over import begin_training, take_over_solution


@outside_inference_mode
def retrain(
    model: GLAI,
    x: Tensor | Stored,
    y: Tensor,
    gates: PackedGates | None = None,
    *,
    increment: bool = False,
    solver: str = "auto",
    sample_weight: Tensor | None = None,
    seed: int = 0,
    progress: bool = True,
    process_group: dist.ProcessGroup | None = None,
    class_labels: Sequence[Label] | None = None,
    **options: Any,
) -> FitResult:
    """Train a model's numbers on new data, in place; its structure stays as it is, byte for byte.

    Classes that the model does not have yet add outputs. Without ``increment``, x and y are all the data that the
    model is to know (:func:`glai_native.fit`). With it they join what it has seen: the model's statistics take them
    in, and its weights are then those of all data together (same l2), without any of the earlier samples and whatever
    the order in which classes come.

    Source: incremental re-training with a frozen structure, arXiv 2312.09971; exact increments: recursive least squares
    (Plackett, 1950).

    Args:
        model: what is re-trained.
        x: raw ``[N, in_features]``, or a memory map of them, as :func:`glai_native.fit`.
        y: class indices ``[N]``, or values ``[N, C]``, in the units of the model where it states some.
        gates: path gates of x where they are known already.
        increment: x and y are to be added to what the model has seen.
        solver: as :func:`glai_native.fit`. For an increment ``"auto"`` and ``"statistics"`` are exact and need a model
            that has statistics (one trained with ``solver="statistics"``); ``"sgd"`` trains on the new samples alone,
            and so forgets earlier ones.
        sample_weight: ``[N]``, >= 0, as :func:`glai_native.fit`.
        seed: as :func:`glai_native.fit`, and of the directions of outputs that are added.
        progress: bars on standard error, and what was done.
        process_group: as :func:`glai_native.fit`; an exact increment every rank computes whole.
        class_labels: what class 0, 1, ... of y are called: y is numbered by them, those that the model has not yet
            are added, and its outputs stay in the order of their labels. None: y is numbered as the outputs, and goes
            on behind them.
        **options: of the solver. For exact increments ``l2``; by default it keeps the share of the statistics' mean
            diagonal that it had when the model was last solved.

    Returns:
        A :class:`FitResult`; an exact increment is not scored, no sample is held out.

    What fails, or is interrupted, leaves the model as it was.

    Raises:
        ValueError: an increment to a model without statistics, a solver that has no increments, or data that do not
            fit the model.
    """
    if not isinstance(model, GLAI):
        raise TypeError(
            f"retrain: model must be a GLAI, got {type(model).__name__}; a learner has a retrain of its own, and its "
            "GLAI is .model_; a PathKernelModel has learn and forget"
        )
    ranks = Ranks("retrain", process_group)
    progress = progress and ranks.is_first
    numbering = Numbering.of("retrain", model, class_labels, adding=True, joining=increment)
    y = numbering(y)
    n_outputs = max(model.estimator.out_features, len(numbering.labels or ()))
    if not isinstance(y, Tensor) or not y.is_floating_point():
        n_outputs = max(n_outputs, outputs_of(model.selector, y, sample_weight))
    with ranks.together():
        numbering.with_outputs(n_outputs)
        samples = read_samples(
            "retrain",
            model.selector,
            x,
            y,
            n_outputs,
            gates,
            sample_weight,
            of_units=model.estimator.n_units > 0,
        )
    if increment and solver in ("auto", "statistics"):
        return announce(_add(model, samples, numbering, seed, progress, options), progress)
    if increment and solver != "sgd":
        raise ValueError(f"retrain: an increment's solver must be 'statistics' or 'sgd', got {solver!r}")
    seed = require_fit_arguments(model, solver, seed, ranks.size)
    before = ModelState(model)
    try:
        begin_training(model, numbering, samples.n_outputs, seed, anew=not increment)
        with ranks.together():
            validation = options.pop("validation", VALIDATION_SHARE)
            split = split_samples(model.selector, samples, validation, seed, numbering)
        result = announce(
            fit_samples(
                model,
                split,
                solver,
                numbering,
                seed=seed,
                progress=progress,
                process_group=process_group,
                options=options,
                anew=not increment,
            ),
            progress,
        )
    except BaseException:
        before.restore()
        raise
    if result.model is not model:  # the dual, whose weights do not fit in memory
        before.restore()
    return result


def _add(
    model: GLAI,
    samples: Samples | StreamedSamples,
    numbering: Numbering,
    seed: int,
    progress: bool,
    options: dict[str, Any],
) -> FitResult:
    """Join the samples to the statistics, and solve those again."""
    require_options("statistics", options)
    started = time.perf_counter()
    statistics = _joined(model, samples, numbering)
    joined = samples.count
    done = f"{joined:,} samples joined {statistics.n_samples - joined:,}, none is forgotten"
    solve_again(model, statistics, numbering, seed=seed, progress=progress, **options)
    return increment_result(model, done, started)


def solve_again(
    model: GLAI,
    statistics: PathStatistics,
    numbering: Numbering,
    *,
    seed: int,
    progress: bool,
    **options: Any,
) -> None:
    """Make a model's weights those of other statistics, at the share of the mean diagonal that l2 had.

    Args:
        model: changed in place, whole or not at all.
        statistics: that it gets, of the outputs that it will have.
        numbering: of these outputs.
        seed: of the directions of outputs that are added.
        progress: show a bar while a penalty is chosen.
        **options: of :meth:`PathStatistics.solve`.
    """
    solved, temperature = model.estimator.provenance, model.estimator.temperature
    share = solved["l2"] / solved["mean_diagonal"] if {"l2", "mean_diagonal"} <= solved.keys() else None
    solve: dict[str, Any] = {
        "l2": "gcv" if share is None else share * statistics.mean_diagonal,
        "directions": numbering.wider_directions(statistics.out_features, seed),
        "progress": progress,
    }
    estimator = statistics.solve(**(solve | options))
    # Nothing is held out to fit another on.
    if int(model.estimator.samples_seen) and bool(statistics.on_counts.any()):
        estimator.temperature = temperature
    take_over_solution(model, statistics, estimator, numbering, seed)
    lower_unseen(model)


def increment_result(model: GLAI, done: str, started: float) -> FitResult:
    """Return what came of samples that joined or left a model since ``started`` (``time.perf_counter``)."""
    reason = f"statistics: {done}; l2 = {model.estimator.provenance['l2']:.4g}"
    return FitResult(model, "statistics", reason, seconds={"statistics": time.perf_counter() - started})


def _joined(model: GLAI, samples: Samples | StreamedSamples, numbering: Numbering) -> PathStatistics:
    """Return the sums of what the model has seen and of the samples; those of the model stay as they are."""
    before = model.read_statistics()
    if before is None:
        raise ValueError(
            "retrain: an increment needs the model's statistics, which it does not have; train it with "
            "solver='statistics', or pass solver='sgd', which trains on the new samples alone and forgets"
        )
    kinds = ["values" if values else "class indices" for values in (_of_values(before), samples.has_values)]
    if before.n_samples and kinds[0] != kinds[1]:
        raise ValueError(f"retrain: y must be {kinds[0]} as of the samples before, got {kinds[1]}")
    sizes = before.n_paths, before.in_features, samples.n_outputs
    statistics = PathStatistics(
        *sizes, before.dtype, before.structure_id, before.device, n_units=before.n_units
    )
    statistics.fill(samples.parts())
    before = copy(before)  # the same gram: added outputs are tensors of their own
    labels = numbering.with_outputs(samples.n_outputs)
    if labels is not None:
        before.class_labels = numbering.before
        before.add_classes(labels)
    elif samples.n_outputs > before.out_features:
        before.add_outputs(samples.n_outputs - before.out_features)
    statistics.take_outputs(before)
    return statistics.merge(before)


def _of_values(statistics: PathStatistics) -> bool:
    """Return whether the targets were values: then nothing is counted per class."""
    return not bool(statistics.on_counts.any())
