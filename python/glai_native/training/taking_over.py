"""What was trained is written into a model here, whole or not at all."""

from __future__ import annotations

from glai_native.estimator.estimator import PathEstimator
from glai_native.estimator.outputs import Outputs
from glai_native.model.glai import GLAI
from glai_native.model.restoring import whole_or_unchanged
from glai_native.solvers.statistics.sums import PathStatistics
from glai_native.training.numbering import Numbering


def begin_training(model: GLAI, numbering: Numbering, n_outputs: int, seed: int, *, anew: bool) -> None:
    """Ready a model for weights that replace its own: the outputs that it lacks, no statistics, ``anew`` no counts."""
    model.statistics = None
    numbering.add_outputs(model, n_outputs, seed)
    if anew:
        model.estimator.samples_seen.zero_()
        model.estimator.on_counts.zero_()


def take_over(model: GLAI, estimator: PathEstimator) -> None:
    """Make the model's estimator ``estimator``, in place and whatever its dtype; both may be one.

    Labels and units of the model's outputs stay.
    """
    if estimator is model.estimator:
        return
    if model.estimator.kind != estimator.kind:
        raise ValueError(
            f"fit: the model has {model.estimator.kind} and can only be trained along those, got {estimator.kind}"
        )
    meaning = Outputs()
    meaning.take_outputs(model.estimator)
    model.estimator.load_state_dict(estimator.state_dict())
    model.estimator.provenance, model.estimator.solved_from = estimator.provenance, estimator.solved_from
    model.estimator.temperature = estimator.temperature
    if meaning.has_values or not meaning.means_nothing:
        model.estimator.take_outputs(meaning)


def take_over_solution(
    model: GLAI, statistics: PathStatistics, estimator: PathEstimator, numbering: Numbering, seed: int
) -> None:
    """Give the model statistics, the estimator that they were solved for, and the outputs that it lacks."""
    with whole_or_unchanged(model):
        model.statistics = None
        numbering.add_outputs(model, estimator.out_features, seed)
        take_over(model, estimator)
        model.estimator.note_targets("fit", of_values=not bool(statistics.on_counts.any()))
        statistics.take_outputs(model.estimator)
        model.statistics = statistics
