"""What a model knows of the table that it was trained on is part of it, and of its file."""

from __future__ import annotations

import numpy as np

from glai_native.data.tables import TableNames
from glai_native.model.glai import GLAI
from glai_native.solvers.dual.model import PathKernelModel
from glai_native.training.exact.learner import ExactLearner
from glai_native.training.learners.saving import LEARNER, provenance_of, set_provenance

TABLE = "table"  # what a model's provenance calls it


def names_of(model: GLAI | PathKernelModel | ExactLearner) -> TableNames:
    """Return what a model knows of the table that it was trained on; a learner knows its columns.

    Raises:
        ValueError: what its file says of that is none.
    """
    if isinstance(model, ExactLearner):
        if model.preparation is not None:
            return TableNames(model.preparation.names, model.target_name, model.preparation)
        columns = getattr(model, "feature_names_in_", None)
        return TableNames(None if columns is None else list(columns), model.target_name)
    known = provenance_of(model)
    if TABLE in known:
        return TableNames.from_json(known[TABLE])
    return TableNames((known.get(LEARNER) or {}).get("feature_names") or None)


def keep_names(model: GLAI | PathKernelModel | ExactLearner, names: TableNames) -> None:
    """Let a model, and its file, know the table that it was trained on, if it was one."""
    if names.columns is None:
        return
    if isinstance(model, ExactLearner):
        model.target_name, model.preparation = names.label, names.preparation
        if names.preparation is None:
            model.feature_names_in_ = np.array(names.columns, dtype=object)
    else:
        set_provenance(model, provenance_of(model) | {TABLE: names.to_json()})
