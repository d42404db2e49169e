"""The folder of a federation whose parties send integer sums: an exact head."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from flwr.app import ConfigRecord
from torch import Tensor

from glai_native.estimator.file import ESTIMATOR_FILE
from glai_native.federated.integer_messages import class_names, features_record
from glai_native.federated.progress import FEDERATION, Progress, require_kept, require_same_settings
from glai_native.federated.settings import FederationSettings
from glai_native.machine.writing import find_file, write_files
from glai_native.solvers.exact.file import EXACT_FILE, open_exact
from glai_native.solvers.exact.ledger import Ledger
from glai_native.solvers.exact.solution import ExactSolution
from glai_native.solvers.exact.sums import IntegerStatistics
from glai_native.structure.integer_features import IntegerFeatures
from glai_native.training.exact.classifier import ExactClassifier
from glai_native.training.exact.saving import GIVEN, LEARNER
from glai_native.training.learners.saving import described

# Whose ledgers a restarted server knows together alone.
EARLIER = "parties of earlier rounds"


@dataclass(kw_only=True)
class ExactProgress(Progress):
    """What a federation of integer sums has come to.

    Attributes:
        statistics: the sums over the parties that contributed, and the map that they are of.
        ledgers: of the parties that contributed since the server was started, by name.
    """

    statistics: IntegerStatistics
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    solution: ExactSolution | None = None

    @classmethod
    def of(
        cls,
        folder: Path | None,
        settings: FederationSettings,
        features: IntegerFeatures,
        stated: dict[str, Any],
    ) -> Self:
        """A federation that has no sums yet."""
        statistics = IntegerStatistics(features, settings.n_classes, ledger=settings.ledger)
        statistics.class_labels = class_names(settings.class_labels, settings.n_classes)
        return cls(folder=folder, settings=settings, stated=stated, statistics=statistics)

    @property
    def features(self) -> IntegerFeatures:
        """The map."""
        return self.statistics.features

    @property
    def structure_id(self) -> str:
        """Of the map."""
        return self.features.features_id

    def structure_records(self) -> Mapping[str, ConfigRecord]:
        """The map's file."""
        return features_record(self.features)

    def weights(self) -> Mapping[str, Tensor]:
        """Of the solution; none where there is none."""
        return {} if self.solution is None else {"weight": self.solution.weight}

    def model(self) -> Callable[[Tensor], Tensor]:
        """Scores by the solution of the sums."""
        self.solve()
        solution = self.solution
        if solution is None:
            raise ValueError("federate: no party has contributed")
        return lambda x: solution.scores(self.features.transform(x))

    def described(self) -> dict[str, Any]:
        """The map's id, units and features, and the digest of the sums."""
        sizes = {"units": self.features.n_units, "features": self.features.n_features}
        return {"structure_id": self.structure_id, "digest": self.statistics.digest()} | sizes

    def solve(self) -> None:
        """The weights of the sums."""
        if self.solution is None and self.statistics.n_samples:
            self.solution = self.statistics.solve(self.settings.penalty)

    def save(self) -> None:
        """Writes the folder."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        entries = {FEDERATION: self.text(), LEARNER: json.dumps(self._learner())}
        write_files({self.folder / EXACT_FILE: self.statistics.to_pieces(**entries)})

    def _learner(self) -> dict[str, Any]:
        """What :meth:`ExactClassifier.load` reads: the learner that has these sums."""
        settings = self.settings
        learner = ExactClassifier(
            self.features.n_units,
            structure="random" if settings.structure == "random" else GIVEN,
            l2=settings.penalty,
            ledger=settings.ledger,
            random_state=settings.seed,
        )
        names = settings.names
        known = (
            {} if names.columns is None else {"feature_names": [*names.columns], "target_name": names.label}
        )
        return described("ExactClassifier", learner.get_params(deep=False), known)

    @classmethod
    def _load(cls, folder: Path, settings: FederationSettings) -> Self | None:
        if find_file(folder / EXACT_FILE) is None:
            if find_file(folder / ESTIMATOR_FILE) is not None:
                raise ValueError(
                    f"{folder}: holds a model of another kind, {ESTIMATOR_FILE}; name a new folder"
                )
            return None
        file = open_exact(folder / EXACT_FILE)
        if FEDERATION not in file.metadata:
            raise ValueError(f"{folder}: holds a model of no federation, name a new folder")
        kept = file.json(FEDERATION)
        rounds = require_kept(folder, kept)
        require_same_settings(folder, kept, settings)
        statistics = IntegerStatistics.from_file(file)
        known = {} if statistics.ledger is None else {EARLIER: statistics.ledger}
        return cls(
            folder=folder,
            settings=settings,
            stated=kept["stated"],
            contributed=kept["contributed"],
            rounds=rounds,
            statistics=statistics,
            ledgers=known,
        )
