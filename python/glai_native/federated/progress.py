"""The folder of a federation: a whole model after every round, from which a restarted server goes on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from glai_native.estimator.estimator import ESTIMATOR_FILE, PathEstimator
from glai_native.federated.rounds import FederatedRound
from glai_native.federated.settings import FederationSettings
from glai_native.machine.files import TensorFile, write_files
from glai_native.model.glai import GLAI
from glai_native.solvers.statistics.file import STATISTICS_FILE, STATISTICS_FORMAT
from glai_native.solvers.statistics.sums import PathStatistics
from glai_native.structure.selector import STRUCTURE_FILE, PathSelector

FEDERATION = "federation"


@dataclass
class Progress:
    """What a federation has come to.

    The rounds, and which parties are in the sums, are in the metadata of the one file that holds the sums (with the
    statistics), or the averaged weights: a server that is killed between two files counts no party twice.

    Attributes:
        folder: a model's, as :meth:`GLAI.save` writes it; None: kept in memory only.
        settings: of the federation.
        selector: the structure.
        estimator: the model's.
        stated: where the structure came from, and what it cost.
        statistics: the sums over the parties that contributed.
        contributed: their names.
        rounds: what was done so far.
    """

    folder: Path | None
    settings: FederationSettings
    selector: PathSelector
    estimator: PathEstimator
    stated: dict[str, Any]
    statistics: PathStatistics | None = None
    contributed: list[str] = field(default_factory=list)
    rounds: list[FederatedRound] = field(default_factory=list)

    def model(self) -> GLAI:
        """Structure, estimator and statistics."""
        return GLAI(self.selector, self.estimator, self.statistics)

    def save(self) -> None:
        """Writes the folder; each file is whole or as it was before."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(
            {
                "settings": self.settings.identity(),
                "stated": self.stated,
                "contributed": self.contributed,
                "rounds": [asdict(done) for done in self.rounds],
            }
        )
        contents = {self.folder / STRUCTURE_FILE: self.selector.to_bytes()}
        if self.statistics is not None:
            contents[self.folder / STATISTICS_FILE] = self.statistics.to_bytes(**{FEDERATION: text})
        self.estimator.provenance = self.estimator.provenance | {FEDERATION: json.loads(text)}
        write_files(contents | {self.folder / ESTIMATOR_FILE: self.estimator.to_bytes()})

    @classmethod
    def load(cls, folder: Path, settings: FederationSettings) -> Self | None:
        """What the folder has come to; None where nothing is there.

        Raises:
            ValueError: it is of a federation with other settings, or of none.
        """
        if not (folder / ESTIMATOR_FILE).exists():
            return None
        selector = PathSelector.load(folder / STRUCTURE_FILE)
        estimator = PathEstimator.load(folder / ESTIMATOR_FILE)
        kept, statistics = estimator.provenance.get(FEDERATION), None
        if (folder / STATISTICS_FILE).exists():
            statistics = PathStatistics.load(folder / STATISTICS_FILE, selector.structure_id)
            kept = TensorFile(folder / STATISTICS_FILE, STATISTICS_FORMAT).entry(FEDERATION, json.loads)
        if not isinstance(kept, dict):
            raise ValueError(f"{folder}: holds a model of no federation, name a new folder")
        if kept["settings"] != settings.identity():
            before, now = json.loads(kept["settings"]), json.loads(settings.identity())
            name = next(name for name in now if before.get(name) != now[name])
            raise ValueError(
                f"{folder}: holds a federation with {name} {before.get(name)!r}, got {now[name]!r}; "
                "go on with the same settings, or name a new folder"
            )
        rounds = [FederatedRound(**done) for done in kept["rounds"]]
        progress = cls(
            folder, settings, selector, estimator, kept["stated"], statistics, kept["contributed"], rounds
        )
        return progress
