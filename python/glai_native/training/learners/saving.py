"""A learner's folder is its model's, whose file also says what the learner was told and has come to."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from copy import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from glai_native.estimator.file import ESTIMATOR_FILE
from glai_native.estimator.outputs import Outputs, sorting_order
from glai_native.machine.writing import find_file
from glai_native.model.glai import GLAI
from glai_native.solvers.dual.file import PATH_KERNEL_FILE
from glai_native.solvers.dual.model import PathKernelModel
from glai_native.solvers.exact.file import EXACT_FILE
from glai_native.solvers.solution import SgdEpoch
from glai_native.solvers.statistics.sums import PathStatistics
from glai_native.structure.selector import PathSelector
from glai_native.training.fitting import FitResult
from glai_native.training.learners.progressive import Progressive

LEARNER = "learner"  # the entry
FIGURES = ("score", "linear_score", "standard_error")


class SavedLearner:
    """What a learner has of files: a mixin."""

    model_: Any
    n_features_in_: int
    feature_names_in_: NDArray[Any]
    _one_target: bool | None
    _statistics: PathStatistics | None
    _selector: PathSelector
    _progressive: Progressive
    result_: FitResult

    def _is_accumulating(self) -> bool:
        """Return whether ``partial_fit`` fitted it."""
        return getattr(self, "_statistics", None) is not None

    def _take_history(self) -> None:
        raise NotImplementedError

    def _progress(self) -> Progressive:
        raise NotImplementedError

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the model's folder (:meth:`GLAI.save`), with what the learner was told; :meth:`load` opens it.

        Statistics of ``partial_fit`` go with it, so that it can go on. ``GLAI.load`` and the command line open the
        folder too. A model whose weights did not fit in memory is a :class:`PathKernelModel`, whose file holds training
        data: its ``save`` warns of that.

        Args:
            folder: made when it is not there. A model of the same structure in it is replaced.
            overwrite: also replace a model of another structure.

        Raises:
            ValueError: it is not fitted, or a parameter is none that a file can hold; otherwise as :meth:`GLAI.save`.
        """
        check_is_fitted(self, "model_")
        model = self.model_
        state = {
            "n_features": self.n_features_in_,
            "feature_names": getattr(self, "feature_names_in_", np.empty(0)).tolist(),
            "accumulating": self._is_accumulating(),
            "progressive": self._progress().to_json() if self._is_accumulating() else None,
            "one_target": getattr(self, "_one_target", None),
            "result": result_to_json(self.result_) if hasattr(self, "result_") else None,
        }
        entry = described(type(self).__name__, self.get_params(deep=False), state)  # type: ignore[attr-defined]
        before = provenance_of(model)
        set_provenance(model, before | {LEARNER: entry})
        try:
            model.save(folder, overwrite=overwrite)
        finally:
            set_provenance(model, before)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Open a folder that :meth:`save` wrote, or :meth:`GLAI.save`, or the command line.

        Where the folder does not say what a learner was told, its parameters are the defaults.

        Raises:
            FileNotFoundError: there is no model.
            ValueError: a file is damaged, or the model's outputs are of the other kind, values or classes.
        """
        model = open_model(cls.__name__, folder)
        provenance = dict(provenance_of(model))
        entry = provenance.pop(LEARNER, None) or {"parameters": {"hidden_layer_sizes": model.selector.widths}}
        set_provenance(model, provenance)
        cls._require_kind(folder, model.estimator if isinstance(model, GLAI) else model)
        try:
            return cls._of_entry(model, entry, folder)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{folder}: what it says of its learner cannot be read ({error!r})") from None

    @classmethod
    def _of_entry(
        cls, model: GLAI | PathKernelModel, entry: dict[str, Any], folder: str | os.PathLike[str]
    ) -> Self:
        parameters: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in entry["parameters"].items()
        }
        if isinstance(parameters.get("class_weight"), tuple):
            parameters["class_weight"] = dict(parameters["class_weight"])
        learner = cls(**parameters)
        labels = learner._outputs_of(model).class_labels
        if labels is not None and labels != sorted(labels):
            model.permute_outputs(sorting_order(labels))
        learner.n_features_in_ = entry.get("n_features", model.selector.in_features)
        if entry.get("feature_names"):
            learner.feature_names_in_ = np.array(entry["feature_names"], dtype=object)
        learner._one_target = entry.get("one_target")
        learner.model_, learner._statistics = model, None
        if entry.get("accumulating") and isinstance(model, GLAI) and model.statistics is not None:
            learner._selector, learner._statistics = model.selector, copy(model.statistics)
            learner._progressive = Progressive.from_json(entry.get("progressive"))
            return learner
        kept, solver = entry.get("result"), provenance_of(model).get("solver", "unknown")
        learner.result_ = (
            FitResult(model, solver, f"loaded from {folder}")
            if kept is None
            else result_from_json(model, kept)
        )
        learner._take_history()
        return learner

    @staticmethod
    def _outputs_of(model: GLAI | PathKernelModel) -> Outputs:
        return model.estimator if isinstance(model, GLAI) else model

    @classmethod
    def _require_kind(cls, folder: str | os.PathLike[str], outputs: Outputs) -> None:
        """Raise unless a model's outputs are of the kind that this learner has."""
        raise NotImplementedError


