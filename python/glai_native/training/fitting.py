"""``glai.fit`` is one call for every way to train the linear model of a frozen structure, and the choice among them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import torch.distributed as dist
from rich.console import Console
from torch import Tensor

from glai_native.data.checks import count_outputs
from glai_native.data.chunks import of_chunk
from glai_native.data.counts import require_seed
from glai_native.data.labels import Label
from glai_native.estimator.estimator import PathEstimator
from glai_native.gates.packed import PackedGates
from glai_native.machine.inference import outside_inference_mode
from glai_native.machine.memory import give_back_freed
from glai_native.machine.progress import epoch_progress
from glai_native.machine.ranks import Ranks
from glai_native.model.glai import GLAI
from glai_native.model.restoring import whole_or_unchanged
from glai_native.model.unseen import lower_unseen
from glai_native.solvers.choice import SOLVE, Candidate, list_candidates, new_kind, require_options
from glai_native.solvers.dual.model import PathKernelModel
from glai_native.solvers.linear import solve_linear
from glai_native.solvers.names import SOLVERS
from glai_native.solvers.samples import Samples
from glai_native.solvers.solution import SgdEpoch, Split, mean_of, mean_score, sample_scores
from glai_native.solvers.statistics.sums import PathStatistics
from glai_native.solvers.streamed import StreamedSamples
from glai_native.structure.selector import PathSelector
from glai_native.training.choosing import Attempt, choose
from glai_native.training.comparing import compare, doubt, name_of_control
from glai_native.training.holding_out import VALIDATION_SHARE, rows_held_out, split_samples
from glai_native.training.numbering import Numbering
from glai_native.training.reading import LARGE_CHUNK, Stored, read_chunk, read_samples
from glai_native.training.taking_over import take_over, take_over_solution


@dataclass(frozen=True)
class FitResult:
    """What :func:`fit` made, and why so.

    Source: :func:`fit`.

    Attributes:
        model: the trained :class:`GLAI`; a :class:`PathKernelModel` where the dual's primal form does not fit.
        solver: the one that trained it.
        reason: why that one, whether its epochs brought nothing, and how the model compares to linear softmax.
        history: what each epoch did, where the solver has epochs.
        score: mean score on samples that it was not trained on: accuracy, or minus the squared error for values. Of
            the held-out samples; for the dual, which trains on all, by leave-one-out; NaN where there were none.
        linear_score: of the linear model without gates, on the held-out samples.
        standard_error: of ``linear_score``.
        seconds: wall time of the linear model and of the solver.
    """

    model: GLAI | PathKernelModel
    solver: str
    reason: str
    history: list[SgdEpoch] = field(default_factory=list)
    score: float = math.nan
    linear_score: float = math.nan
    standard_error: float = math.nan
    seconds: dict[str, float] = field(default_factory=dict)


@outside_inference_mode
def fit(
    model: GLAI | PathSelector,
    x: Tensor | Stored | Iterable[tuple[Tensor, ...]],
    y: Tensor | None = None,
    gates: PackedGates | None = None,
    solver: str = "auto",
    *,
    sample_weight: Tensor | None = None,
    validation: tuple[Tensor, ...] | float = VALIDATION_SHARE,
    seed: int = 0,
    progress: bool = True,
    process_group: dist.ProcessGroup | None = None,
    class_labels: Sequence[Label] | None = None,
    budget: float | None = None,
    **options: Any,
) -> FitResult:
    """Train the linear model of a frozen structure; the structure is not touched.

    Linear softmax is fitted beside it, and the result says where that is as good. ``solver="auto"`` tries what may
    suit and takes what the held-out samples prefer: the native loop, the statistics of units while M <= 2,500 and
    N·M² <= 5e10, and the dual up to 4,000 samples (6,000 where a closed form is not behind), which up to 2,000 is not
    compared; of more than 60,000 samples on 20,000. A stream goes to the statistics; what lacks an option that is given
    is not tried.

    Source: the re-training of the estimator alone in arXiv 2312.09971; the comparison within one standard error is that
    of Breiman et al., "Classification and Regression Trees" (1984).

    Args:
        model: a :class:`GLAI`, whose estimator is trained in place (the native loop starts from its weights); or a
            selector, which gets an estimator: of units for the native loop where full paths would have more than a
            million numbers, and for the statistics where they would have more than 16,384 unknowns.
        x: raw ``[N, in_features]``; a NumPy memory map of them, of which beyond 32 MB some rows are in memory at a
            time, and equal samples are not joined; or an iterable of chunks ``(x, y)`` or ``(x, y, sample_weight)``,
            each read once, for the statistics.
        y: class indices ``[N]``, or values ``[N, C]``, in the units of the model where it states some; None with
            chunks. Chunks may bring new classes.
        gates: path gates of x where they are known already.
        solver: ``"auto"``, ``"dual"``, ``"sgd"`` (the native loop) or ``"statistics"``.
        sample_weight: ``[N]``, >= 0. Samples of weight 0 are left out, as if they were absent, and integers are
            repetitions: equal samples are joined to one of their weights' sum (:func:`canonical_form`).
        validation: ``(x, y)`` or ``(x, y, sample_weight)``, or the share of the samples to hold out, 10,000 at most:
            the native loop stops by them, and scores are taken on them, both weighted. The closed forms, once scored,
            are solved on all. 0: none, no scores. Samples that a model, or its structure, was trained on flatter it.
        seed: of the split, the order of samples, and random directions.
        progress: bars on standard error, and the choice and its reason when done.
        process_group: ranks that train together, as :func:`train_estimator`: each calls this with all samples and the
            same structure (``distributed.broadcast_selector``), takes its share, and ends with the same model. For
            ``"sgd"``, which ``"auto"`` then is, and ``"statistics"``.
        class_labels: what class 0, 1, ... of y are called (ints, floats, texts or truth values). They stay with the
            model, whose outputs are in the order of their labels; those of a :class:`GLAI` that has labels must be
            among them, and y is numbered by label. None: y is numbered as the outputs.
        budget: seconds; the native loop begins no epoch, and no closed form is tried, that would end later. It does not
            stop one that is asked for by name, or statistics of chunks. What was trained by then depends on the
            machine. None: as long as it takes.
        **options: of the solver: those of :func:`train_estimator` (whose learning rate for units is 1e-2 here up to
            100 features, 1/D beyond; where no ``epochs`` are given, one of few samples is several passes over them,
            eight steps at least), ``PathKernelModel.fit_samples`` or ``PathStatistics.solve``.

    Raises:
        ValueError: data that do not fit each other or the model, or are not finite; an unknown solver or option.
            Whatever fails, or is interrupted, leaves a :class:`GLAI` as it was.
    """
    ranks = Ranks("fit", process_group)
    seed = require_fit_arguments(model, solver, seed, ranks.size)
    numbering = Numbering.of("fit", model, class_labels)
    progress = progress and ranks.is_first
    if y is None:
        if ranks.size > 1:
            raise _not_by_many("chunks are read")
        if isinstance(x, Tensor | Stored):
            raise ValueError("fit: y must be given with x as one tensor or memory map, got None")
        if solver not in ("auto", "statistics"):
            raise ValueError(f"fit: chunks are for the statistics, got solver={solver!r}")
        return announce(_fit_chunks(model, x, numbering, seed, progress, options), progress)
    if not isinstance(x, Tensor | Stored):
        raise TypeError(
            f"fit: x must be a torch.Tensor where y is given, got {type(x).__name__}; torch.from_numpy(x).float() "
            "makes one, and GLAIClassifier and GLAIRegressor take arrays"
        )
    selector = model if isinstance(model, PathSelector) else model.selector
    with ranks.together():
        y = numbering(y)
        n_outputs = max(outputs_of(model, y, sample_weight), len(numbering.labels or ()))
        units = isinstance(model, GLAI) and model.estimator.n_units > 0
        samples = read_samples("fit", selector, x, y, n_outputs, gates, sample_weight, of_units=units)
        split = split_samples(selector, samples, validation, seed, numbering)
    start = math.nan  # of held-out samples that a model's own numbers may have been trained on
    if isinstance(model, GLAI) and split.held_out_of_whole:
        start = mean_score(model.estimator, split.read_by(model.estimator).held_out)
    result = fit_samples(
        model,
        split,
        solver,
        numbering,
        seed=seed,
        progress=progress,
        process_group=process_group,
        options=options,
        budget=budget,
    )
    said = [result.reason, doubt(start, result.linear_score, result.standard_error)]
    return announce(replace(result, reason="; ".join(filter(None, said))), progress)


def require_fit_arguments(model: GLAI | PathSelector, solver: str, seed: int, n_ranks: int) -> int:
    """Raise unless :func:`fit` takes such a model, solver and seed on so many ranks; return the seed."""
    if solver not in SOLVERS:
        raise ValueError(f"fit: solver must be one of {', '.join(SOLVERS)}, got {solver!r}")
    if not isinstance(model, (GLAI, PathSelector)):
        raise TypeError(f"fit: model must be a GLAI or a PathSelector, got {type(model).__name__}")
    seed = require_seed("fit", seed)
    if n_ranks > 1 and solver == "dual":
        raise _not_by_many("the dual is solved")
    return seed


def _not_by_many(what: str) -> ValueError:
    return ValueError(
        f"fit: {what} by one process, pass solver='sgd' or 'statistics' and y with process_group"
    )


def fit_samples(
    model: GLAI | PathSelector,
    split: Split,
    solver: str,
    numbering: Numbering,
    *,
    seed: int,
    progress: bool,
    process_group: dist.ProcessGroup | None,
    options: dict[str, Any],
    anew: bool = True,
    budget: float | None = None,
) -> FitResult:
    """Fit as :func:`fit` does, from samples that are checked and split already; say nothing on standard error.

    Unless it is ``anew``, the samples join others, of which there may be more classes than were counted.
    """
    if budget is not None and not budget > 0:
        raise ValueError(f"fit: budget must be seconds > 0 or None, got {budget!r}")
    deadline = math.inf if budget is None else time.monotonic() + budget
    n_ranks = Ranks("fit", process_group).size
    samples, held_out = split.whole, split.held_out
    held_out_alone = None if held_out is None else held_out.always_on()
    candidates, reason = _candidates(model, samples, solver, options, n_ranks)

    def begin(kind: str) -> GLAI:
        """Make what a candidate trains: the model itself where that is alone."""
        if isinstance(model, PathSelector):
            begun = _new_model(model, samples.n_outputs, seed, kind)
            _prepare(begun)
            return begun
        return model if len(candidates) == 1 else GLAI(model.selector, deepcopy(model.estimator))

    def _prepare(begun: GLAI) -> None:
        numbering.add_outputs(begun, samples.n_outputs, seed)
        begun.estimator.note_targets("fit", samples.has_values)

    def attempt(candidate: Candidate, part: Split, until: float) -> Attempt:
        started, begun = time.perf_counter(), begin(candidate.kind)
        part = part.read_by(begun.estimator)
        solution = SOLVE[candidate.solver](
            begun.selector,
            begun.estimator,
            part,
            seed=seed,
            progress=progress,
            options=options | _seconds_left(candidate, until),
            process_group=process_group,
        )
        score = mean_of(solution.scores, part.held_out)
        return Attempt(candidate, begun, solution, score, time.perf_counter() - started)

    with nullcontext() if isinstance(model, PathSelector) else whole_or_unchanged(model):
        if isinstance(model, GLAI):
            _prepare(model)
        chosen, compared = choose(candidates, split, attempt, seed, deadline)
        solution, solver = chosen.solution, chosen.candidate.solver
        started = time.perf_counter()
        linear = solve_linear(*_footing(split, solver, seed), seed)
        seconds = {solver: chosen.seconds, "linear": time.perf_counter() - started}
        if isinstance(model, PathSelector):
            model = chosen.model
        if solution.estimator is not None:
            take_over(model, solution.estimator)
            model.statistics = solution.statistics
            if anew:
                lower_unseen(model, samples)
    reason = "; ".join(filter(None, [f"{solver}: {reason or compared}", solution.warning]))
    made = model if solution.estimator is not None else solution.kernel_model
    if solution.kernel_model is not None:
        solution.kernel_model.take_outputs(model.estimator)
    result = FitResult(made, solver, reason, solution.history, seconds=seconds)
    if held_out_alone is None:
        return result
    found = compare(
        solution.scores,
        sample_scores(linear, held_out_alone),
        held_out_alone.weight,
        classes=not samples.has_values,
        control=name_of_control(model.selector),
    )
    return replace(
        result,
        reason=f"{result.reason}; {found.sentence}",
        score=found.score,
        linear_score=found.linear_score,
        standard_error=found.standard_error,
    )


def _seconds_left(candidate: Candidate, deadline: float) -> dict[str, float]:
    """Return the option that ends the native loop at the deadline; one epoch it runs anyway."""
    if candidate.solver != "sgd" or deadline == math.inf:
        return {}
    return {"seconds": max(deadline - time.monotonic(), 1e-9)}


def _footing(split: Split, solver: str, seed: int) -> tuple[Samples | StreamedSamples, Samples | None]:
    """Return what the control is trained on, and what stops it: the held-out samples only where they stop the solver.

    A control that they stop looks better on them than it is; a closed form beside it does not.
    """
    train, held_out = split.train.always_on(), split.held_out
    if held_out is None or solver == "sgd":
        return train, None if held_out is None else held_out.always_on()
    rows, stopping = (rows.to(train.device) for rows in rows_held_out(train.y, VALIDATION_SHARE, seed))
    return (train.part(rows), train[stopping]) if len(stopping) else (train, None)


def halves(model: GLAI | PathSelector) -> tuple[PathSelector, PathEstimator | None]:
    """Return what is there of a model: its selector, and its estimator where it has one."""
    return (model.selector, model.estimator) if isinstance(model, GLAI) else (model, None)


def outputs_of(model: GLAI | PathSelector, y: Tensor, sample_weight: Tensor | None = None) -> int:
    """Return C: the model's, or for a selector that of the targets."""
    return model.estimator.out_features if isinstance(model, GLAI) else count_outputs("fit", y, sample_weight)


