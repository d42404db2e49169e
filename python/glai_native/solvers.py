"""The ways to train the linear model of a frozen structure on samples that are there at once, one function each."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from glai_native.directions import extend_directions
from glai_native.distributed import all_reduce
from glai_native.estimator import PathEstimator
from glai_native.gates import PackedGates, require_structure
from glai_native.model import GLAI, whole_or_unchanged
from glai_native.ops import pack_gates
from glai_native.path_kernel_model import PathKernelModel
from glai_native.ranks import Ranks
from glai_native.sgd import SgdEpoch, require_count, train_estimator
from glai_native.statistics import PathStatistics
from glai_native.structure import PathSelector
from glai_native.targets import as_values, require_finite, require_sample_weight, require_targets

LINEAR_BATCH, LINEAR_RATE = 128, 1e-2
# At most, where the held-out samples do not stop it earlier: so many passes, and for few samples so many steps.
EPOCHS, STEPS = 10, 2000
# Epochs without a better one, after which the native loop stops; at least this share of all, since an epoch of few
# samples is a step or two.
PATIENCE, PATIENT_SHARE = 5, 0.1
BATCH = 512
# Unknowns beyond which cross-validation of the statistics takes minutes; l2 is then one of these shares of the mean
# diagonal, by the held-out samples.
GCV_UNKNOWNS = 2048
L2_SHARES = (1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Samples:
    """Raw x, what is computed of it, and targets; a part of them by index."""

    x: Tensor  # [N, in_features]
    z: Tensor  # [N, D]
    gates: PackedGates  # [N, P]
    y: Tensor
    weight: Tensor | None
    n_outputs: int

    @classmethod
    def read(
        cls,
        selector: PathSelector,
        x: Tensor,
        y: Tensor,
        gates: PackedGates | None,
        weight: Tensor | None,
        n_outputs: int,
    ) -> Samples:
        """Raw x and what belongs to it, checked; gates are computed where None."""
        z = selector.project(x)
        if not len(z):
            raise ValueError("fit: x must hold at least one sample, got none")
        require_finite("fit", "x", z)
        y = require_targets("fit", y, len(z), n_outputs, "y")
        weight = require_sample_weight("fit", weight, len(z))
        if gates is None:
            gates = selector.path_gates(selector.unit_gates_of(z))
        require_structure("fit", gates, selector.structure_id)
        if (len(gates), gates.n_gates) != (len(z), selector.n_paths):
            raise ValueError(
                f"fit: gates must be [N={len(z)}, P={selector.n_paths}], got [{len(gates)}, {gates.n_gates}]"
            )
        return cls(x, z, gates, y, weight, n_outputs)

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, ids: Tensor | slice) -> Samples:
        weight = None if self.weight is None else self.weight[ids]
        return Samples(self.x[ids], self.z[ids], self.gates[ids], self.y[ids], weight, self.n_outputs)


def solve_linear(train: Samples, held_out: Samples | None, seed: int) -> PathEstimator:
    """One path that is always on: softmax regression; for values least squares, with a closed form."""
    shape = (1, train.z.shape[1], train.n_outputs)
    if train.y.is_floating_point():
        statistics = PathStatistics(*shape)
        statistics.update(train.z, _always_on(train), train.y, train.weight)
        return statistics.solve("gcv").to(train.z.dtype)
    linear = PathEstimator(*shape, dtype=train.z.dtype).to(train.z.device)
    epochs = _epochs(len(train), LINEAR_BATCH)
    validation = None if held_out is None else (held_out.z, _always_on(held_out), held_out.y)
    train_estimator(
        linear,
        train.z,
        _always_on(train),
        train.y,
        sample_weight=train.weight,
        epochs=epochs,
        batch_size=LINEAR_BATCH,
        learning_rate=LINEAR_RATE,
        validation=validation,
        patience=None if held_out is None else _patience(epochs),
        seed=seed,
        progress=False,
    )
    return linear


def _epochs(n_samples: int, batch_size: int) -> int:
    return max(EPOCHS, -(-STEPS // -(-n_samples // batch_size)))


def _patience(epochs: int) -> int:
    return max(PATIENCE, round(PATIENT_SHARE * epochs))


def _always_on(samples: Samples) -> PackedGates:
    return pack_gates(torch.ones((len(samples), 1), dtype=torch.bool, device=samples.z.device))


@dataclass(frozen=True)
class Solved:
    """What a solver made; its score is NaN where nothing was held out, its warning empty where all went well."""

    model: GLAI | PathKernelModel
    history: list[SgdEpoch]
    score: float
    warning: str = ""


def solve_dual(
    model: GLAI,
    data: Samples,
    train: Samples,
    held_out: Samples | None,
    seed: int,
    progress: bool,
    options: dict[str, Any],
    process_group: dist.ProcessGroup | None = None,
) -> Solved:
    """The closed form of the path kernel, on all samples; scored by leave-one-out."""
    dual = PathKernelModel(model.selector).fit(
        data.x,
        data.y,
        sample_weight=data.weight,
        seed=seed,
        progress=progress,
        **({"n_outputs": data.n_outputs} | options),
    )
    error = math.nan if dual.loo_error is None else -dual.loo_error
    score = error if dual.loo_accuracy is None else dual.loo_accuracy
    try:
        estimator = dual.to_estimator()
    except MemoryError:
        return Solved(dual, [], score)
    take_over(model, estimator)
    model.estimator.samples_seen.zero_()
    _record(model, data)
    model.estimator.provenance = {"solver": "dual", "l2": dual.l2}
    model.statistics = None
    return Solved(model, [], score)


def solve_sgd(
    model: GLAI,
    data: Samples,
    train: Samples,
    held_out: Samples | None,
    seed: int,
    progress: bool,
    options: dict[str, Any],
    process_group: dist.ProcessGroup | None = None,
) -> Solved:
    """The native loop, from the estimator's own weights; stopped by the held-out samples."""
    batch_size = options.get("batch_size", BATCH)
    require_count("batch_size", batch_size)
    epochs = options.get("epochs", _epochs(len(train), batch_size))
    require_count("epochs", epochs)
    settings: dict[str, Any] = {
        "batch_size": batch_size,
        "epochs": epochs,
        "seed": seed,
        "progress": progress,
    }
    if held_out is not None:
        settings |= {"validation": (held_out.z, held_out.gates, held_out.y)}
        settings["patience"] = _patience(epochs)
        start = _mean_loss(model, held_out, options.get("loss"))
    history = train_estimator(
        model.estimator,
        train.z,
        train.gates,
        train.y,
        sample_weight=train.weight,
        process_group=process_group,
        **(settings | options),
    )
    _record(model, train)
    model.estimator.provenance = {"solver": "sgd"}
    model.statistics = None
    warning = "" if held_out is None else _no_better(history, start)
    return Solved(model, history, _score(model, held_out), warning)


