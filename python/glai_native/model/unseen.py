"""Classes of which a model has seen no sample, or none that weighs anything, are never its answer."""

from __future__ import annotations

import torch
from torch import Tensor

from glai_native.estimator.temperature import UNSEEN_MARGIN
from glai_native.gates.paths import count_paths
from glai_native.model.glai import GLAI
from glai_native.solvers.samples import Samples
from glai_native.solvers.solution import output_of
from glai_native.solvers.streamed import StreamedSamples


@torch.no_grad()
def lower_unseen(model: GLAI, samples: Samples | StreamedSamples | None = None) -> None:
    """Put the scores of classes that the model has counted no sample of below those of the others.

    Along full paths such a score is the mean of the others less a margin, whatever the input: no weights that fit the
    samples say anything of it, and those that were there before, or 0, may be the largest far from the samples. Along
    output directions, which are frozen, it is lower on the samples.

    Args:
        model: trained on classes; one with statistics was solved from them.
        samples: that it was trained on; None: they are counted.
    """
    estimator = model.estimator
    seen = estimator.on_counts.sum(0) > 0
    if samples is not None:
        if samples.classes is None:
            return
        seen[samples.classes.unique().to(seen.device)] = True
    unseen = (~seen).nonzero().squeeze(1)
    if not len(unseen) or not bool(seen.any()):
        return
    margin = UNSEEN_MARGIN * estimator.temperature
    if estimator.directions is None:
        for parameter in (estimator.weight, estimator.bias):
            parameter[..., unseen] = parameter[..., seen].mean(-1, keepdim=True)
        if _has_constant_path(model):
            estimator.bias[-1, unseen] -= margin
        return
    for parameter in (estimator.constant_weight, estimator.constant_bias):
        parameter[..., unseen] = parameter[..., seen].mean(-1, keepdim=True)
    above: Tensor | float = 0.0  # how far they come above the others, at most
    if samples is not None:
        for part in (samples.units() if estimator.n_units else samples).parts():
            scores = output_of(estimator, part)
            highest = (scores[:, unseen] - scores[:, seen].mean(1, keepdim=True)).amax(0)
            above = highest.clamp(min=above)
    estimator.constant_bias[unseen] -= margin + above


def _has_constant_path(model: GLAI) -> bool:
    """Return whether the last path is on in every sample; a pruned structure may have lost it."""
    if model.estimator.n_units:
        return True
    kept, widths = model.selector.kept_paths, model.selector.widths
    return kept is None or int(kept[-1]) + 1 == count_paths(widths)