def _candidates(
    model: GLAI | PathSelector,
    samples: Samples | StreamedSamples,
    solver: str,
    options: dict[str, Any],
    n_ranks: int,
) -> tuple[list[Candidate], str]:
    """Return what may train the model, and why so where no comparison says it."""
    selector, estimator = halves(model)
    in_memory = isinstance(samples, Samples)
    if solver == "auto" and n_ranks == 1:
        found = list_candidates(
            selector, estimator, len(samples), samples.n_outputs, options, in_memory=in_memory
        )
        require_options(found[0].solver, options)
        return found, ""
    reason = "as asked"
    if solver == "auto":
        solver, reason = "sgd", f"{n_ranks} processes train together, and the dual is solved by one"
    require_options(solver, options)
    kind = new_kind(selector, samples.n_outputs, solver) if estimator is None else estimator.kind
    return [Candidate(solver, kind)], reason


def _new_model(selector: PathSelector, n_outputs: int, seed: int, kind: str) -> GLAI:
    """Make a model whose estimator starts from the selector's own output layer, where there is one of that size."""
    if selector.output is not None and len(selector.output[0]) == n_outputs:
        directions = "units" if kind == "units" else None
        return GLAI(selector, PathEstimator.from_selector(selector, directions))
    if kind == "units":
        return GLAI(selector, PathEstimator.of_units(selector, n_outputs))
    weight = selector.hidden[0][0]
    sizes = selector.n_paths, selector.z_features, n_outputs
    return GLAI(selector, PathEstimator(*sizes, dtype=weight.dtype, device=weight.device))