def _no_better(history: list[SgdEpoch], start: float) -> str:
    """A warning where no epoch's held-out loss is below that of the weights that the training began with."""
    least = min((epoch.validation_loss for epoch in history), default=math.nan)
    if not least >= start:
        return ""
    return (
        f"no epoch improved on the start, held-out loss {least:.3g} at best against {start:.3g}: the training "
        "diverged, or there was nothing left to learn"
    )


@torch.no_grad()
def _mean_loss(model: GLAI, samples: Samples, loss: str | None) -> float:
    """As the native loop's ``validation_loss``."""
    output = model.estimator(samples.z, samples.gates).double()
    if loss == "squared" or samples.y.is_floating_point():
        return float((output - as_values(samples.y, samples.n_outputs, output.dtype)).square().mean())
    return float(nn.functional.cross_entropy(output, samples.y))


def solve_statistics(
    model: GLAI,
    data: Samples,
    train: Samples,
    held_out: Samples | None,
    seed: int,
    progress: bool,
    options: dict[str, Any],
    process_group: dist.ProcessGroup | None = None,
) -> Solved:
    """Sufficient statistics: solved and scored without the held-out samples, then with them."""
    estimator = model.estimator
    ranks = Ranks("fit", process_group)
    part = train[ranks.share(len(train))]
    with ranks.together():
        statistics = PathStatistics(
            estimator.n_paths,
            estimator.in_features,
            estimator.out_features,
            structure_id=model.structure_id,
            device=data.z.device,
        )
        statistics.update(part.z, part.gates, part.y, part.weight)
    if process_group is not None:
        all_reduce(statistics, process_group)
    solve: dict[str, Any] = {"l2": "gcv", "directions": estimator.directions, "progress": progress} | options
    size = estimator.n_paths * (estimator.in_features + 1)
    if solve["l2"] == "gcv" and held_out is not None and size > GCV_UNKNOWNS:
        scores = {}
        for share in L2_SHARES:
            solve["l2"] = share * statistics.mean_diagonal
            take_over(model, statistics.solve(**solve))
            scores[solve["l2"]] = _score(model, held_out)
        solve["l2"] = max(scores, key=lambda l2: scores[l2])
    take_over(model, statistics.solve(**solve))
    score = _score(model, held_out)
    if held_out is not None and len(train) < len(data):
        statistics.update(held_out.z, held_out.gates, held_out.y, held_out.weight)
        take_over(model, statistics.solve(**solve))
    model.statistics = statistics
    return Solved(model, [], score)


