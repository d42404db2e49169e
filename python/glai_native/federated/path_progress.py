"""The folder of a federation on a structure's paths: a model as ``GLAI.save`` writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from flwr.app import ArrayRecord, ConfigRecord
from torch import Tensor

from glai_native.estimator.estimator import PathEstimator
from glai_native.estimator.file import ESTIMATOR_FILE, open_estimator
from glai_native.federated.messages import structure_records
from glai_native.federated.progress import FEDERATION, Progress, require_kept, require_same_settings
from glai_native.federated.settings import FederationSettings
from glai_native.machine.files import CHECKSUM, stated_checksum
from glai_native.machine.writing import find_file, write_files
from glai_native.model.glai import GLAI, STATISTICS_CHECKSUM
from glai_native.solvers.exact.file import EXACT_FILE
from glai_native.solvers.statistics.file import STATISTICS_FILE, open_statistics
from glai_native.solvers.statistics.sums import PathStatistics
from glai_native.structure.selector import STRUCTURE_FILE, PathSelector
from glai_native.training.tables import TABLE


@dataclass(kw_only=True)
class PathProgress(Progress):
    """What a federation on paths has come to.

    Attributes:
        selector: the structure.
        estimator: the model's.
        statistics: the sums over the parties that contributed.
    """

    selector: PathSelector
    estimator: PathEstimator
    statistics: PathStatistics | None = None

    @property
    def structure_id(self) -> str:
        """Of the selector."""
        return self.selector.structure_id

    def structure_records(self) -> Mapping[str, ConfigRecord | ArrayRecord]:
        """The structure file, and V."""
        return structure_records(self.selector, self.estimator.directions)

    def weights(self) -> Mapping[str, Tensor]:
        """The estimator's parameters."""
        return dict(self.estimator.named_parameters())

    def model(self) -> GLAI:
        """Structure, estimator and statistics."""
        return GLAI(self.selector, self.estimator, self.statistics)

    def described(self) -> dict[str, Any]:
        """The structure's id, paths and width of z."""
        selector = self.selector
        sizes = {"paths": selector.n_paths, "z_features": selector.z_features}
        return {"structure_id": selector.structure_id} | sizes

    def solve(self) -> None:
        """The estimator of the statistics, in its dtype and along its directions."""
        if self.statistics is not None and not self.is_solved:
            self.estimator = solved(self.statistics, self.settings, self.estimator)
            self.is_solved = True

    def save(self) -> None:
        """Writes the folder, in one step: it is whole, or as it was before."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        text = self.text()
        contents = {self.folder / STRUCTURE_FILE: self.selector.to_bytes()}
        entries = {}
        if self.statistics is not None:
            sums = self.statistics.to_bytes(**{FEDERATION: text})
            contents[self.folder / STATISTICS_FILE] = sums
            entries[STATISTICS_CHECKSUM] = stated_checksum(sums)
        names = self.settings.names
        known = {FEDERATION: json.loads(text)} | ({} if names.columns is None else {TABLE: names.to_json()})
        self.estimator.provenance = self.estimator.provenance | known
        write_files(contents | {self.folder / ESTIMATOR_FILE: self.estimator.to_bytes(**entries)})

    @classmethod
    def _load(cls, folder: Path, settings: FederationSettings) -> Self | None:
        if find_file(folder / ESTIMATOR_FILE) is None:
            left = [
                name
                for name in (STRUCTURE_FILE, STATISTICS_FILE, EXACT_FILE)
                if find_file(folder / name) is not None
            ]
            if left:  # which a new federation would write over
                raise ValueError(
                    f"{folder}: must hold {ESTIMATOR_FILE} beside {' and '.join(left)}, got no such file; restore it, "
                    "or name a new folder"
                )
            return None
        selector = PathSelector.load(folder / STRUCTURE_FILE)
        made = open_estimator(folder / ESTIMATOR_FILE)
        estimator = PathEstimator.from_file(made)
        kept, statistics, is_solved = estimator.provenance.get(FEDERATION), None, True
        if find_file(folder / STATISTICS_FILE) is not None:
            file = open_statistics(folder / STATISTICS_FILE)
            before = kept if isinstance(kept, dict) else {}
            kept = file.json(FEDERATION) if FEDERATION in file.metadata else None
            statistics = PathStatistics.from_file(file, selector.structure_id)
            stated = made.metadata.get(
                STATISTICS_CHECKSUM
            )  # not of earlier versions, whose writes were two steps
            is_solved = before == kept if stated is None else stated == file.entry(CHECKSUM)
        if kept is None:
            raise ValueError(f"{folder}: holds a model of no federation, name a new folder")
        rounds = require_kept(folder, kept)
        if settings.method == "statistics" and kept["contributed"] and statistics is None:
            raise ValueError(
                f"{folder}: {STATISTICS_FILE} must hold the sums of the parties that have contributed, "
                f"{', '.join(kept['contributed'])}, got no such file; restore it, or name a new folder"
            )
        require_same_settings(folder, kept, settings)
        progress = cls(
            folder=folder,
            settings=settings,
            stated=kept["stated"],
            contributed=kept["contributed"],
            rounds=rounds,
            is_solved=is_solved,
            selector=selector,
            estimator=estimator,
            statistics=statistics,
        )
        progress.model()  # raises where they are of different structures
        return progress


def solved(statistics: PathStatistics, settings: FederationSettings, like: PathEstimator) -> PathEstimator:
    """The estimator of the statistics, in the dtype and along the directions of ``like``."""
    estimator = statistics.solve(settings.penalty, like.directions, dtype=like.dtype, progress=False)
    estimator.class_labels = like.class_labels
    return estimator