def _fit_chunks(
    model: GLAI | PathSelector,
    chunks: Iterable[tuple[Tensor, ...]],
    numbering: Numbering,
    seed: int,
    progress: bool,
    options: dict[str, Any],
) -> FitResult:
    """Fit the statistics of a stream; class indices not seen before add outputs."""
    selector = model if isinstance(model, PathSelector) else model.selector
    statistics: PathStatistics | None = None
    units = (
        model.estimator.n_units > 0
        if isinstance(model, GLAI)
        else new_kind(selector, 0, "statistics") == "units"
    )
    known = 0 if isinstance(model, PathSelector) else model.estimator.out_features
    started = time.perf_counter()
    with epoch_progress(progress) as bar:
        number = -1  # not enumerate, which keeps a chunk until the next is there
        for chunk in bar.track(chunks, description="statistics"):
            number += 1
            with of_chunk("fit", number):
                known = known if statistics is None else statistics.out_features
                samples = read_chunk(selector, chunk, numbering, known, units)
                if samples is None:
                    continue
                n_outputs = samples.n_outputs
                if statistics is None and units:
                    statistics = PathStatistics.of_units(selector, n_outputs)
                elif statistics is None:
                    statistics = PathStatistics(
                        selector.n_paths,
                        selector.z_features,
                        n_outputs,
                        structure_id=selector.structure_id,
                        device=samples.z.device,
                    )
                if n_outputs > statistics.out_features:
                    statistics.add_outputs(n_outputs - statistics.out_features)
                statistics.fill([samples])
            is_large = samples.z.numel() >= LARGE_CHUNK
            del chunk, samples  # before the next are read
            if is_large:
                give_back_freed()
    if statistics is None:
        raise ValueError("fit: x must yield at least one chunk (x, y), got none")
    solve: dict[str, Any] = {"l2": "gcv", "dtype": selector.hidden[0][0].dtype, "progress": progress}
    if isinstance(model, GLAI):
        solve["directions"] = numbering.wider_directions(statistics.out_features, seed)
    estimator = statistics.solve(**(solve | options))
    if isinstance(model, GLAI):
        take_over_solution(model, statistics, estimator, numbering, seed)
    else:
        model = GLAI(selector, estimator, statistics)
        model.class_labels = numbering.with_outputs(statistics.out_features)
    lower_unseen(model)
    seconds = {"statistics": time.perf_counter() - started}
    reason = "statistics: a stream is read once, and what it brings is never forgotten"
    return FitResult(model, "statistics", reason, seconds=seconds)


def announce(result: FitResult, progress: bool) -> FitResult:
    """Say the reason on standard error, where progress is shown."""
    if progress:
        Console(stderr=True).print(result.reason, highlight=False, soft_wrap=True)
    return result