def open_model(owner: str, folder: str | os.PathLike[str]) -> GLAI | PathKernelModel:
    """Open the model in a folder, of whichever kind.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    folder = Path(folder)
    if find_file(folder / ESTIMATOR_FILE) is not None:
        return GLAI.load(folder)
    if find_file(folder / PATH_KERNEL_FILE) is not None:
        return PathKernelModel.load(folder)
    found = "none"
    if find_file(folder / EXACT_FILE) is not None:
        found = "an exact one, which ExactClassifier.load or ExactRegressor.load opens"
    raise FileNotFoundError(f"{owner}.load: {folder} must hold a model, which save writes, got {found}")


def provenance_of(model: GLAI | PathKernelModel) -> dict[str, Any]:
    """Return how a model of either kind came about, which its file keeps."""
    return model.estimator.provenance if isinstance(model, GLAI) else model.provenance


def set_provenance(model: GLAI | PathKernelModel, provenance: dict[str, Any]) -> None:
    """Say how a model of either kind came about."""
    if isinstance(model, GLAI):
        model.estimator.provenance = provenance
    else:
        model.provenance = provenance


def described(owner: str, parameters: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of a learner as JSON has it.

    Raises:
        ValueError: a parameter that no file can hold, such as a RandomState.
    """
    plain = {}
    for name, value in parameters.items():
        if name == "class_weight" and isinstance(value, Mapping):
            value = [list(pair) for pair in value.items()]  # labels stay of their type, which keys do not
        try:
            plain[name] = json.loads(json.dumps(value, default=_plain, allow_nan=False))
        except (TypeError, ValueError):
            raise ValueError(
                f"{owner}.save: {name} must be numbers, texts, lists or dicts of them, which a file can hold, got "
                f"{value!r}; set_params({name}=...) changes it"
            ) from None
    return {"kind": owner, "parameters": plain} | state


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError


def result_to_json(result: FitResult) -> dict[str, Any]:
    """Return what a training came to, but its model."""
    figures = {name: _or_none(getattr(result, name)) for name in FIGURES}
    history = [{name: _or_none(value) for name, value in asdict(epoch).items()} for epoch in result.history]
    return figures | {
        "solver": result.solver,
        "reason": result.reason,
        "seconds": result.seconds,
        "history": history,
    }


def result_from_json(model: GLAI | PathKernelModel, kept: dict[str, Any]) -> FitResult:
    """Return what :func:`result_to_json` kept, with the model."""
    figures = {name: _or_nan(kept[name]) for name in FIGURES}
    epochs: list[dict[str, Any]] = kept["history"]
    history = [SgdEpoch(**{name: _or_nan(value) for name, value in epoch.items()}) for epoch in epochs]
    return FitResult(model, kept["solver"], kept["reason"], history, seconds=kept["seconds"], **figures)


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _or_nan(value: Any) -> Any:
    return math.nan if value is None else value