_OPTIONS_OF: dict[str, Callable[..., Any]] = {
    "dual": PathKernelModel.fit,
    "sgd": train_estimator,
    "statistics": PathStatistics.solve,
}
_OWN = {"self", "x", "y", "estimator", "gates", "targets", "sample_weight", "validation", "seed", "progress"}
_OWN.add("process_group")


def require_options(solver: str, options: dict[str, Any]) -> None:
    """Refuses options that the solver does not have."""
    known = [name for name in inspect.signature(_OPTIONS_OF[solver]).parameters if name not in _OWN]
    for name in options:
        if name not in known:
            raise ValueError(f"fit: solver '{solver}' has the options {', '.join(known)}, got '{name}'")


SOLVE = {"dual": solve_dual, "sgd": solve_sgd, "statistics": solve_statistics}


def take_over(model: GLAI, estimator: PathEstimator) -> None:
    """The model's estimator, in place, becomes ``estimator``, whatever its dtype."""
    kinds = [
        "full paths" if e.directions is None else "output directions" for e in (model.estimator, estimator)
    ]
    if kinds[0] != kinds[1]:
        raise ValueError(f"fit: the model has {kinds[0]} and can only be trained along those, got {kinds[1]}")
    model.estimator.load_state_dict(estimator.state_dict())
    model.estimator.provenance = estimator.provenance


def wider_directions(model: GLAI, n_outputs: int, seed: int) -> Tensor | None:
    """V ``[P, n_outputs]`` as the model has it once outputs were added; None for full paths."""
    directions, added = model.estimator.directions, n_outputs - model.estimator.out_features
    return directions if directions is None or not added else extend_directions(directions, added, seed)


def take_over_solution(model: GLAI, statistics: PathStatistics, estimator: PathEstimator, seed: int) -> None:
    """The model gets statistics and the estimator that they were solved for, and the outputs that it lacks."""
    added = estimator.out_features - model.estimator.out_features
    with whole_or_unchanged(model):
        model.statistics = None
        if added:
            model.add_outputs(added, seed)
        take_over(model, estimator)
        model.statistics = statistics


def _record(model: GLAI, samples: Samples) -> None:
    model.estimator.record(samples.gates, None if samples.y.is_floating_point() else samples.y)


@torch.no_grad()
def sample_scores(model: GLAI | PathEstimator, samples: Samples) -> Tensor:
    """float64 ``[N]``: 1 where the class is right; for values minus the squared error."""
    if isinstance(model, GLAI):
        output: Tensor = model.estimator(samples.z, samples.gates)
    else:
        output = model(samples.z, _always_on(samples))
    if samples.y.is_floating_point():
        return -(output.double() - samples.y).square().sum(1)
    return (output.argmax(1) == samples.y).double()


def _score(model: GLAI, held_out: Samples | None) -> float:
    return math.nan if held_out is None else float(sample_scores(model, held_out).mean())
