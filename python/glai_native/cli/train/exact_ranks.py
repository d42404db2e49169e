"""Processes of ``glai train --exact`` begin alike here: with the features of the first one."""

from __future__ import annotations

import warnings
from typing import Any

import safetensors.torch
from numpy.typing import NDArray

from glai_native.machine.ranks import Ranks
from glai_native.structure.integer_features import IntegerFeatures
from glai_native.training.exact.learner import ExactLearner


def begin_alike(model: ExactLearner, x: NDArray[Any], y: NDArray[Any], ranks: Ranks) -> None:
    """Let the learners of all ranks begin by the same samples ``[N, D]`` and targets.

    Features come from the first rank: training and comparing units takes long, and another machine may round another
    way. The samples are all that will be learnt, or a part of them where these have settled ``structure`` already.
    """
    content = b""
    with ranks.together():
        if ranks.is_first:
            model.begin(x, y, all_there=True)
            content = safetensors.torch.save(model.features_.to_state())
    content = ranks.broadcast_bytes(content)
    with ranks.together():
        if not ranks.is_first:
            kind = model.structure
            model.set_params(structure=IntegerFeatures.from_state(safetensors.torch.load(content)))
            with warnings.catch_warnings(action="ignore"):  # the first rank gives them
                model.begin(x, y)
            model.set_params(structure=kind)
