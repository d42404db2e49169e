"""An exact learner's folder: the sums, which say what the learner was told, and the solution that there was of them."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from glai_native.data.preparing.preparation import Preparation
from glai_native.estimator.file import ESTIMATOR_FILE
from glai_native.machine.files import TensorFile, is_number, tensors_to_bytes
from glai_native.machine.inference import outside_inference_mode
from glai_native.machine.writing import find_file, make_folder, write_files
from glai_native.solvers.dual.file import PATH_KERNEL_FILE
from glai_native.solvers.exact.current import CurrentSolution
from glai_native.solvers.exact.file import EXACT_FILE, open_exact
from glai_native.solvers.exact.solution import ExactSolution
from glai_native.solvers.exact.sums import IntegerStatistics
from glai_native.structure.integer_features import IntegerFeatures
from glai_native.training.learners.saving import described

SOLUTION_FILE = "solution.safetensors"
HELD_OUT_FILE = "held_out.safetensors"
SOLUTION_FORMAT = "glai-exact-solution"
SOLUTION_VERSION = 2  # 1 is of sums solved in another way: it is solved anew
LEARNER = "learner"  # the entry
GIVEN = "given"  # the structure's name where it was an object


class SavedExact:
    """What an exact learner has of files: a mixin."""

    features_: IntegerFeatures
    statistics_: IntegerStatistics
    n_features_in_: int
    feature_names_in_: NDArray[Any]
    _one_target: bool
    _current: CurrentSolution
    _held_out: IntegerStatistics | None
    l2: float | str
    target_name: str | None = None  # of the column that targets were, where they were one of a table
    preparation: Preparation | None = None  # of a table's columns, before the learner reads them
    structure_reason_: str | None = None  # why the features are those that they are; None: nobody said so

    def _begin(self, statistics: IntegerStatistics, held_out: IntegerStatistics | None = None) -> None:
        raise NotImplementedError

    def _class_weight(self) -> Tensor | str | None:
        raise NotImplementedError

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write a folder that :meth:`load` opens, all of it or nothing: sums, ledger, features, solution.

        Args:
            folder: made when it is not there. A model of the same features in it is replaced.
            overwrite: also replace a model of other features.

        Raises:
            ValueError: it is not fitted, a parameter is none that a file can hold, or another model is there.
        """
        check_is_fitted(self, "statistics_")
        owner = f"{type(self).__name__}.save"
        parameters = self.get_params(deep=False)  # type: ignore[attr-defined]
        if isinstance(parameters["structure"], IntegerFeatures):
            parameters["structure"] = GIVEN
        state = {
            "feature_names": getattr(self, "feature_names_in_", np.empty(0)).tolist(),
            "one_target": getattr(self, "_one_target", None),
            "target_name": self.target_name,
            "structure_reason": self.structure_reason_,
        }
        if self.preparation is not None:
            state["preparation"] = self.preparation.to_json()
        entry = described(type(self).__name__, parameters, state)
        path = make_folder(owner, folder)
        _require_replaceable(owner, path, self.features_.features_id, overwrite)
        pieces = self.statistics_.to_pieces(**{LEARNER: json.dumps(entry)})
        contents: dict[Path, Any] = {path / EXACT_FILE: pieces}
        solution = self.known_solution()
        if solution is not None:
            contents[path / SOLUTION_FILE] = _solution_to_bytes(solution, self.statistics_.digest())
        if self._held_out is not None:
            contents[path / HELD_OUT_FILE] = self._held_out.to_pieces()
        names = (path / name for name in (SOLUTION_FILE, HELD_OUT_FILE))
        write_files(contents, remove=[name for name in names if name not in contents])

    def known_solution(self) -> ExactSolution | None:
        """Return the solution, or None where nobody has asked for it since sums or parameters changed."""
        try:
            return self._current.known(self.l2, self._class_weight())
        except ValueError:  # a class weight of a class that may yet come
            return None

    @classmethod
    @outside_inference_mode
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Open a folder that :meth:`save` wrote; what else wrote its sums, its learner has the default parameters.

        It warns of a model of tables whose columns are prepared, which takes them prepared.

        Raises:
            FileNotFoundError: there is no model.
            ValueError: a file is damaged, or the model's outputs are of the other kind, values or classes.
        """
        learner = cls.open(folder)
        if learner.preparation is not None:
            warnings.warn(
                f"{cls.__name__}.load: {folder} has learnt a table whose columns were prepared, and takes samples "
                "prepared alike; glai.prepared(folder) takes them as the table has them",
                stacklevel=3,  # the caller of what is decorated
            )
        return learner

    @classmethod
    @outside_inference_mode
    def open(cls, folder: str | os.PathLike[str]) -> Self:
        """Open a folder as :meth:`load` does, for who prepares samples where they are to be prepared."""
        path = Path(folder)
        if find_file(path / EXACT_FILE) is None:
            raise FileNotFoundError(
                f"{cls.__name__}.load: {folder} must hold {EXACT_FILE}, which save writes, got none"
            )
        file = open_exact(path / EXACT_FILE)
        statistics = IntegerStatistics.from_file(file)
        cls._require_kind(folder, statistics)
        entry = file.json(LEARNER) if LEARNER in file.metadata else {"parameters": {}}
        try:
            learner = cls._of_entry(statistics, entry)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{folder}: what it says of its learner cannot be read ({error!r})") from None
        if find_file(path / HELD_OUT_FILE) is not None:
            learner._held_out = IntegerStatistics.load(path / HELD_OUT_FILE, statistics.features)
        if find_file(path / SOLUTION_FILE) is not None:
            solution = _read_solution(path / SOLUTION_FILE, statistics)
            if solution is not None:
                learner._current.take(solution, learner.l2, learner._class_weight())
        return learner

    @classmethod
    def _of_entry(cls, statistics: IntegerStatistics, entry: dict[str, Any]) -> Self:
        parameters: dict[str, Any] = dict(entry["parameters"])
        if parameters.get("structure") == GIVEN:
            parameters["structure"] = statistics.features
        if isinstance(parameters.get("class_weight"), list):
            parameters["class_weight"] = {label: weight for label, weight in parameters["class_weight"]}
        learner = cls(**parameters)
        learner.n_features_in_ = statistics.features.in_features
        if entry.get("feature_names"):
            learner.feature_names_in_ = np.array(entry["feature_names"], dtype=object)
        one = entry.get("one_target")
        learner._one_target = statistics.out_features == 1 if one is None else one
        if entry.get("target_name") is not None:
            learner.target_name = entry["target_name"]
        if entry.get("structure_reason") is not None:
            learner.structure_reason_ = str(entry["structure_reason"])
        if entry.get("preparation") is not None:
            learner.preparation = Preparation.from_json(entry["preparation"])
        learner._begin(statistics)
        return learner

    @classmethod
    def _require_kind(cls, folder: str | os.PathLike[str], statistics: IntegerStatistics) -> None:
        """Raise unless sums are of the kind that this learner has."""
        raise NotImplementedError


def _require_replaceable(owner: str, folder: Path, features_id: str, overwrite: bool) -> None:
    for name in (ESTIMATOR_FILE, PATH_KERNEL_FILE):
        if find_file(folder / name) is not None:
            raise ValueError(
                f"{owner}: {folder} must hold no model of another kind, got {name}; save to another folder"
            )
    found = find_file(folder / EXACT_FILE)
    if found is None or overwrite:
        return
    there = open_exact(folder / EXACT_FILE).sha256("features_id")
    if there != features_id:
        raise ValueError(
            f"{owner}: {folder} must hold a model of features {features_id[:12]}… or none, got {there[:12]}…; "
            "overwrite=True replaces it"
        )


def _solution_to_bytes(solution: ExactSolution, digest: str) -> bytes:
    metadata = {
        "format": SOLUTION_FORMAT,
        "version": str(SOLUTION_VERSION),
        "digest": digest,
        "l2": json.dumps(solution.l2),
        "condition": json.dumps(solution.condition),
        "temperature": json.dumps(solution.temperature),
        "provenance": json.dumps(solution.provenance),
    }
    return tensors_to_bytes({"weight": solution.weight}, metadata)


def _read_solution(path: Path, statistics: IntegerStatistics) -> ExactSolution | None:
    """Return the solution of these very sums, or None where the file's are others."""
    file = TensorFile(path, SOLUTION_FORMAT, newest=SOLUTION_VERSION, whole_from=1)
    if file.metadata["version"] == "1" or file.sha256("digest") != statistics.digest():
        return None
    numbers = {name: file.json(name) for name in ("l2", "condition", "temperature")}
    for name, number in numbers.items():
        file.require(name, is_number(number, 0.0), "a number >= 0")
    provenance = file.json("provenance")
    file.require("provenance", isinstance(provenance, dict), "a dict")
    size = (statistics.n_features, statistics.out_features)
    weight = file.tensor("weight", (torch.float64,), size).clone()
    return ExactSolution(weight, n_samples=statistics.n_samples, provenance=provenance, **numbers)
