"""The folder of a federation: a whole model after every round, from which a restarted server goes on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from glai_native.estimator.estimator import PathEstimator
from glai_native.estimator.file import ESTIMATOR_FILE, open_estimator
from glai_native.federated.rounds import FederatedRound
from glai_native.federated.settings import FederationSettings
from glai_native.machine.files import CHECKSUM, is_integer, is_number, parse_json, stated_checksum
from glai_native.machine.writing import find_file, read_whole, remove_leftovers, write_files
from glai_native.model.glai import GLAI, STATISTICS_CHECKSUM
from glai_native.solvers.statistics.file import STATISTICS_FILE, open_statistics
from glai_native.solvers.statistics.sums import PathStatistics
from glai_native.structure.selector import STRUCTURE_FILE, PathSelector

FEDERATION = "federation"


@dataclass
class Progress:
    """What a federation has come to.

    The rounds, and which parties are in the sums, are in the metadata of the one file that holds the sums (with the
    statistics), or the averaged weights: no party is counted twice.

    Attributes:
        folder: a model's, as :meth:`GLAI.save` writes it; None: kept in memory only.
        settings: of the federation.
        selector: the structure.
        estimator: the model's.
        stated: where the structure came from, and what it cost.
        statistics: the sums over the parties that contributed.
        contributed: their names.
        rounds: what was done so far.
        is_solved: whether the estimator is that of the statistics.
    """

    folder: Path | None
    settings: FederationSettings
    selector: PathSelector
    estimator: PathEstimator
    stated: dict[str, Any]
    statistics: PathStatistics | None = None
    contributed: list[str] = field(default_factory=list)
    rounds: list[FederatedRound] = field(default_factory=list)
    is_solved: bool = True

    def model(self) -> GLAI:
        """Structure, estimator and statistics."""
        return GLAI(self.selector, self.estimator, self.statistics)

    def save(self) -> None:
        """Writes the folder, in one step: it is whole, or as it was before."""
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
        entries = {}
        if self.statistics is not None:
            sums = self.statistics.to_bytes(**{FEDERATION: text})
            contents[self.folder / STATISTICS_FILE] = sums
            entries[STATISTICS_CHECKSUM] = stated_checksum(sums)
        self.estimator.provenance = self.estimator.provenance | {FEDERATION: json.loads(text)}
        write_files(contents | {self.folder / ESTIMATOR_FILE: self.estimator.to_bytes(**entries)})

    @classmethod
    def load(cls, folder: Path, settings: FederationSettings) -> Self | None:
        """What the folder has come to; None where nothing is there.

        Raises:
            ValueError: it is of a federation with other settings, or of none, or its files do not belong together.
        """
        remove_leftovers(folder)
        return read_whole(folder, lambda: cls._load(folder, settings))

    @classmethod
    def _load(cls, folder: Path, settings: FederationSettings) -> Self | None:
        if find_file(folder / ESTIMATOR_FILE) is None:
            left = [
                name for name in (STRUCTURE_FILE, STATISTICS_FILE) if find_file(folder / name) is not None
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
        rounds = _require_kept(folder, kept)
        if kept["contributed"] and statistics is None:
            raise ValueError(
                f"{folder}: {STATISTICS_FILE} must hold the sums of the parties that have contributed, "
                f"{', '.join(kept['contributed'])}, got no such file; restore it, or name a new folder"
            )
        before, now = json.loads(kept["settings"]), json.loads(settings.identity())
        before = {"class_labels": now["class_labels"]} | before  # which earlier versions did not keep
        if before != now:
            name = next((name for name in now if before.get(name) != now[name]), "settings")
            raise ValueError(
                f"{folder}: holds a federation with {name} {before.get(name)!r}, got {now.get(name)!r}; "
                "go on with the same settings, or name a new folder"
            )
        progress = cls(
            folder,
            settings,
            selector,
            estimator,
            kept["stated"],
            statistics,
            kept["contributed"],
            rounds,
            is_solved,
        )
        progress.model()  # raises where they are of different structures
        return progress


def _require_kept(folder: Path, kept: Any) -> list[FederatedRound]:
    """Raise unless what a federation's file says of it is what :meth:`Progress.save` writes; return the rounds."""
    try:
        settings = parse_json(kept["settings"])
        rounds = [FederatedRound(**done) for done in kept["rounds"]]
        sound = isinstance(settings, dict) and isinstance(kept["stated"], dict)
        parties = kept["contributed"]
        sound = sound and all(isinstance(name, str) for name in parties) and len(set(parties)) == len(parties)
    except (TypeError, KeyError, ValueError):
        sound = False
    if not sound or not all(_is_round(done, number) for number, done in enumerate(rounds, start=1)):
        raise ValueError(f"{folder}: what its files say of the federation's rounds must be as it was written")
    return rounds


def _is_round(done: FederatedRound, number: int) -> bool:
    counts = done.samples, done.bytes_down, done.bytes_up
    return (
        is_integer(done.round, number, number)
        and is_integer(done.asked)
        and is_integer(done.replied, 0, done.asked)
        and all(is_integer(count) for count in counts)
        and (done.accuracy is None or is_number(done.accuracy, 0, 1))
        and isinstance(done.dropped, list)
        and all(isinstance(reason, str) for reason in done.dropped)
    )
